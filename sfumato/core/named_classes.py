"""The classes that a flag names: those of this package, imported when they are asked for, and those
from outside, `package.module:Class` (`plugins.py`)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from sfumato.core import plugins
from sfumato.core.errors import ArgumentError
from sfumato.core.settings import Flag

OUTSIDE = "package.module:Class"


@dataclass(frozen=True)
class Named:
    """home: where the class is, `package.module:Class`. help: what it is, for `--help`. flags: its
    own, by name."""

    home: str
    help: str
    flags: Mapping[str, Flag] = field(default_factory=dict)


class Registry:
    """Names of one flag -> classes. base: what all of them derive from, as `package.module:Class`.
    valued: a class from outside may have values behind its name, `package.module:Class,size=3`."""

    def __init__(
        self, argument: str, base: str, entries: Mapping[str, Named], valued: bool = False
    ):
        self._argument, self._base, self._entries = argument, base, entries
        self._valued = valued

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @property
    def help(self) -> str:
        """All names with what they are, for `--help`."""
        own = [f"{name}, {entry.help}" for name, entry in self._entries.items()]
        values = ", with values of its fields as ,NAME=VALUE behind it" * self._valued
        return " | ".join([*own, f"{OUTSIDE} of your own{values}"])

    @property
    def flags(self) -> dict[str, Flag]:
        """Those of all classes of this package."""
        return {name: flag for each in self._entries for name, flag in self.flags_of(each).items()}

    def flags_of(self, name: str) -> Mapping[str, Flag]:
        return self._entries[name].flags if name in self._entries else {}

    def values(self, text: str) -> dict[str, str]:
        """What stands behind a name. Raises ArgumentError."""
        pairs = [pair.partition("=") for pair in text.split(",")[1:]]
        if any(not (name and equals and value) for name, equals, value in pairs):
            raise ArgumentError(
                self._argument, text, "write values as ,NAME=VALUE behind the name of the class"
            )
        return {name: value for name, _, value in pairs}

    def __getitem__(self, name: str) -> Any:
        """The class. Raises ArgumentError for a name that nobody has, and for one from outside that
        the user did not name in this process."""
        if name in self._entries:
            return _at(self._entries[name].home)
        if self._valued and self.values(name):
            name, _, values = name.partition(",")
            if name in self._entries:
                raise ArgumentError(
                    self._argument,
                    f"{name},{values}",
                    "only a class from outside takes values; leave them out",
                )
        if not plugins.is_name(name):
            raise ArgumentError(
                self._argument, name, f"choose one of {', '.join(self)}, or {OUTSIDE}"
            )
        found, base = plugins.find(self._argument, name), _at(self._base)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ArgumentError(
                self._argument, name, f"give a subclass of {base.__module__}.{base.__qualname__}"
            )
        return found

    def name_of(self, kind: type) -> str:
        """The name by which `self[name]` is this class, from now on in this process if it is one from
        outside."""
        home = f"{kind.__module__}:{kind.__qualname__}"
        own = (name for name, entry in self._entries.items() if entry.home == home)
        return next(own, None) or plugins.given(kind)


def _at(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)
