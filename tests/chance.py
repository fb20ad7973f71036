"""How improbable a statistic must be before a test of randomness fails, and bounds that hold for
samples of any size.

A test that draws at random states in its docstring how often it fails though nothing is wrong, all
of its cases together: "False alarms: 1e-8." `test_checks.py` finds the tests that draw conclusions
by chance, wants that sentence of each, and adds up what they say: at most `IN_ALL` for a run of all
tests. In CI all of them draw from fixed seeds (`conftest.py`), so one that passed goes on passing
until somebody changes what is drawn.
"""

import math

import numpy as np
from scipy import stats
from scipy.special import rel_entr

IN_ALL = 1e-6
UNLIKELY = 1e-10
"""Of one comparison. A few hundred are made in a run; where a tail is only nearly normal, tests
state a hundredfold."""


def sigmas(comparisons: int = 1) -> float:
    """How many standard deviations the largest of so many normal numbers exceeds, up or down, with
    probability `UNLIKELY`."""
    return float(stats.norm.isf(UNLIKELY / 2 / comparisons))


def as_likely(observed: np.ndarray, law: np.ndarray) -> float:
    """An upper bound on the probability of counts that are this far from their law or farther, in
    relative entropy.

    Arrays (..., cells); every row of `observed` is a sample of its own, and all of them count
    together. With t the sum of n KL(observed / n || law) over the rows and f the sum of (cells -
    1), E exp(s t) <= (1 - s)^-f for 0 <= s < 1 (Agrawal 2020, arXiv 1904.02291, Theorem I.3), hence
    P(T >= t) <= (t / f)^f exp(f - t) for t > f, at s = 1 - f / t. Unlike Pearson's chi-square this
    needs no number of draws per cell, so nothing is pooled.
    """
    observed, law = np.broadcast_arrays(np.asarray(observed, np.float64), law)
    size = observed.sum(-1, keepdims=True)
    t = float(rel_entr(observed, size * law).sum())
    f = float(np.maximum((law > 0).sum(-1) - 1, 0).sum())
    if math.isinf(t):
        return 0.0
    return 1.0 if t <= f or f == 0 else math.exp(f - t + f * math.log(t / f))


def are_normal(numbers: np.ndarray) -> bool:
    """Whether independent numbers may be standard normal, by Kolmogorov and Smirnov: P(sup |F_n -
    F| > x) <= 2 exp(-2 n x^2) (Dvoretzky, Kiefer and Wolfowitz 1956; the constant is Massart's of
    1990).
    """
    found = stats.kstest(np.ravel(numbers), "norm").statistic
    return bool(2 * math.exp(-2 * np.size(numbers) * found**2) > UNLIKELY)


def has_deviation(numbers: np.ndarray, deviation: float = 1.0) -> bool:
    """Whether independent normal numbers may have this standard deviation: their squares add up to
    a chi-square number."""
    low, high = stats.chi2.isf([1 - UNLIKELY, UNLIKELY], np.size(numbers))
    return bool(low < np.square(np.asarray(numbers) / deviation).sum() < high)


def share_nothing(rows: np.ndarray) -> bool:
    """Whether rows of independent numbers, (rows, numbers), may be independent of each other: no
    two are correlated."""
    found = np.abs(np.corrcoef(rows)[np.triu_indices(len(rows), 1)])
    return bool(found.max() < sigmas(len(found)) / math.sqrt(rows.shape[1]))
