"""What the two estimators have in common: labels, rows that are not finite, rows that were used
before, all or nothing."""

import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped, UInt64
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags

from sfumato.core.checks import large_delta
from sfumato.core.errors import ArgumentError, LedgerError
from sfumato.core.tasks import UNKNOWN, Task
from sfumato.data.findings import is_matrix, matrix, untaught
from sfumato.data.finite import Spoiled
from sfumato.data.labels import declared, encode
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.not_private import told
from sfumato.runs.progress import Bars, Progress, Quiet
from sfumato.runs.saved import Saveable
from sfumato.solve.linear_settings import weakness

ALONE = ("image", "row", "example")
"""What a ledger calls a single example."""
LOOKED_AT = 64
"""Numbers of a row by which it is recognized."""
REMEMBERED = 1 << 17
"""Rows of a fit that are remembered."""


class PrivateClassifier(Saveable, ClassifierMixin, BaseEstimator):
    """What both estimators are: fitted whole or not at all, and paid for by a ledger."""

    ledger: Ledger | None
    verbose: int

    @property
    def _task(self) -> Task:
        """Of the labels that it was fitted to."""
        raise NotImplementedError

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of X that is called right. Of several findings: of all entries of y that are known
        (scikit-learn counts rows of which every finding is right, and knows no unknown ones).
        sample_weight: a number for each row. Raises ArgumentError, NotFittedError."""
        called = self.predict(X)
        if self._task.exclusive:
            return float(accuracy_score(y, called, sample_weight=sample_weight))
        labels = matrix(y, "y")
        if labels.shape != called.shape:
            raise ArgumentError("y", f"shape {labels.shape}", f"give {called.shape} findings")
        each = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight)
        known = (labels != UNKNOWN) * each[:, None]
        return float((known * (labels == called)).sum() / known.sum())

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """A fit that raises leaves the estimator as it was, with its earlier model or without any."""
        own: Any = self
        before = dict(vars(own))
        try:
            yield
        except BaseException:
            vars(own).clear()
            vars(own).update(before)
            raise

    @contextmanager
    def _paying(
        self, epsilon: float, delta: float, groups: Any
    ) -> Iterator[tuple[Ledger, Progress]]:
        """The ledger to pay from, its own or one of this budget; and bars where `verbose` is true. Raises
        ArgumentError for a ledger that promises for groups where none are told apart."""
        if self.ledger is not None and groups is None and self.ledger.unit not in ALONE:
            raise ArgumentError(
                "groups",
                None,
                f"the ledger promises for one {self.ledger.unit}; say whose each example is (each one's own: "
                "groups=np.arange(len(X))), or give another ledger",
            )
        own = (
            nullcontext(self.ledger)
            if self.ledger is not None
            else Ledger.temporary(delta, epsilon)
        )
        with own as ledger, closing(Bars() if self.verbose else Quiet()) as progress:
            yield ledger, progress

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = True
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.poor_score = True  # on a handful of examples privacy leaves no signal
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """A copy without its ledger would spend a budget of its own at its next fit."""
        if isinstance(self.ledger, Ledger):
            raise LedgerError(
                f"{self.ledger.path}: an estimator that pays from an open ledger cannot be pickled; "
                "set_params(ledger=None) keeps a fitted one, and n_jobs=1 lets fits share the ledger"
            )
        return super().__getstate__()


def told_classes(
    y: Any, classes: Any
) -> tuple[Shaped[np.ndarray, " c"], Int32[np.ndarray, "n ..."]]:
    """(the classes, the class number of each label). classes: as the constructor's argument. Of several
    findings: (their names, 1, 0 and -1 for unknown). Raises ArgumentError."""
    if y is None:
        raise ArgumentError("y", None, "requires y to be passed, but the target y is None")
    if _is_table(y):
        return _told_findings(y, classes)
    known = None if classes is None else declared(classes)
    found, codes = encode(y, "y", known)
    if np.asarray(y).ndim == 2:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; it is taken for one",
            DataConversionWarning,
            stacklevel=4,
        )
    if len(found) < 2:
        raise ArgumentError(
            "y",
            f"only one class, {found.tolist()}",
            "a classifier needs two or more; name all with classes=",
        )
    return found, codes


def _is_table(y: Any) -> bool:
    try:
        return is_matrix(y if isinstance(y, np.ndarray) else np.asarray(y))
    except ValueError:  # rows of several lengths
        return False


def _told_findings(y: Any, classes: Any) -> tuple[np.ndarray, np.ndarray]:
    found = matrix(y, "y")
    columns = getattr(y, "columns", range(found.shape[1])) if classes is None else classes
    names = np.array(list(columns))
    if names.shape != (found.shape[1],) or len(set(names.tolist())) < len(names):
        raise ArgumentError(
            "classes",
            names.tolist(),
            f"name the {found.shape[1]} findings of y, in order, each once",
        )
    for lost in untaught(found, [str(name) for name in names]):
        warnings.warn(lost, stacklevel=5)
    return names, found


def check_finite(X: Spoiled) -> None:
    """Warns of examples that hold NaN or infinity. Raises ArgumentError, before anything is paid
    for, where most do."""
    if X.most:
        raise ArgumentError("X", str(X), X.way_out)
    if X:
        warnings.warn(X.warning, stacklevel=5)


def warn_of_promise(
    epsilon: float, delta: float, n: int, classes: int, mu: float, task: Task
) -> None:
    """Warns, before anything is paid for, where nothing is promised, where delta promises little and where
    mu (of epsilon and delta) buys nothing."""
    if (not_private := told(epsilon)) is not None:
        warnings.warn(not_private.words, stacklevel=5)
        return
    for problem in (weakness(epsilon, n, classes, mu, task), large_delta(delta, n)):
        if problem:
            warnings.warn(problem, stacklevel=5)


class UsedRows:
    """The rows that were given to fits of this process, each of which had a budget of its own: how
    often, and what they spent.

    A search over settings (GridSearchCV) fits the same rows again and again, and every fit reports
    its own epsilon only. Rows are recognized by a hash under a random key, of some of their
    numbers; nothing of this leaves the process.
    """

    def __init__(self) -> None:
        self._factors = np.frombuffer(os.urandom(8 * LOOKED_AT), np.uint64) | np.uint64(1)
        self._rows: UInt64[np.ndarray, " m"] = np.zeros(0, np.uint64)
        self._times = np.zeros(0, np.int64)
        self._spent = np.zeros(0)
        self._largest = 0

    def add(self, rows: Shaped[np.ndarray, "n ..."], epsilon: float) -> None:
        """Note a fit of `epsilon`. Warns where most rows were used before, at the second, fourth,
        eighth, ... fit, and at one of more rows than any before, as the last of a search is.
        """
        own = np.unique(self._hashes(rows))
        place = np.searchsorted(self._rows, own).clip(0, max(len(self._rows) - 1, 0))
        old = self._rows[place] == own if len(self._rows) else np.zeros(len(own), bool)
        self._times[place[old]] += 1
        self._spent[place[old]] += epsilon
        if 2 * old.sum() >= len(own):
            times = int(self._times[place[old]].max())
            if times & (times - 1) == 0 or len(own) > self._largest:
                self._warn(times, float(self._spent[place[old]].max()))
        self._largest = max(self._largest, len(own))
        every = np.concatenate([self._rows, own[~old]])
        order = np.argsort(every)
        self._rows = every[order]
        self._times = np.concatenate([self._times, np.ones(int((~old).sum()), np.int64)])[order]
        self._spent = np.concatenate([self._spent, np.full(int((~old).sum()), epsilon)])[order]

    def _warn(self, times: int, spent: float) -> None:
        warnings.warn(
            f"the same rows were used in {times} fits so far, each with a budget of its own: together they spend up "
            f"to epsilon={spent:g}, not the epsilon_ of one, and every further fit adds its own; give all fits one "
            "ledger=",
            stacklevel=5,
        )

    def _hashes(self, rows: Shaped[np.ndarray, "n ..."]) -> UInt64[np.ndarray, " n"]:
        """Exact arithmetic modulo 2^64, so a row has the same hash in whatever company."""
        rows = rows[:REMEMBERED].reshape(min(len(rows), REMEMBERED), -1)
        stride = max(1, rows.shape[1] // LOOKED_AT)
        bits = np.ascontiguousarray(rows[:, ::stride][:, :LOOKED_AT], np.float64).view(np.uint64)
        mixed = (bits ^ (bits >> np.uint64(29))) * self._factors[: bits.shape[1]]
        mixed = (mixed ^ (mixed >> np.uint64(32))) * self._factors[: bits.shape[1]]
        return mixed.sum(1, dtype=np.uint64)


USED = UsedRows()
