"""Flags: what a user may set of a method or a sampler. Each is declared once, where it is used; the
command line, files of settings and the table of fields follow from that."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Flag:
    """help: for `--help`. kind: of its value. check: raises ArgumentError for a value that is right
    for nobody. choices: the only values, where there are few."""

    help: str
    kind: Any
    check: Callable[[str, Any], Any] = lambda name, value: value
    choices: tuple[str, ...] = ()


def flag(
    help: str = "",
    check: Callable[[str, Any], Any] = lambda name, value: value,
    choices: Iterable[str] = (),
    **default: Any,
) -> Any:
    """A field of a method's settings that a user may set by the flag of its name. The words and the
    check are given once, where several methods have it. default: as of `dataclasses.field`."""
    return field(metadata={"flag": (help, check, tuple(choices))}, **default)


def flags_of(settings: type) -> tuple[str, ...]:
    """All flags of a method: fields of its settings, and those that it has `also`, which end in other
    parts of the plan (the sampler, the map of rows)."""
    own = tuple(each.name for each in fields(settings) if each.metadata.get("flag"))
    return (*own, *getattr(settings, "also", ()))


def declared(methods: Iterable[type]) -> Mapping[str, Flag]:
    """The flags that are fields of these settings, by name, with the words that one of them has."""
    found: dict[str, Flag] = {}
    for each in (each for settings in methods for each in fields(settings)):
        if each.metadata.get("flag") and not getattr(found.get(each.name), "help", ""):
            help, check, choices = each.metadata["flag"]
            found[each.name] = Flag(help, each.type, check, choices)
    return found
