"""Which column of a table, feature of a record or member of an archive holds what.

Every format asks here, so that `--label`, `--path` and `--split` mean the same everywhere and the
usual names are found by themselves, in capitals or not.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.labels import encode_parts, names_of

USUAL = {
    "path": (
        "file_name",
        "filename",
        "file_path",
        "filepath",
        "image_path",
        "img_path",
        "image_file",
        "path",
        "file",
        "image",
        "img",
        "image_name",
        "image_id",
    ),
    "image": (
        "image/encoded",
        "image",
        "img",
        "image_raw",
        "image_bytes",
        "jpg",
        "jpeg",
        "png",
        "webp",
    ),
    "label": (
        "label",
        "labels",
        "image/class/label",
        "class",
        "class_label",
        "cls",
        "target",
        "diagnosis",
        "dx",
        "category",
        "fine_label",
        "y",
    ),
    "text": ("image/class/text", "class_name", "label_name"),
    "name": ("image/filename", "file_name", "filename", "image/id", "image_id", "id", "__key__"),
    "split": ("split", "subset", "partition", "set", "fold"),
}
"""Of two that are there, the earlier one is taken."""


def find(kind: str, columns: Collection[str], asked: str | None, where: str) -> str | None:
    """The column of this kind; asked: by the user, by its name. None where there is none and none
    was asked for. Raises ArgumentError.
    """
    if asked is not None:
        if asked in columns:
            return asked
        raise ArgumentError(
            kind, asked, f"{where} has no such column (found {', '.join(map(str, columns)) or 'none'})"
        )
    folded = {name.casefold(): name for name in reversed(list(columns))}
    return next((folded[name] for name in USUAL[kind] if name in folded), None)


def need(kind: str, columns: Collection[str], asked: str | None, where: str) -> str:
    """The same where it must be there. Raises DataError."""
    found = find(kind, columns, asked, where)
    if found is None:
        flag = "path" if kind == "image" else kind
        raise DataError(
            f"{where}: no column is called {', '.join(USUAL[kind][:4])} or the like (found "
            f"{', '.join(map(str, columns)) or 'none'}); name it with --{flag} COLUMN ({flag}=)"
        )
    return found


def typed(values: Sequence[Any]) -> list[Any]:
    """Labels as they were meant: whole numbers where all are written as such, so that class 10
    comes after class 9; else what they are."""
    written = [value for value in values if isinstance(value, str)]
    if len(written) < len(values) or not all(
        value.isascii() and value.removeprefix("-").isdigit() and str(int(value)) == value
        for value in set(written)
    ):
        return list(values)
    return [int(value) for value in written]


def encoded(
    labels: dict[str, Sequence[Any]], where: str, column: str, names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class names and class numbers of every split. names: of the classes 0, 1, ..., where the file
    knows them; then labels are places in that list. Raises DataError."""
    if names is None:
        flat = typed([value for part in labels.values() for value in part])
        cut, parts = 0, {}
        for split, values in labels.items():
            parts[split] = flat[cut : cut + len(values)]
            cut += len(values)
        return encode_parts(parts, where, {split: _called(column, split) for split in parts})
    numbers = {split: np.asarray(values) for split, values in labels.items()}
    for split, codes in numbers.items():
        wrong = ~np.isin(codes, np.arange(len(names)))
        if wrong.any():
            k = int(wrong.argmax())
            raise DataError(
                f"{where}: {_called(column, split)} of record {k} is {codes[k]}, and there are classes 0 to "
                f"{len(names) - 1}; mend it or leave the record out"
            )
    return tuple(names), {split: codes.astype(np.int32) for split, codes in numbers.items()}


def named_classes(codes: Sequence[Any], texts: Sequence[str]) -> list[str] | None:
    """Names of the classes 0, 1, ... where each record says its number and its name; None where the
    numbers are not such. Two classes of one name (ImageNet has two cranes) keep their numbers."""
    pairs = dict(zip(codes, texts, strict=True))
    numbers = sorted(pairs)
    if not numbers or any(type(code) is not int or code < 0 for code in numbers):
        return None
    listed = [pairs.get(k, str(k)) for k in range(numbers[-1] + 1)] if numbers[-1] < 10**6 else []
    return [name if listed.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(listed)]


def _called(column: str, split: str) -> str:
    return column if split == "train" else f"{column} ({split})"


__all__ = ["USUAL", "encoded", "find", "named_classes", "names_of", "need", "typed"]
