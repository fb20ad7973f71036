"""What a format found beside its images (labels, names, splits, units, as they are written) -> `Listing`.

Every format but the folder of class folders ends here, so that labels, empty entries, splits and
units are treated alike in all of them.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from sfumato.core.errors import ArgumentError, DataError, SfumatoError, few
from sfumato.data.findings import asked_names, holds_lists, names_in, of_columns, of_lists, seen_in
from sfumato.data.formats.columns import encoded, find
from sfumato.data.formats.folder import stable
from sfumato.data.listing import ListedPart, Listing
from sfumato.data.name_column import NameColumn
from sfumato.data.records import Records
from sfumato.data.split import ReadOptions, split_of
from sfumato.data.units import FOLDER, column, owners_by_pattern

FOLDERS = "its folder"  # what a label is called that is the name of an image's folder


@dataclass(frozen=True)
class Found:
    """One split, or all of them where `columns` tell. columns: by name, an entry for each record; names:
    None where the records have none of their own. where: what a message calls an entry, by record and
    column. held: all columns that there are, also those that nobody asked for; empty: `columns`."""

    records: Records
    columns: Mapping[str, Sequence[Any]]
    names: Sequence[str] | None
    where: Callable[[int, str], str]
    held: Collection[str] = ()

    def at(self, chosen: np.ndarray) -> "Found":
        rows, where = chosen.tolist(), self.where
        columns = {name: [each[k] for k in rows] for name, each in self.columns.items()}
        names = None if self.names is None else [self.names[k] for k in rows]
        return Found(
            self.records.subset(chosen),
            columns,
            names,
            lambda k, name: where(rows[k], name),
            self.held,
        )


@dataclass(frozen=True)
class Naming:
    """Which columns hold what. classes: the names of the classes 0, 1, ..., where the file has them.
    findings: columns that hold one each; None where `label` holds a class, or lists of findings."""

    label: str
    split: str | None = None
    classes: Sequence[str] | None = None
    findings: tuple[str, ...] | None = None


def listing_of(
    path: Path, parts: dict[str, Found], naming: Naming, options: ReadOptions, name: str = ""
) -> Listing:
    """parts: by split; one "train" where a column tells the split. Raises DataError, ArgumentError."""
    if naming.split is not None:
        parts = _divided(path, parts, naming.split)
    found = _with_findings(path, parts, naming, options.findings)
    if found is not None:
        classes, labels, left_out = *found, dict[str, int]()
    else:
        parts, left_out = _labeled(path, parts, naming)
        classes, labels = encoded(
            {split: part.columns[naming.label] for split, part in parts.items()},
            str(path),
            naming.label,
            naming.classes,
        )
    listed = {
        split: ListedPart(
            part.records, labels[split], _names(part), _units(path, part, options, split)
        )
        for split, part in parts.items()
    }
    own = all(part.names is not None for part in parts.values())
    return Listing(name or path.resolve().name, str(path), classes, listed, left_out, named=own)


def _with_findings(
    path: Path, parts: dict[str, Found], naming: Naming, asked: str | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]] | None:
    """Their names, and a matrix of each split; None where records have a class each. Raises DataError."""
    if naming.findings is not None:
        own = naming.findings
        return own, {
            split: of_columns(part.columns, own, part.where) for split, part in parts.items()
        }
    lists = {split: part.columns[naming.label] for split, part in parts.items()}
    known = asked_names(asked)
    if not holds_lists(lists["train"], known is not None):
        return None
    if known is not None:
        _check_seen(path, asked, known, seen_in(lists["train"]), naming.label)
    try:
        names = known or names_in([each for each in lists["train"] if isinstance(each, list)])
    except ArgumentError as error:
        raise DataError(f"{path}: {naming.label}: {error}") from None

    def matrix_of(split: str) -> np.ndarray:
        where = parts[split].where
        return of_lists(
            lists[split], names, lambda k: where(k, naming.label), asked=known is not None
        )

    return names, {split: matrix_of(split) for split in parts}


def _check_seen(
    path: Path, asked: str | None, names: Sequence[str], seen: set[str], column: str
) -> None:
    """Raises ArgumentError where none of the names that were asked for stands in the column."""
    if seen and not seen & set(names):
        held = few([repr(each) for each in sorted(seen)], 4)
        raise ArgumentError(
            "findings",
            asked,
            f"{path} has no such columns, and column {column!r} holds none of these names (but {held})",
        )


def usual_split(parts: dict[str, Found], asked: str | None, where: str) -> str | None:
    """The column that tells the split: the one that was asked for, or one of a usual name whose entries
    are splits. (Folds 0 to 4 are none.)"""
    if len(parts) > 1 and asked is None:
        return None
    columns = parts["train"].columns
    column = find("split", columns, asked, where)
    if column is None or asked is not None:
        return column
    return column if any(split_of(str(value)) for value in set(columns[column])) else None


def by_folders(parts: dict[str, Found], where: str) -> dict[str, Found]:
    """With the name of the folder in which each record lies as its label. Raises DataError where that
    tells nothing."""
    found = {}
    for split, part in parts.items():
        labels = [PurePosixPath(name).parent.name for name in part.names or ()]
        if not labels or not all(labels):
            raise DataError(
                f"{where}: no column is called label, class, target or the like, and no folders are classes (found "
                f"{', '.join(part.columns) or 'no columns'}); name it with --label COLUMN (label=)"
            )
        found[split] = replace(part, columns={**part.columns, FOLDERS: labels})
    return found


def _divided(path: Path, parts: dict[str, Found], column: str) -> dict[str, Found]:
    """By the entries of a column. Raises DataError for one that is no split."""
    if set(parts) != {"train"}:
        raise ArgumentError(
            "split", column, f"{path} has its splits in files of their own; leave it out"
        )
    part = parts["train"]
    known = {value: split_of(str(value)) for value in set(part.columns[column])}
    splits = [known[value] for value in part.columns[column]]
    if None in splits:
        k = splits.index(None)
        raise DataError(
            f"{part.where(k, column)} is {part.columns[column][k]!r}, which is no split; write train, val or test"
        )
    if "train" not in splits:
        raise DataError(
            f"{path}: column {column!r} names no training record; write train, val or test"
        )
    each = np.array(splits, str)
    return {
        split: part.at(np.flatnonzero(each == split))
        for split in ("train", "validation", "test")
        if split in splits
    }


def _labeled(
    path: Path, parts: dict[str, Found], naming: Naming
) -> tuple[dict[str, Found], dict[str, int]]:
    """The parts that have labels: a test split without any (as competitions hand out) is left out and
    counted. Raises DataError for one record without."""
    kept, left_out = {}, Counter[str]()
    for split, part in parts.items():
        labels = part.columns[naming.label]
        empty = [k for k, label in enumerate(labels) if _is_missing(label, naming.classes)]
        if empty and len(empty) == len(labels) and split != "train":
            left_out[f"records of the {split} split, which has no labels"] = len(labels)
            continue
        if empty or not len(labels):
            where = part.where(empty[0], naming.label) if empty else f"{path}: the {split} split"
            raise DataError(
                f"{where} is empty ({len(empty)} such); label these records or remove them"
            )
        kept[split] = part
    return kept, dict(left_out)


def _is_missing(label: Any, classes: Sequence[str] | None) -> bool:
    empty = label is None or (isinstance(label, str) and not label.strip())
    return empty or (label == -1 and classes is not None)


def _names(part: Found) -> NameColumn:
    if part.names is None:
        return NameColumn.of(map(str, range(len(part.records))))
    return stable(NameColumn.of(part.names))


def own_names(*columns: Sequence[Any] | None) -> bool:
    """Whether these are names: words, each there once."""
    return all(
        column is not None
        and all(isinstance(name, str) and name for name in column)
        and len(set(column)) == len(column)
        for column in columns
    )


def _units(path: Path, part: Found, options: ReadOptions, split: str) -> Sequence[str] | None:
    unit = options.unit
    if unit is None:
        return None
    if unit not in part.columns:
        held = part.held or part.columns
        if part.names is None:
            find("unit", held, unit, str(path))
        return units_by_name(part.names or (), unit, split, str(path), held)
    values = part.columns[unit]
    if split != "train":
        return ["" if value is None else str(value) for value in values]
    try:
        return column(np.array(values, object), len(values), f"{path}: {unit}")
    except SfumatoError as error:
        raise DataError(str(error)) from None


def units_by_name(
    names: Sequence[str], unit: str, split: str, where: str, columns: Collection[str] = ()
) -> Sequence[str]:
    """The unit of each record by its name, where no column is called so. Raises ArgumentError: a word is
    the name of a column, not a pattern."""
    if unit.isidentifier() and unit != FOLDER:
        find("unit", columns, unit, where)
    return owners_by_pattern(names, unit, every=split == "train")
