"""Names of networks as a user types them: the catalog's own, which are timm's, or shorter ones.

    vit_base_patch16_224 -> vit-b16      vit_base_patch16_384 -> vit-b16-384      mobilenetv2_100 -> mobilenetv2

Case, hyphens and underscores do not matter. The beginning of a name serves too, where only one
network's begins so.
"""

import difflib
import re
from collections.abc import Collection

from sfumato.core.errors import ArgumentError

_SHOWN = 6
_OF_ANY_WIDTH = "wrn-"
"""A beginning of these names no network: there is a wrn-16 of every width, listed or not."""
_LEAST = 3
"""Letters that a beginning must have."""


def short(name: str) -> str:
    """Sizes of vision transformers are their first letter, as in papers; 224 pixels and width 100 %
    are customary."""
    name = re.sub(r"_([a-z])[a-z]+_patch", r"_\1", name)
    return re.sub(r"_(224|100)$", "", name).replace("_", "-")


def full_name(given: str, names: Collection[str], also: Collection[str] = ()) -> str:
    """The one of `names` that is meant. Raises ArgumentError where none is, or several.

    also: other values that the argument may have, for what may have been meant.
    """
    if given in names:
        return given
    wanted = _plain(given)
    spelled = {name: (_plain(name), _plain(short(name))) for name in names}
    found = [name for name in names if wanted in spelled[name]]
    if not found and len(wanted) >= _LEAST:
        found = [
            name
            for name in names
            if not name.startswith(_OF_ANY_WIDTH)
            and any(each.startswith(wanted) for each in spelled[name])
        ]
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - _SHOWN} more (`sfumato models`)" if len(found) > _SHOWN else ""
        raise ArgumentError(
            "model",
            given,
            f"several networks begin so: {', '.join(found[:_SHOWN])}{more}; choose one",
        )
    near = difflib.get_close_matches(given, [*names, *map(short, names), *also], n=1)
    meant = f"did you mean {near[0]}? There" if near else "there"
    raise ArgumentError(
        "model",
        given,
        f"no such network; {meant} are cnn, wrn-DEPTH-WIDTH and those that `sfumato models` lists",
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_./ ]", "", name.lower())
