"""Several findings an image: columns of a table, a matrix or lists of names -> names and a matrix of 1
(there), 0 (not there) and -1 (unknown).

A list of names is a list, or, where --findings names what to look for, a text: with | or ; between the
names (NIH's "Effusion|Mass"), or a list as Python writes it (PadChest's "['effusion', 'mass']"). What is
not in it is not there; names that were not asked for ("No Finding") are passed over.

Rule of what is unknown: an empty entry, NaN, None and -1 (which CheXpert writes where a reader was
uncertain). An unknown finding adds nothing to any sum and is not counted in any measure; its image
still takes part with the findings that are known, so n is the number of images, whatever is known.

The names of the findings and their order are public, as the names of classes are. Whether labels are
findings is decided by their form alone (a matrix, lists, or that columns were named by --findings),
never by what is in them: one image with two classes must not change what is learned of all others.
"""

import ast
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.tasks import UNKNOWN
from sfumato.data.labels import FEW, is_missing

Matrix = Int32[np.ndarray, "n findings"]


def is_matrix(labels: Any) -> bool:
    """Whether labels are a row of findings each; a column (n x 1) is taken for a vector."""
    return isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.shape[1] > 1


def asked_names(asked: str | None) -> tuple[str, ...] | None:
    """The names in `ReadOptions.findings`. Raises ArgumentError for one that is empty or there twice."""
    if asked is None:
        return None
    try:
        found = tuple(name.strip() for name in next(csv.reader([asked], skipinitialspace=True), ()))
    except csv.Error:
        found = ()
    if not found or not all(found) or len(set(found)) < len(found):
        raise ArgumentError(
            "findings",
            asked,
            'name columns with commas between, each once ("quoted" where a name has a comma)',
        )
    return found


def as_asked(names: Sequence[str]) -> str:
    """The text of which `asked_names` makes these names."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def matrix(values: Any, argument: str = "labels") -> Matrix:
    """n x L entries as 1, 0 and -1 for unknown. Raises ArgumentError for any other entry."""
    masked = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else False
    given = np.where(masked, UNKNOWN, np.asarray(values))
    if given.ndim != 2 or 0 in given.shape:
        raise ArgumentError(
            argument, f"shape {given.shape}", "give a row of findings for each image"
        )
    if given.dtype.kind not in "biuf":
        given = np.array([[_number(each, argument) for each in row] for row in given.tolist()])
    unknown = np.isnan(given) if given.dtype.kind == "f" else np.zeros(given.shape, bool)
    number = np.where(unknown, UNKNOWN, given)
    wrong = ~np.isin(number, (UNKNOWN, 0, 1))
    if wrong.any():
        k, column = (int(each) for each in np.argwhere(wrong)[0])
        raise ArgumentError(
            argument,
            given[k, column].item(),
            f"in row {k}: a finding is 1 or 0; nothing, NaN or -1 where it is unknown",
        )
    return number.astype(np.int32)


def _number(value: Any, argument: str) -> float:
    """A single entry as a table has it. Raises ArgumentError."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentError(
            argument, value, "a finding is 1 or 0; nothing, NaN or -1 where it is unknown"
        ) from None


def of_columns(columns: Mapping[str, Sequence[Any]], names: Sequence[str], where: Any) -> Matrix:
    """Columns of a table. where: (row, column) -> what a message calls that entry. Raises DataError."""
    found = []
    for name in names:
        entries = []
        for k, value in enumerate(columns[name]):
            try:
                number = _number(value, name)
            except ArgumentError:
                number = np.inf
            if not (np.isnan(number) or number in (UNKNOWN, 0, 1)):
                raise DataError(
                    f"{where(k, name)} is {value!r}; a finding is 1 or 0; nothing, NaN or -1 where it is unknown"
                )
            entries.append(UNKNOWN if np.isnan(number) else int(number))
        found.append(entries)
    return np.array(found, np.int32).T


