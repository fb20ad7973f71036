"""Packages that only some commands need: imported where they are used; a missing one is one line with the
way out."""

import re
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from sfumato.core.errors import ArgumentError

_OF_EXTRA = re.compile(r"""([\w.-]+).*extra == ["']([\w.-]+)["']""")


def extras() -> dict[str, tuple[str, ...]]:
    """Extra of pyproject.toml -> the packages that it brings, but for that of developers."""
    found: dict[str, list[str]] = {}
    for text in requires("sfumato") or ():
        if (parts := _OF_EXTRA.match(text)) and parts[2] != "dev":
            found.setdefault(parts[2], []).append(parts[1])
    return {extra: tuple(names) for extra, names in found.items()}


def need(extra: str, argument: str, value: Any) -> None:
    """Raises ArgumentError where a package of the extra is missing."""
    for name in extras().get(extra, ()):
        try:
            import_module(name)
        except ImportError:
            raise ArgumentError(
                argument, value, f"needs {name}; pip install 'sfumato[{extra}]'"
            ) from None


def installed(name: str) -> str | None:
    """The version of a package; None where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
