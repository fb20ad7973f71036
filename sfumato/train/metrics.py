"""What an evaluation says beyond the counts of right and wrong: how classes are ranked, how honest the
probabilities are, how groups of people fare.

Recall, precision and balanced accuracy follow from the confusion matrix and are not stored. What
stands here needs the probabilities. Everything is an exact statistic of evaluation images, which the
guarantee does not cover (docs/guarantee.md); of single images nothing is kept: the ROC curve is told
on a fixed grid, without its thresholds, which would be the scores of images.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 10
"""Of confidence, equally wide, for the calibration."""
ROC_GRID = tuple(k / 50 for k in range(51))
"""False positive rates at which the ROC curve is told."""


@dataclass(frozen=True)
class ConfidenceBin:
    """Images whose highest probability lies in the k-th of `BINS` parts of [0, 1]: how many, how many
    are right, and their mean confidence."""

    n: int
    right: int
    confidence: float


@dataclass(frozen=True)
class Subgroup:
    """The images with one value of a column. confusion[i][j]: of class i called j."""

    name: str
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TwoClasses:
    """positive: number of the class that is looked for. threshold: its least probability to be called
    so. roc: share of it that is found, at each of `ROC_GRID` shares of false alarms."""

    positive: int
    threshold: float
    roc: tuple[float, ...]


@dataclass(frozen=True)
class Metrics:
    """roc_auc, pr_auc: of each class against all others, None where the images are all of one kind;
    Hanley & McNeil 1982, average precision. ece: expected calibration error over `BINS` (Guo et al.
    2017, eq. 3). log_loss: mean of -log P(true class), in nats. temperature: that the scores were
    divided by."""

    roc_auc: tuple[float | None, ...]
    pr_auc: tuple[float | None, ...]
    ece: float
    log_loss: float
    bins: tuple[ConfidenceBin, ...]
    two: TwoClasses | None = None
    temperature: float = 1.0
    group_by: str | None = None
    groups: tuple[Subgroup, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that cannot be."""
        shares = [each for each in (*self.roc_auc, *self.pr_auc, self.ece) if each is not None]
        shares += [] if self.two is None else [self.two.threshold, *self.two.roc]
        if not all(-1e-9 <= each <= 1 + 1e-9 for each in shares) or self.temperature <= 0:
            raise ValueError("a share must lie between 0 and 1, a temperature above 0")
        if any(not 0 <= each.right <= each.n for each in self.bins):
            raise ValueError("of a bin, between none and all are right")

    @property
    def mean_roc_auc(self) -> float | None:
        """Over the classes that have one; of two classes both are the same."""
        return mean_of(self.roc_auc)

    @property
    def mean_pr_auc(self) -> float | None:
        """Over the classes that have one; of two classes that of the positive one."""
        return mean_of(self.pr_auc) if self.two is None else self.pr_auc[self.two.positive]

    @property
    def confidence(self) -> float:
        """Mean of the highest probabilities."""
        return sum(each.n * each.confidence for each in self.bins) / sum(b.n for b in self.bins)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Over those that there are."""
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known else None


Rows = Float[np.ndarray, "b c"]
_AT_ONCE = 1 << 26
"""Bytes of probabilities in double precision that are held at once: those of 50,000 images of 1,000
classes are 400 MB, and as many again for each step of computing them."""


def measure(
    given: Float[np.ndarray, "n c"],
    labels: Int[np.ndarray, " n"],
    called: Int[np.ndarray, " n"] | None = None,
    positive: int = 1,
    threshold: float = 0.5,
    probabilities: Callable[[Rows], Rows] | None = None,
) -> Metrics:
    """given: probabilities, n >= 1, or rows that `probabilities` makes such of, in double precision and of
    sum 1. called: the classes that were answered, None for the most probable ones. positive, threshold:
    of two classes, see `TwoClasses`. Rows that are not finite count as knowing nothing."""
    n, classes = given.shape
    found, made = probabilities or known, max(1, _AT_ONCE // (8 * n))
    highest, true, best = np.empty(n), np.empty(n), np.empty(n, np.int64)
    for at, p in _parts(given, found):
        highest[at], best[at] = p.max(1), p.argmax(1)
        true[at] = p[np.arange(len(p)), labels[at]]
    areas: list[tuple[float | None, float | None]] = []
    two = None
    for first in range(0, classes, made):
        columns = np.empty((min(made, classes - first), n))
        for at, p in _parts(given, found):
            columns[:, at] = p[:, first : first + made].T
        areas += [_areas(labels == k, column) for k, column in enumerate(columns, first)]
        if classes == 2 and first <= positive < first + made:
            two = _two(columns[positive - first], labels == positive, positive, threshold)
    bins = _bins(highest, (best if called is None else called) == labels)
    gap = sum(abs(each.right - each.n * each.confidence) for each in bins)
    return Metrics(
        tuple(roc for roc, _ in areas),
        tuple(pr for _, pr in areas),
        kept(gap / n),
        kept(-np.log(np.maximum(true, 1e-12)).mean()),
        bins,
        two,
    )


def of_scores(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Metrics:
    """As `measure`, of scores that softmax makes probabilities of."""
    return measure(np.asarray(scores), labels, probabilities=lambda rows: known(softmax(rows)))


def _parts(
    given: Float[np.ndarray, "n c"], probabilities: Callable[[Rows], Rows]
) -> Iterator[tuple[slice, Rows]]:
    """Some rows after the other, and where they lie."""
    rows = max(1, _AT_ONCE // (64 * given.shape[1]))
    for start in range(0, len(given), rows):
        at = slice(start, min(start + rows, len(given)))
        yield at, probabilities(given[at])


def _areas(
    own: Bool[np.ndarray, " n"], p: Float[np.ndarray, " n"]
) -> tuple[float | None, float | None]:
    """Under the ROC curve and the precision-recall curve of one class against all others."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not 0 < own.sum() < len(own):
        return None, None
    return kept(roc_auc_score(own, p)), kept(average_precision_score(own, p))


