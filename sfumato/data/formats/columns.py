"""Which column of a table, feature of a record or member of an archive holds what.

Every format asks here, so that `--label`, `--path` and `--split` mean the same everywhere and the
usual names are found by themselves, in capitals or not.
"""

from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from jaxtyping import Int32

from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.labels import encode_parts

USUAL = {
    "path": [
        "file_name",
        "filename",
        "file_path",
        "filepath",
        "image_path",
        "img_path",
        "image_file",
        "image_name",
        "path",
        "file",
        "image",
        "img",
        "image_id",
        "image index",
        "imageid",
        "id",
    ],
    "image": [
        "image/encoded",
        "image",
        "img",
        "image_raw",
        "image_bytes",
        "jpg",
        "jpeg",
        "png",
        "webp",
    ],
    "label": [
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
        "image/class/text",
        "finding labels",
    ],
    "text": ["image/class/text"],
    "name": ["image/filename", "file_name", "filename", "path", "image/id", "image_id", "id"],
    "split": ["split", "subset", "partition", "set", "fold"],
    "unit": [],
}
"""Kind -> usual names. Of two that are there, the earlier one is taken."""
_FLAGS = {"image": "path"}  # kind -> the flag that names it, if that is called otherwise


def find(kind: str, columns: Collection[str], asked: str | None, where: str) -> str | None:
    """The column of this kind. asked: what the user calls it. None where there is none and none was
    asked for. Raises ArgumentError."""
    if asked is not None:
        if asked in columns:
            return asked
        raise ArgumentError(
            _FLAGS.get(kind, kind), asked, f"{where} has no such column{_seen(columns)}"
        )
    folded = {name.casefold(): name for name in reversed(list(columns))}
    return next((folded[name] for name in USUAL[kind] if name in folded), None)


def need(kind: str, columns: Collection[str], asked: str | None, where: str) -> str:
    """The same where it must be there. Raises DataError, ArgumentError."""
    found = find(kind, columns, asked, where)
    if found is None:
        flag = _FLAGS.get(kind, kind)
        raise DataError(
            f"{where}: no column is called {', '.join(USUAL[kind][:4])} or the like{_seen(columns)}; name it with "
            f"--{flag} COLUMN ({flag}=)"
        )
    return found


def _seen(columns: Collection[str]) -> str:
    shown = list(map(str, columns))
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return f" (found {', '.join(shown[:12]) or 'none'}{more})"


def typed(values: Sequence[Any]) -> list[Any]:
    """Labels as they were meant: whole numbers where all are written as such, so that class 10 comes
    after class 9; else what they are."""
    if all(isinstance(value, str) and _is_number(value) for value in set(values)):
        return [int(value) for value in values]
    return list(values)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10 and str(int(word)) == word


def encoded(
    labels: dict[str, Sequence[Any]], where: str, column: str, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Int32[np.ndarray, " n"]]]:
    """Class names and class numbers of every split. classes: the names of the classes 0, 1, ..., if
    they are known; labels are then places in that list. Raises DataError."""
    called = {split: column if split == "train" else f"{column} ({split})" for split in labels}
    if classes is None:
        together = typed([label for part in labels.values() for label in part])
        ends = list(accumulate(map(len, labels.values())))
        parts = {
            split: together[end - len(labels[split]) : end]
            for split, end in zip(labels, ends, strict=True)
        }
        return encode_parts(parts, where, called)
    for split, codes in labels.items():
        wrong = next(
            (code for code in codes if type(code) is not int or not 0 <= code < len(classes)), None
        )
        if wrong is not None:
            raise DataError(
                f"{where}: {called[split]} has an entry {wrong!r}, and there are classes 0 to {len(classes) - 1}"
            )
    return tuple(classes), {split: np.array(codes, np.int32) for split, codes in labels.items()}


def named_classes(codes: Sequence[Any], texts: Sequence[str]) -> list[str] | None:
    """The names of the classes 0, 1, ... where each record has its number and its name; None where
    the numbers are not such. Two classes of one name (ImageNet has two cranes) keep their numbers."""
    if not all(type(code) is int and 0 <= code < 10**6 for code in set(codes)):
        return None
    names = dict(zip(codes, texts, strict=True))
    if sorted(names) != list(range(len(names))):
        return None
    listed = [names[k] for k in range(len(names))]
    twice = {name for name in listed if listed.count(name) > 1}
    return [f"{name} ({k})" if name in twice else name for k, name in enumerate(listed)]