def names_in(labels: Sequence[Any]) -> tuple[str, ...]:
    """The names that occur in lists, sorted; numbers as numbers. Raises ArgumentError where they look
    like names of images."""
    distinct = {each for row in labels if row is not None for each in row}
    kinds = {type(each) for each in distinct}
    if not (kinds <= {str} or kinds <= {int}) or not distinct:
        raise ArgumentError(
            "labels",
            sorted(map(str, distinct))[:3],
            "lists hold names, or whole numbers, of findings",
        )
    if len(distinct) > max(FEW, len(labels) // 2):
        raise ArgumentError(
            "labels",
            f"{len(distinct)} different findings in {len(labels)} lists",
            "a finding is something that several images share",
        )
    return tuple(str(each) for each in sorted(distinct))


def holds_lists(labels: Sequence[Any], asked: bool) -> bool:
    """Whether a column holds lists of findings; a text is one where findings were asked for."""
    return any(isinstance(each, list) or (asked and isinstance(each, str)) for each in labels)


def _listed(entry: Any) -> list[str] | None:
    """The names in an entry; None where nothing is known. Raises ValueError for what is no list."""
    if entry is None or (isinstance(entry, str) and not entry.strip()):
        return None
    if isinstance(entry, str):
        text = entry.strip()
        if not text.startswith("["):
            return [each.strip() for each in re.split(r"[|;]", text) if each.strip()]
        try:
            entry = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ValueError(text) from None
    if not isinstance(entry, list | tuple):
        raise ValueError(entry)
    return [str(each).strip() for each in entry]


def of_lists(
    labels: Sequence[Any], names: Sequence[str], where: Any, asked: bool = False
) -> Matrix:
    """Lists of what is there: the rest is not. asked: whether somebody named the findings, so that others
    are passed over. Raises DataError for an entry that is no list, holds another name where none was
    asked for, or has asked names with another mark between them."""
    place, found = {name: k for k, name in enumerate(names)}, []
    for k, entry in enumerate(labels):
        try:
            row = _listed(entry)
        except ValueError:
            raise DataError(
                f"{where(k)} is {entry!r}; where others hold lists of findings it needs one"
            ) from None
        entries = np.full(len(names), UNKNOWN if row is None else 0, np.int32)
        for name in row or ():
            if name in place:
                entries[place[name]] = 1
            elif not asked:
                raise DataError(
                    f"{where(k)} holds {name!r}, which is none of the findings of the training images "
                    f"({', '.join(names[:10])})"
                )
            elif place.keys() & {part.strip() for part in re.split("[,/]", name)}:
                raise DataError(f"{where(k)} holds {name!r}; write | between findings")
        found.append(entries)
    return np.array(found)


def seen_in(labels: Sequence[Any]) -> set[str]:
    """All names in lists; what is no list is passed over."""
    found: set[str] = set()
    for entry in labels:
        try:
            found.update(_listed(entry) or ())
        except ValueError:
            continue
    return found


def untaught(labels: Matrix, names: Sequence[str]) -> list[str]:
    """Sentences without a full stop, for the owner of the training images alone: findings of which
    nothing can be learned, as a misspelled one."""
    there, absent = (labels == 1).any(0), (labels == 0).any(0)
    kinds = {
        "known of no training image": ~there & ~absent,
        "there in no training image": ~there & absent,
        "there in all training images": there & ~absent,
    }
    return [
        f"findings {', '.join(repr(names[k]) for k in np.flatnonzero(which).tolist())} are {said}, so nothing is "
        "learned of them"
        for said, which in kinds.items()
        if which.any()
    ]


def encode_matrices(
    parts: Mapping[str, Any], where: str, called: Mapping[str, str], asked: str | None
) -> tuple[tuple[str, ...], dict[str, Matrix]]:
    """As `labels.encode_parts`, of matrices. asked: the names of their columns; None numbers them from
    0. Raises DataError, ArgumentError."""
    try:
        found = {part: matrix(labels, called[part]) for part, labels in parts.items()}
    except ArgumentError as error:
        raise DataError(f"{where}: {error}") from None
    width = found["train"].shape[1]
    names = asked_names(asked) or tuple(map(str, range(width)))
    for part, each in found.items():
        if each.shape[1] != len(names):
            raise DataError(
                f"{where}: {called[part]} has {each.shape[1]} columns of findings, and there are {len(names)} names "
                "or columns of the training images"
            )
    return names, found
