"""What an evaluation says of several findings an image: each by itself, over the images where it is known.

ROC AUC is the share of pairs, of an image with the finding and one without, in which the first has the
higher probability, half for equal ones. Its variance is that of DeLong et al. 1988 (their eq. 5), by
ranks (Sun & Xu 2014): with V_i the share of the m images without the finding below image i of the k with
it, W_j the share of the k above image j, AUC = mean V and Var = var(V) / k + var(W) / m. The 95 %
interval is taken for log(AUC / (1 - AUC)), whose deviation is that of AUC over AUC (1 - AUC) (Pepe 2003,
sec. 5.2.5), so it stays within 0 and 1.
Where every pair is in order the variance is 0, which says nothing: min(k, m) pairs of distinct images are
independent, and all of them in order has a chance of 2.5 % at an AUC of 0.025^(1 / min(k, m)), the end of
Clopper & Pearson's interval.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sfumato.core.tasks import MULTI, UNKNOWN
from sfumato.train.metrics import kept

_TWO_SIDED = 1.959964


@dataclass(frozen=True)
class FindingMeasure:
    """n: images where it is known, of which `positives` have it; of these `found` are called so, of the
    others `cleared` are not, at a probability of 0.5. roc_auc, its 95 % interval, and pr_auc (average
    precision): None where all are of one kind. called: mean probability."""

    n: int
    positives: int
    found: int
    cleared: int
    mean_probability: float
    roc_auc: float | None = None
    roc_auc_low: float | None = None
    roc_auc_high: float | None = None
    pr_auc: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that cannot be."""
        if not (
            0 <= self.found <= self.positives <= self.n and 0 <= self.cleared <= self.negatives
        ):
            raise ValueError("of a finding, more are called right than there are")
        shares = (
            self.roc_auc,
            self.roc_auc_low,
            self.roc_auc_high,
            self.pr_auc,
            self.mean_probability,
        )
        if not all(each is None or 0 <= each <= 1 for each in shares):
            raise ValueError("a share must lie between 0 and 1")

    @property
    def negatives(self) -> int:
        return self.n - self.positives


def measure_findings(
    probabilities: Float[np.ndarray, "n l"], labels: Int[np.ndarray, "n l"]
) -> tuple[FindingMeasure, ...]:
    """One for each column. A probability that is not finite counts as knowing nothing, one half."""
    p = np.asarray(probabilities, np.float64)
    p = np.where(np.isfinite(p), p, 0.5)
    counts = MULTI.count(labels, MULTI.decided(p), p.shape[1])
    found = []
    for k, ((cleared, alarms), (missed, hits)) in enumerate(counts.tolist()):
        known = labels[:, k] != UNKNOWN
        there, own = labels[known, k] == 1, p[known, k]
        sizes = (int(known.sum()), missed + hits, hits, cleared)
        mean = kept(own.mean()) if len(own) else 0.5
        areas = _areas(there, own) if hits + missed and cleared + alarms else (None,) * 4
        found.append(FindingMeasure(*sizes, mean, *areas))
    return tuple(found)


def _areas(there: Bool[np.ndarray, " n"], p: Float[np.ndarray, " n"]) -> tuple[float, ...]:
    from sklearn.metrics import average_precision_score

    area, low, high = auc_interval(p[there], p[~there])
    precision = average_precision_score(there, p)
    return kept(area), kept(low), kept(high), kept(precision)


def auc_interval(
    positive: Float[np.ndarray, " k"], negative: Float[np.ndarray, " m"]
) -> tuple[float, float, float]:
    """(AUC, the ends of its 95 % interval) of scores with and without a finding; see above."""
    from scipy.stats import rankdata

    k, m = len(positive), len(negative)
    every = rankdata(np.concatenate([positive, negative]))
    above = (every[:k] - rankdata(positive)) / m
    below = 1 - (every[k:] - rankdata(negative)) / k
    area = float(above.mean())
    if k == 1 or m == 1:
        return area, 0.0, 1.0
    if area in (0.0, 1.0):
        end = 0.025 ** (1 / min(k, m))
        return (area, end, 1.0) if area else (area, 0.0, 1 - end)
    deviation = math.sqrt(above.var(ddof=1) / k + below.var(ddof=1) / m)
    logit, width = math.log(area / (1 - area)), _TWO_SIDED * deviation / (area * (1 - area))
    low, high = (
        1 / (1 + math.exp(-min(max(each, -500), 500))) for each in (logit - width, logit + width)
    )
    return area, low, high
