"""What `DPLinearClassifier` is given -> rows, labels and weights, or an error that names the argument."""

import math
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from sfumato.core.errors import ArgumentError
from sfumato.data.units import Units, column
from sfumato.solve.labeled_rows import Rows

_FLOATS = (np.float64, np.float32, np.float16)


def validated(estimator: Any, X: Any, **how: Any) -> np.ndarray:
    """The rows as floats. Raises ArgumentError for a column of text, by its name; as scikit-learn
    does for all else."""
    try:
        found = validate_data(estimator, X, dtype=_FLOATS, ensure_all_finite=False, **how)
        return found[0] if isinstance(found, tuple) else found
    except ValueError:
        if column := _text_column(X):
            raise ArgumentError(
                "X", column, "features are numbers; leave it out, or encode it by public rules"
            ) from None
        raise


def _text_column(X: Any) -> str:
    """Which column of a table is no numbers; "" where all are, or this is no table."""
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUS":
        return ""
    try:
        table = np.asarray(X, object)
    except ValueError:  # rows of several lengths
        return ""
    names = list(getattr(X, "columns", range(table.shape[-1] if table.ndim == 2 else 0)))
    for k, name in enumerate(names):
        try:
            table[:, k].astype(float)
        except ValueError:
            return f"column {name!r} holds text"
        except TypeError:  # what scikit-learn says of other objects is as good
            return ""
    return ""


def grouped_rows(
    X: np.ndarray, labels: np.ndarray, groups: Any, most: int, weight: Any
) -> tuple[np.ndarray, np.ndarray]:
    """A row and a label for each group."""
    if weight is not None:
        raise ArgumentError(
            "sample_weight",
            "given with groups",
            "every group counts as one; leave one of the two out",
        )
    units = Units.of(column(np.asarray(groups), len(X), "groups"), most)
    return units.mean_rows(X, labels)


def row_weights(sample_weight: Any, n: int) -> np.ndarray | None:
    if sample_weight is None:
        return None
    try:
        given = np.asarray(sample_weight)
        weights = given.astype(np.float32) if given.dtype.kind in "biufO" else None
    except (
        TypeError,
        ValueError,
    ):  # a list of lists of several lengths, objects that are no numbers
        weights = None
    if weights is None:
        raise ArgumentError(
            "sample_weight", "not numbers", f"give {n} numbers from 0 to 1, one per row"
        )
    if weights.shape != (n,):
        raise ArgumentError(
            "sample_weight", f"shape {weights.shape}", f"give {n} numbers, one per row"
        )
    if not (np.all(weights >= 0) and np.all(weights <= 1)):
        raise ArgumentError(
            "sample_weight",
            "outside [0, 1]",
            "divide by the largest weight that may occur, a public number",
        )
    if not np.any(weights):
        raise ArgumentError("sample_weight", "all zero", "give at least one row that counts")
    return weights


def class_weights(class_weight: Any, classes: np.ndarray) -> np.ndarray | None:
    """The weight of each class, the largest 1; None where they are to be balanced."""
    if class_weight is None:
        return np.ones(len(classes), np.float32)
    if isinstance(class_weight, str) and class_weight == "balanced":
        return None
    if not isinstance(class_weight, dict):
        raise ArgumentError(
            "class_weight", class_weight, 'give None, "balanced" or a dict {class: weight}'
        )
    names = classes.tolist()
    for name, weight in class_weight.items():
        if name not in names:
            raise ArgumentError(
                "class_weight", name, f"not one of the classes ({', '.join(map(str, names[:10]))})"
            )
        if not (isinstance(weight, Real) and 0 <= float(weight) < math.inf):
            raise ArgumentError(
                "class_weight", {name: weight}, "give a finite number of at least 0 for each class"
            )
    found = np.array([class_weight.get(name, 1.0) for name in names], np.float64)
    if not np.any(found > 0):
        raise ArgumentError(
            "class_weight", class_weight, "give at least one class a positive weight"
        )
    return (found / found.max()).astype(np.float32)


def balancing(counts: np.ndarray) -> np.ndarray:
    """Weights in proportion to 1 / count, the rarest class 1. A count that noise took below 1 % of
    an even share counts as that much.
    """
    counts = np.maximum(counts, max(0.01 * float(np.maximum(counts, 0).mean()), 1.0))
    return (counts.min() / counts).astype(np.float32)


def weighted(rows: Rows, of_class: np.ndarray) -> Rows:
    """By class; findings have no weights of their own."""
    if not rows.task.exclusive:
        return rows
    own = of_class[rows.labels]
    return replace(rows, weights=own if rows.weights is None else own * rows.weights)
