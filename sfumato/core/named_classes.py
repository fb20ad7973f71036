"""The classes that a flag names: those of this package, imported when they are asked for, and those
from outside, `package.module:Class` (`plugins.py`)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sfumato.core import plugins
from sfumato.core.errors import ArgumentError

OUTSIDE = "package.module:Class"


@dataclass(frozen=True)
class Named:
    """home: where the class is, `package.module:Class`. help: what it is, for `--help`."""

    home: str
    help: str


class Registry:
    """Names of one flag -> classes. base: what all of them derive from, as `package.module:Class`."""

    def __init__(self, argument: str, base: str, entries: Mapping[str, Named]):
        self._argument, self._base, self._entries = argument, base, entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @property
    def help(self) -> str:
        """All names with what they are, for `--help`."""
        own = [f"{name}, {entry.help}" for name, entry in self._entries.items()]
        return " | ".join([*own, f"{OUTSIDE} of your own"])

    def __getitem__(self, name: str) -> Any:
        """The class. Raises ArgumentError for a name that nobody has, and for one from outside that
        the user did not name in this process."""
        if name in self._entries:
            return _at(self._entries[name].home)
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


def _at(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)