def kept(value: Any) -> float:
    """Five digits: what follows depends on the processor, and tells nobody anything."""
    return round(float(value), 5)


def known(probabilities: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """In double precision, rows of sum 1; 1/c for each class where a row is not finite."""
    p = np.asarray(probabilities, np.float64)
    p = np.where(np.isfinite(p).all(1, keepdims=True), p, 1 / p.shape[1])
    return p / np.maximum(p.sum(1, keepdims=True), 1e-300)


def decided(
    probabilities: Float[np.ndarray, "n c"], positive: int = 1, threshold: float | None = None
) -> Int[np.ndarray, " n"]:
    """The class that each row is called: the most probable one; of two classes the positive one where
    its probability reaches the threshold, if there is one."""
    if probabilities.shape[1] != 2 or threshold is None or threshold == 0.5:
        return np.asarray(probabilities.argmax(1))
    return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)


def softmax(scores: Float[np.ndarray, "n c"], temperature: float = 1.0) -> Float[np.ndarray, "n c"]:
    """Scores, or logarithms of probabilities, -> probabilities."""
    from scipy.special import softmax as normalized

    return np.asarray(normalized(np.asarray(scores, np.float64) / temperature, axis=1))


def subgroups(confusions: dict[str, Int[np.ndarray, "c c"]]) -> tuple[Subgroup, ...]:
    """In order of their names."""
    return tuple(
        Subgroup(name, tuple(map(tuple, confusions[name].tolist()))) for name in sorted(confusions)
    )


def _bins(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> tuple[ConfidenceBin, ...]:
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found = []
    for k in range(BINS):
        inside = place == k
        n = int(inside.sum())
        found.append(
            ConfidenceBin(
                n, int(right[inside].sum()), kept(confidence[inside].mean()) if n else 0.0
            )
        )
    return tuple(found)


def _two(
    p: Float[np.ndarray, " n"], own: Bool[np.ndarray, " n"], positive: int, threshold: float
) -> TwoClasses | None:
    """p: of the positive class. own: who is of it."""
    from sklearn.metrics import roc_curve

    if not 0 < own.sum() < len(own):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        false, true, _ = roc_curve(own, p)
    # of several points at one rate of false alarms the highest counts
    highest = [kept(true[false <= rate + 1e-12].max()) for rate in ROC_GRID]
    return TwoClasses(positive, threshold, tuple(highest))
