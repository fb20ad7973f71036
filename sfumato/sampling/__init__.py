"""Who takes part in step t: one file a sampler, and a list of them (`registry.py`).

A new one is a file with a class under `@register(kind)`, and its event if that is new, and an entry
in that list, with its flags. From outside of the package it is a class alone, named
`package.module:Class` wherever a flag takes a name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfumato.sampling.registry import DEFAULT, IN_TURNS, SAMPLERS

if TYPE_CHECKING:
    from sfumato.sampling.base import Sampler, Wanted, register
    from sfumato.sampling.chosen import choose, from_json, load
    from sfumato.sampling.cyclic import CyclicPoisson
    from sfumato.sampling.fixed import WithoutReplacement
    from sfumato.sampling.full import FullBatch
    from sfumato.sampling.poisson import Poisson
    from sfumato.sampling.truncated import TruncatedPoisson

__all__ = [
    "DEFAULT",
    "IN_TURNS",
    "SAMPLERS",
    "CyclicPoisson",
    "FullBatch",
    "Poisson",
    "Sampler",
    "TruncatedPoisson",
    "Wanted",
    "WithoutReplacement",
    "choose",
    "from_json",
    "load",
    "register",
]

_HOMES = {
    **dict.fromkeys(("Wanted", "Sampler", "register"), "base"),
    **dict.fromkeys(("choose", "from_json", "load"), "chosen"),
}


def __getattr__(name: str) -> Any:
    """The classes are imported when they are asked for."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    for found in (SAMPLERS[each] for each in SAMPLERS) if name in __all__ else ():
        if found.__name__ == name:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
