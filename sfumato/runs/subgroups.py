"""The value of a column for each evaluation image, so that groups of people can be told apart: from an
array of a .npz file, from a column of the table that names the images, or from a table beside them."""

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np

from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.array_names import key_of
from sfumato.data.formats.columns import need
from sfumato.data.formats.table import ENDINGS, head, read_table
from sfumato.data.npz import members, read_member
from sfumato.data.source import Source
from sfumato.data.units import column

MOST = 50
"""Groups; more are no groups of people but names."""


def values(
    source: Source, data: Path, name: str, table: Path | None, path: str | None = None
) -> np.ndarray:
    """The group of each image of `source`, as text. data: where the images come from; a table has its own
    columns. table: another one, with a column of files (paths, or names that are unique) and a column
    `name`. path: what the column of files is called, if not as usual.

    Raises ArgumentError, DataError.
    """
    if table is None and data.is_file() and data.suffix.lower() in ENDINGS:
        table = data
    elif table is not None:
        path = None
    found = (
        _of_archive(source, data, name)
        if table is None
        else _of_table(source, data, name, table, path)
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
            "give the column in a table with --group-table FILE.csv; only a table and a .npz have their own",
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


def _of_table(source: Source, data: Path, name: str, table: Path, path: str | None) -> list[str]:
    if table.suffix.lower() not in ENDINGS:
        raise ArgumentError(
            "group_table", str(table), f"give a table, which ends in {', '.join(ENDINGS)}"
        )
    columns = head(table)
    if name not in columns:
        raise DataError(
            f"{table}: has no column {name!r} (found {', '.join(map(str, columns)) or 'nothing'})"
        )
    files = path or ("file" if "file" in columns else need("path", columns, None, str(table)))
    read = read_table(table, [files, name]).columns
    known = {
        _path(str(file)): str(value)
        for file, value in zip(read[files], read[name], strict=True)
        if value not in (None, "")
    }
    short = Counter(PurePosixPath(each).name for each in known)
    by_name = {
        PurePosixPath(each).name: value
        for each, value in known.items()
        if short[PurePosixPath(each).name] == 1
    }
    answers = []
    for image in _names(source, data):
        whole, last = PurePosixPath(image), PurePosixPath(PurePosixPath(image).name)
        # a table may leave out the endings of its files
        kinds = [(known, whole), (known, whole.with_suffix("")), (by_name, last)]
        kinds += [(by_name, last.with_suffix(""))]
        value = next((each[str(file)] for each, file in kinds if str(file) in each), None)
        if value is None:
            raise DataError(f"{table}: no {name} for {image!r}; add a row, or fill it in")
        answers.append(value)
    return answers


def _path(text: str) -> str:
    return text.replace("\\", "/").removeprefix("./")


def _names(source: Source, data: Path) -> list[str]:
    """The files of the images, in their order."""
    if source.names is not None:
        return [str(each) for each in source.names]
    raise ArgumentError(
        "group_table",
        str(data),
        "these images have no file names; give a .npz with the column in it",
    )
