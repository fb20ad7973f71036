"""Several findings an image: columns of a table, a matrix or lists of names -> names and a matrix of 1
(there), 0 (not there) and -1 (unknown).

Rule of what is unknown: an empty entry, NaN, None and -1 (which CheXpert writes where a reader was
uncertain). An unknown finding adds nothing to any sum and is not counted in any measure; its image
still takes part with the findings that are known, so n is the number of images, whatever is known.

The names of the findings and their order are public, as the names of classes are. Whether labels are
findings is decided by their form alone (a matrix, lists, or that columns were named by --findings),
never by what is in them: one image with two classes must not change what is learned of all others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.tasks import UNKNOWN
from sfumato.data.labels import FEW

Matrix = Int32[np.ndarray, "n findings"]


def is_matrix(labels: Any) -> bool:
    """Whether labels are a row of findings each; a column (n x 1) is taken for a vector."""
    return isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.shape[1] > 1


def asked_names(asked: str | None) -> tuple[str, ...] | None:
    """The names in `ReadOptions.findings`. Raises ArgumentError for one that is empty or there twice."""
    if asked is None:
        return None
    found = tuple(name.strip() for name in asked.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise ArgumentError("findings", asked, "name columns with commas between, each once")
    return found


def matrix(values: Any, argument: str = "labels") -> Matrix:
    """n x L entries as 1, 0 and -1 for unknown. Raises ArgumentError for any other entry."""
    given = np.asarray(values)
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
    if value is None or (isinstance(value, str) and not value.strip()):
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


def of_lists(labels: Sequence[Any], names: Sequence[str], where: Any) -> Matrix:
    """Lists of what is there: the rest is not. None: nothing is known of that image. Raises DataError
    for an entry that is no list, or no name."""
    place, found = {name: k for k, name in enumerate(names)}, []
    for k, row in enumerate(labels):
        if row is not None and not isinstance(row, list | tuple):
            raise DataError(
                f"{where(k)} is {row!r}; where others hold lists of findings it needs one"
            )
        entries = np.full(len(names), UNKNOWN if row is None else 0, np.int32)
        for name in row or ():
            if str(name) not in place:
                raise DataError(
                    f"{where(k)} holds {name!r}, which is none of the findings of the training images "
                    f"({', '.join(names[:10])})"
                )
            entries[place[str(name)]] = 1
        found.append(entries)
    return np.array(found)


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
