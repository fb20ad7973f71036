"""Flags -> sampler, and plan.json -> sampler."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sfumato.core.errors import ArgumentError
from sfumato.core.typed_json import Damaged, Unknown, convert
from sfumato.sampling.base import KINDS, Sampler, Wanted
from sfumato.sampling.registry import DEFAULT, SAMPLERS


def choose(name: str | None, wanted: Wanted) -> Sampler:
    """The sampler that flags ask for; name: that of `--sampler`. Raises ArgumentError as
    `Sampler.asked_for` does, and for flags that it does not have."""
    name = name or DEFAULT
    if wanted.batch > wanted.n:
        raise ArgumentError(
            "batch",
            wanted.batch,
            f"there are only n={wanted.n} training examples; give at most that many",
        )
    made, own = SAMPLERS[name], SAMPLERS.flags_of(name)
    for flag, value in wanted.given.items():
        if value is not None and flag not in own:
            owners = " or ".join(each for each in SAMPLERS if flag in SAMPLERS.flags_of(each))
            raise ArgumentError(
                flag, value, f"is for --sampler {owners}; give that too, or leave it out"
            )
    given = {flag: wanted.given.get(flag) for flag in own} | _valued(name, made)
    return made.asked_for(dataclasses.replace(wanted, given=given))


def _valued(name: str, made: type[Sampler]) -> dict[str, Any]:
    """The values behind the name of a class from outside, of its fields' types."""
    given, kinds = SAMPLERS.values(name), {} if name in SAMPLERS else made.kinds()
    needed = {
        each.name
        for each in dataclasses.fields(made)  # type: ignore[arg-type]
        if each.name in kinds and each.default is dataclasses.MISSING
    }
    if (wrong := given.keys() - kinds) or (wrong := needed - given.keys()):
        takes = ", ".join(f"{each}={kind.__name__}" for each, kind in kinds.items()) or "no values"
        raise ArgumentError("sampler", name, f"{made.__name__} takes {takes}; mend {min(wrong)}")
    return {each: _typed(name, each, kinds[each], value) for each, value in given.items()}


def _typed(name: str, field: str, kind: Any, value: str) -> Any:
    try:
        return {"true": True, "false": False}[value] if kind is bool else kind(value)
    except (ValueError, LookupError):
        raise ArgumentError(
            "sampler", name, f"{field} must be {kind.__name__}, not {value!r}"
        ) from None


def load() -> None:
    """Import all samplers of this package: their kinds and their events are known from then on."""
    for name in SAMPLERS:
        _ = SAMPLERS[name]


def from_json(value: Mapping[str, Any], n: int, steps: int) -> Sampler:
    """The inverse of `Sampler.to_json`, for a plan of n examples and so many steps. Raises
    Damaged and ArgumentError, as all that `core/typed_json.py` reads."""
    load()
    if not isinstance(value, Mapping):
        raise Damaged("sampler must be an object")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Unknown(
            f"sampler.kind={kind!r} is unknown; use the version that wrote it, or import the module from "
            "outside that defines it (on the command line, --trust package.module:Class)"
        )
    made, found = KINDS[kind], {}
    for name, kind_of in {"rate": float, "expected_batch_size": float, **made.kinds()}.items():
        if name not in value:
            raise Damaged(f"sampler.{name} is missing")
        found[name] = convert(kind_of, value[name], f"sampler.{name}")
    return made.read(found, n, steps)
