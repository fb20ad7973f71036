"""A table that names image files -> `Listing`: how hospitals and competitions hand out images, and
what Hugging Face's imagefolder calls `metadata.csv` (or .jsonl, .parquet) beside the images.

Paths are taken from the table's folder, and may not leave it by `..`: a table may come from somebody
else, and what it names becomes part of a model. A path that begins at the root says openly where it
leads, and is read there. An ending that images have may be missing (`ISIC_0024306`).
"""

import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError
from sfumato.data.decode import SUFFIXES
from sfumato.data.findings import asked_names
from sfumato.data.formats import table
from sfumato.data.formats.columns import find, need
from sfumato.data.formats.found import FOLDERS, Found, Naming, by_folders, listing_of, usual_split
from sfumato.data.formats.parquet_files import holds_images
from sfumato.data.formats.shards import by_split, find_shards
from sfumato.data.formats.table import Table
from sfumato.data.listing import Listing
from sfumato.data.name_column import NameColumn
from sfumato.data.records import FileRecords
from sfumato.data.split import ReadOptions

METADATA = tuple(f"metadata{ending}" for ending in (".csv", ".jsonl", ".parquet"))
FINDINGS = "findings"
FILE_NAME = "file_name"  # the column that makes a metadata file one


def is_table(path: Path) -> bool:
    if path.is_dir():
        return any(FILE_NAME in table.head(each) for each in _metadata(path))
    ending = path.suffix.lower()
    return ending in table.ENDINGS and not (ending in table.PARQUET and holds_images(path))


def list_table(path: Path, options: ReadOptions) -> Listing:
    """The images of a table, or of the metadata files of a folder and its splits. Raises DataError,
    ArgumentError."""
    files = {"train": [path]} if path.is_file() else by_split(path, _metadata(path))
    several = next((each for each in files.values() if len(each) > 1), None)
    if several is not None:
        raise DataError(
            f"{path}: {several[0].name} and {several[1].relative_to(path)} are both there; keep one of them"
        )
    root = path.parent if path.is_file() else path
    parts = {split: _found(root, each, options) for split, (each,) in files.items()}
    columns = parts["train"].columns
    findings = asked_names(options.findings)
    if findings is not None and set(findings) <= set(columns):
        split = usual_split(parts, options.split, str(path))
        naming = Naming(FINDINGS, split, findings=findings)
        name = path.stem if path.is_file() else ""
        return listing_of(path, parts, naming, options, name=name)
    label = options.label if options.label in columns else find("label", columns, None, str(path))
    if options.label is not None and label != options.label:
        label = options.label
        parts = {
            split: replace(part, columns={**part.columns, label: _one_of(part, label)})
            for split, part in parts.items()
        }
    if label is None and findings is not None:
        # Raises: neither columns are called so, nor are there lists of findings.
        find("findings", table.head(files["train"][0]), findings[0], str(path))
    if label is None:
        label, parts = FOLDERS, by_folders(parts, str(path))
    return listing_of(
        path,
        parts,
        Naming(label, usual_split(parts, options.split, str(path))),
        options,
        name=path.stem if path.is_file() else "",
    )


def _metadata(root: Path) -> list[Path]:
    return find_shards(root, lambda name: name in METADATA, beside_images=True)


def _found(root: Path, path: Path, options: ReadOptions) -> Found:
    """root: of the data set; its names begin there."""
    names = table.head(path)
    column = need("path", names, options.path, str(path))
    read = table.read_table(path, _wanted(names, column, options, str(path)))
    if not len(read.numbers):
        raise DataError(f"{path}: has no rows")
    places = _places(path.parent, read, column)
    base = path.parent.relative_to(root).as_posix()
    files = NameColumn.of(posixpath.join("" if base == "." else base, place) for place in places)
    apart = {column} - {options.unit}  # the file of an image says nothing else of it
    columns = {name: values for name, values in read.columns.items() if name not in apart}
    return Found(FileRecords(root, files), columns, files, read.entry, names)


def _wanted(names: Sequence[str], column: str, options: ReadOptions, where: str) -> list[str]:
    """The columns to read: those that hold something that was asked for or has a usual name."""
    usual = [find(kind, names, None, "") for kind in ("label", "split")]
    asked = [options.label, options.split, options.unit, *(options.label or "").split(",")]
    findings = asked_names(options.findings) or ()
    wanted = dict.fromkeys((column, *usual, *asked, *findings))
    if set(findings) & set(names):
        for each in findings:
            find("findings", names, each, where)
    missing = [name for name in asked[:2] if name and not set(name.split(",")) <= set(names)]
    if missing:
        kind = "label" if missing[0] == options.label else "split"
        find(kind, names, missing[0], where)
    return [name for name in wanted if name is not None and name in names]


def _one_of(part: Found, label: str) -> list[str]:
    """The class of each row whose classes are columns, of which one holds 1 and the others 0."""
    columns = label.split(",")
    found = []
    for k, row in enumerate(zip(*(part.columns[name] for name in columns), strict=True)):
        marked = [
            name for name, value in zip(columns, row, strict=True) if _is_one(part, k, name, value)
        ]
        if len(marked) != 1:
            raise DataError(
                f"{part.where(k, label)} holds {len(marked)} classes; a classifier needs one in each row, or name "
                f"several findings an image by --findings {label} (findings=)"
            )
        found.append(marked[0])
    return found


def _is_one(part: Found, k: int, column: str, value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if number not in (0.0, 1.0):
        raise DataError(
            f"{part.where(k, column)} is {value!r}; where --label names several columns they hold 0 and 1"
        )
    return number == 1.0


def _places(folder: Path, read: Table, column: str) -> list[str]:
    """The file of each row, as a path below `folder` or from the root. Raises DataError for one that is
    missing, leaves the folder or is there twice."""
    seen: dict[str, int] = {}
    places: list[str] = []
    inside: dict[str, set[str]] = {}
    for k, written in enumerate(read.columns[column]):
        if not isinstance(written, str) or not written.strip("/ ") or "\0" in written:
            raise DataError(f"{read.entry(k, column)} is {written!r}; write the path of an image")
        place = posixpath.normpath(written)
        if place.startswith("../"):
            raise DataError(
                f"{read.entry(k, column)} is {written!r}, which leaves the table's folder; move the table to a folder "
                "above the images, or write the path from the root"
            )
        there = _existing(folder, place, inside)
        if there is None:
            raise DataError(
                f"{read.entry(k, column)} names {written!r}, and there is no such file in {folder}; put it there, or "
                "remove the row"
            )
        if there in seen:
            raise DataError(
                f"{read.entry(k, column)} names {written!r} again, after row {read.numbers[seen[there]]}; an image is "
                "one example: keep one of the rows"
            )
        seen[there] = k
        places.append(there)
    return places


def _existing(folder: Path, place: str, inside: dict[str, set[str]]) -> str | None:
    """The path, perhaps with an ending, if there is such a file. inside: what folders hold, each of
    which is listed once."""
    parent, _, name = place.rpartition("/")
    if place.startswith("/"):
        parent = parent or "/"
    if parent not in inside:
        try:
            inside[parent] = set(os.listdir(folder / parent))
        except OSError:
            inside[parent] = set()
    if name in inside[parent]:
        return place
    ending = next((each for each in SUFFIXES if name + each in inside[parent]), None)
    return None if ending is None else place + ending
