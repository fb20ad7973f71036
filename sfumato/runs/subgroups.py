"""The value of a column for each evaluation image, so that groups of people can be told apart: from an
array of a .npz file, or from a table (.csv)."""

import csv
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.array_names import key_of
from sfumato.data.npz import members, read_member
from sfumato.data.source import Source
from sfumato.data.units import column

MOST = 50
"""Groups; more are no groups of people but names."""


def values(source: Source, data: Path, name: str, table: Path | None) -> np.ndarray:
    """The group of each image of `source`, as text. data: where the images come from. table: a .csv
    file with a column `file` (a path, or a name that is unique) and a column `name`.

    Raises ArgumentError, DataError.
    """
    found = (
        _of_archive(source, data, name) if table is None else _of_table(source, data, name, table)
    )
    if (many := len(set(found))) > MOST:
        raise ArgumentError(
            "group", name, f"has {many} values, more than {MOST}; name a column of a few groups"
        )
    return np.array(found)


def _of_archive(source: Source, data: Path, name: str) -> list[str]:
    if data.suffix.lower() != ".npz" or not data.is_file():
        raise ArgumentError(
            "group",
            name,
            "give the column in a table with --group-table FILE.csv; only a .npz has its own",
        )
    stored = {each.removesuffix(".npy") for each in members(data)}
    keys = [key for key in (key_of(stored, name, source.split), name) if key in stored]
    if not keys:
        raise ArgumentError(
            "group",
            name,
            f"{data} has no array {name}_{source.split} or {name} (found {', '.join(sorted(stored))})",
        )
    return column(read_member(data, str(keys[0])), len(source), f"{data}: {keys[0]}")


def _of_table(source: Source, data: Path, name: str, table: Path) -> list[str]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as .csv ({error})") from None
    found = list(rows[0]) if rows else []
    for wanted in ("file", name):
        if wanted not in found:
            raise DataError(
                f"{table}: has no column {wanted!r} (found {', '.join(map(str, found)) or 'nothing'})"
            )
    known = {_path(row["file"]): row[name] for row in rows}
    short = Counter(PurePosixPath(each).name for each in known)
    by_name = {
        PurePosixPath(each).name: value
        for each, value in known.items()
        if short[PurePosixPath(each).name] == 1
    }
    answers = []
    for image in _names(source, data):
        value = known.get(image, by_name.get(PurePosixPath(image).name))
        if not value:
            raise DataError(f"{table}: no {name} for {image!r}; add a row, or fill it in")
        answers.append(value)
    return answers


def _path(text: str | None) -> str:
    return (text or "").replace("\\", "/").removeprefix("./")


def _names(source: Source, data: Path) -> list[str]:
    """The files of the images, in their order."""
    if source.names is not None:
        return [str(each) for each in source.names]
    raise ArgumentError(
        "group_table",
        str(data),
        "these images have no file names; give a .npz with the column in it",
    )
