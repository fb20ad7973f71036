"""The list of images that cannot be decoded: `sfumato data check` writes it, `--skip-unreadable` reads it.

A line is a name and, after a tab, why; lines that begin with # are for people. A name that a line cannot hold is a
JSON string.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sfumato.core.errors import ArgumentError, on_one_line

HEADER = "# Images that cannot be decoded, for --skip-unreadable. The names may be private.\n"


def names_to_skip(given: Path | Sequence[str] | None) -> Sequence[str]:
    """The names in a list's file, or as they were given. Raises ArgumentError."""
    if given is None:
        return ()
    if not isinstance(given, Path):
        return given
    try:
        lines = given.expanduser().read_text("utf-8").split("\n")
        return [_name(line) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or on_one_line(str(error))
        raise ArgumentError(
            "skip_unreadable",
            str(given),
            f"cannot be read ({told}); give the list that `sfumato data check DATA --out LIST` writes",
        ) from None


def as_text(reasons: Iterable[tuple[str, str]]) -> str:
    """(name, why) of each -> the list."""
    return HEADER + "".join(f"{_written(name)}\t{on_one_line(why)}\n" for name, why in reasons)


def _written(name: str) -> str:
    plain = name.isprintable() and name and not name.startswith(('"', "#"))
    return name if plain else json.dumps(name)


def _name(line: str) -> str:
    name = line.split("\t")[0]
    if not name.startswith('"'):
        return name
    found = json.loads(name)
    if not isinstance(found, str):
        raise ValueError(f"{name} is no name")
    return found
