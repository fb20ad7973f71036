"""Labels of any kind -> classes and class numbers. Every door goes through here: files, arrays,
estimators, command line.

Classes are the sorted distinct labels, whatever they are: codes 0, 2222, 4444 are three classes,
and so are 1, 2, 3. A label is a whole number (1.0 counts as one), a truth value or a string. Which
classes occur is treated as public, as the guarantee says; who names them (`classes`) need not rely
on that.
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from sfumato.core.errors import ArgumentError, DataError

FEW = 10
"""So many classes may have one example each; beyond that, half as many classes as examples are a
column of something else."""


def encode(
    labels: Any, argument: str = "labels", classes: Any = None, known: str = "the declared classes"
) -> tuple[Shaped[np.ndarray, " c"], Int32[np.ndarray, " n"]]:
    """(classes, the class number of each label). classes: those there are, in their order; None
    takes those that occur, sorted.

    Raises ArgumentError for anything but a vector of labels, for a label outside `classes` (known: what
    the message calls them), and where nearly every label is a class of its own.
    """
    given = vector(labels, argument)
    distinct, codes = np.unique(given, return_inverse=True)
    if classes is None:
        if len(distinct) > max(FEW, len(given) // 2):
            raise ArgumentError(
                argument,
                f"{len(distinct)} different labels for {len(given)} examples",
                "these look like numbers or names; labels must be classes that several examples share",
            )
        return distinct, codes.astype(np.int32)
    place = {label: k for k, label in enumerate(np.asarray(classes).tolist())}
    numbers = [place.get(label, -1) for label in distinct.tolist()]
    if -1 in numbers:
        raise ArgumentError(
            argument,
            distinct.tolist()[numbers.index(-1)],
            f"not one of {known} ({', '.join(map(str, list(place)[:10]))})",
        )
    return np.asarray(classes), np.array(numbers, np.int32)[codes]


def declared(classes: Any, argument: str = "classes") -> Shaped[np.ndarray, " c"]:
    """The classes that somebody names, sorted. Raises ArgumentError unless there are two or more,
    each once."""
    given = vector(classes, argument)
    found = np.unique(given)
    if len(found) < 2 or len(found) < len(given):
        raise ArgumentError(
            argument, given.tolist()[:10], "a classifier needs two or more classes, each named once"
        )
    return found


def encode_parts(
    parts: Mapping[str, Any], where: str, called: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Int32[np.ndarray, " n"]]]:
    """The names of the classes that the part "train" has, and the class numbers of every part.
    where, called: the file and what it calls the labels of each part, for messages.

    Raises DataError, also where another part has a class that the training examples lack.
    """
    own = called["train"]
    try:
        classes, train = encode(parts["train"], own)
        others = {
            part: encode(labels, called[part], classes, f"the classes of {own}")[1]
            for part, labels in parts.items()
            if part != "train"
        }
    except ArgumentError as error:
        raise DataError(f"{where}: {error}") from None
    if len(classes) < 2:
        only = ", ".join(names_of(classes)) or "none"
        raise DataError(
            f"{where}: {own} has only one class ({only}); a classifier needs two or more"
        )
    return names_of(classes), {"train": train, **others}


def names_of(classes: Shaped[np.ndarray, " c"]) -> tuple[str, ...]:
    """How classes are written: 3.0 as 3."""
    return tuple(
        str(int(each)) if isinstance(each, float) else str(each) for each in classes.tolist()
    )


def vector(labels: Any, argument: str) -> Shaped[np.ndarray, " n"]:
    """Labels as a vector of whole numbers (of any type), truth values or strings; a column (n x 1)
    is taken for a vector.

    Raises ArgumentError for everything else, such as a missing label, real numbers or rows of
    indicators.
    """
    given = _array(labels, argument)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        more = "; of rows with one 1 each take labels.argmax(1)" if given.ndim == 2 else ""
        raise ArgumentError(
            argument, f"shape {given.shape}", f"give one label per example, shape (n,){more}"
        )
    missing = _missing(given)
    if missing.any():
        raise ArgumentError(
            argument,
            f"{int(missing.sum())} labels that are NaN or None, the first at {int(missing.argmax())}",
            "leave these examples out or label them",
        )
    given = np.ma.getdata(given)
    if given.dtype.kind == "T":
        given = given.astype(str)
    if given.dtype.kind == "O":
        given = _of_objects(given, argument)
    if given.dtype.kind == "f":
        broken = ~np.isfinite(given) | (given != np.round(given))
        if broken.any():
            raise ArgumentError(
                argument,
                given[broken][0].item(),
                "Unknown label type: real numbers are not classes; give "
                "whole numbers or strings, or bin them",
            )
    if given.dtype.kind not in "biufU":
        why = "Complex data not supported; " if given.dtype.kind == "c" else ""
        raise ArgumentError(argument, f"dtype {given.dtype}", f"{why}give whole numbers or strings")
    return given


def _array(labels: Any, argument: str) -> np.ndarray:
    if isinstance(labels, np.ndarray):
        return labels
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        kinds = {type(label) for label in labels}
        if len(kinds) > 1 and any(
            issubclass(kind, str) for kind in kinds
        ):  # NumPy would make strings of numbers
            labels = np.fromiter(labels, object, len(labels))
    try:
        return np.asarray(labels)
    except ValueError:
        raise ArgumentError(
            argument, "rows of several lengths", "give one label per example, shape (n,)"
        ) from None


def _missing(given: np.ndarray) -> np.ndarray:
    """Which labels are NaN, None, pandas' NA or masked."""
    masked = np.ma.getmaskarray(given)
    if given.dtype.kind == "f":
        return masked | np.isnan(np.ma.getdata(given))
    if given.dtype.kind == "O":
        return masked | np.array([is_missing(label) for label in np.ma.getdata(given)], bool)
    return masked


def is_missing(label: Any) -> bool:
    """None, NaN, or pandas' NA."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, Real) and label != label


def _of_objects(given: np.ndarray, argument: str) -> np.ndarray:
    """The labels as an array of their own type."""
    kinds = {_kind(label) for label in given}
    if len(kinds) > 1 and not kinds <= {int, float}:
        told = ", ".join(sorted({type(label).__name__ for label in given}))
        raise ArgumentError(
            argument, f"labels of several types: {told}", "give all as numbers or all as strings"
        )
    return np.array(given.tolist()) if kinds else np.zeros(0, np.int64)


def _kind(label: Any) -> type:
    kinds = {
        bool: bool | np.bool_,
        int: Integral,
        float: Real,
        str: str,
    }  # in this order: a truth value is also a number
    return next((kind for kind, own in kinds.items() if isinstance(label, own)), object)
