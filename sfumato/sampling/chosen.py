"""Flags -> sampler, and plan.json -> sampler."""

from collections.abc import Mapping
from typing import Any

from sfumato.core.errors import ArgumentError
from sfumato.core.typed_json import Damaged, Unknown, convert
from sfumato.sampling.base import KINDS, Sampler, Wanted
from sfumato.sampling.registry import DEFAULT, SAMPLERS


def choose(name: str | None, wanted: Wanted) -> Sampler:
    """The sampler that flags ask for; name: that of `--sampler`. Raises ArgumentError as
    `Sampler.asked_for` does, and for flags that it does not have."""
    if wanted.batch > wanted.n:
        raise ArgumentError(
            "batch",
            wanted.batch,
            f"there are only n={wanted.n} training examples; give at most that many",
        )
    made = SAMPLERS[name or DEFAULT]
    for flag, value in wanted.given.items():
        if value is not None and flag not in made.flags:
            owners = " or ".join(each for each in SAMPLERS if flag in SAMPLERS[each].flags)
            raise ArgumentError(
                flag, value, f"is for --sampler {owners}; give that too, or leave it out"
            )
    return made.asked_for(wanted)


def from_json(value: Mapping[str, Any], n: int, steps: int) -> Sampler:
    """The inverse of `Sampler.to_json`, for a plan of n examples and so many steps. Raises
    Damaged and ArgumentError, as all that `core/typed_json.py` reads."""
    for name in SAMPLERS:  # those of this package are known
        _ = SAMPLERS[name]
    if not isinstance(value, Mapping):
        raise Damaged("sampler must be an object")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Unknown(
            f"sampler.kind={kind!r} is unknown; use the version that wrote it, or import the module from "
            "outside that defines it (on the command line, --trust package.module:Class)"
        )
    made, found = KINDS[kind], {}
    for name, type_of in {
        "rate": float,
        "expected_batch_size": float,
        **dict.fromkeys(made.own, int),
    }.items():
        if name not in value:
            raise Damaged(f"sampler.{name} is missing")
        found[name] = convert(type_of, value[name], f"sampler.{name}")
    return made.read(found, n, steps)
