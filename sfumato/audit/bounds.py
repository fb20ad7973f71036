"""From counted guesses to a lower bound on epsilon. Three ways; each says what it takes for
granted.

A canary takes part or not; an attacker guesses which. Below, a guess is positive when it says "took
part", f is the false positive rate, t the true positive rate, and "lower" and "upper" are exact
binomial limits (Clopper & Pearson 1934).

**Clopper-Pearson.** (epsilon, delta)-DP means t <= e^epsilon f + delta and, the two worlds
exchanged, 1 - f <= e^epsilon (1 - t) + delta (Kairouz, Oh & Viswanath 2015, Thm. 2.1). Upper limits
of f and of 1 - t, each at half the error probability, hold together, and

    epsilon >= max( log((lower(t) - delta) / upper(f)),  log((lower(1 - f) - delta) / upper(1 - t)) ).

Nothing is assumed but that the guesses are independent. It cannot show more than about log(n / 4)
with n guesses.

**Known family.** Suppose that the releases are the Gaussians (subsampled as stated) that the ledger
lists, but that every noise multiplier is s times what it should be, s unknown. Canaries take part
by fair coins. Of two laws P and Q, each drawn with probability 1/2, no test names the right one
more often than (1 + TV(P, Q)) / 2, and TV(P, Q) is delta(0), the privacy profile at epsilon = 0
(Kairouz et al. 2015; for one Gaussian of mu = 1 / sigma it is 2 Phi(mu / 2) - 1). So

    lower(share of right guesses) <= (1 + TV_s) / 2,

which fails for all s above some s*. Then s <= s*, and epsilon is at least what the accountant
computes at s*. This is the Gaussian-DP audit of Nasr et al. 2023 (arXiv 2302.07956), with one
binomial in place of two. One threshold suffices, at which both errors are frequent, so a few
thousand guesses are enough for any epsilon.

**One run.** Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846), Thm. 5.2: of m canaries, each in the
data set by a fair coin, the attacker guesses r and abstains from the others. If the training is
(epsilon, delta)-DP, the number W of right guesses satisfies

    P[W >= v] <= P[B >= v] + 2 m delta max_{i = 1 .. v} P[v - i <= B < v] / i,    B ~ Binomial(r, e^epsilon / (1 + e^epsilon)).

Guesses may depend on each other in any way: all canaries may sit in one run. Nothing else is
assumed.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta, binom, binomtest

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError

_TOLERANCE = 1e-3


def lower_limit(successes: int, trials: int, confidence: float) -> float:
    """The exact one-sided lower limit of a proportion: the p at which P[Binomial(trials, p) >=
    successes] = 1 - confidence."""
    _check(successes, trials, confidence)
    test = binomtest(successes, trials, alternative="greater")
    return float(test.proportion_ci(confidence, method="exact").low)


def clopper_pearson(
    false_positives: int,
    nonmembers: int,
    false_negatives: int,
    members: int,
    delta: float,
    confidence: float,
) -> float:
    """A lower bound on epsilon from errors counted on canaries that did not take part (nonmembers)
    and that did."""
    _check(false_positives, nonmembers, confidence)
    _check(false_negatives, members, confidence)
    counts = np.array([false_positives]), np.array([false_negatives])
    return float(
        clopper_pearson_each(counts[0], nonmembers, counts[1], members, delta, confidence)[0]
    )


def clopper_pearson_each(
    false_positives: Int[np.ndarray, " k"],
    nonmembers: int,
    false_negatives: Int[np.ndarray, " k"],
    members: int,
    delta: float,
    confidence: float,
) -> Float[np.ndarray, " k"]:
    """`clopper_pearson` for each of k thresholds, every one as if it were the only one."""
    each = (1 + confidence) / 2
    false_positive = np.nan_to_num(
        beta.ppf(each, false_positives + 1, nonmembers - false_positives), nan=1.0
    )
    false_negative = np.nan_to_num(
        beta.ppf(each, false_negatives + 1, members - false_negatives), nan=1.0
    )
    first = np.maximum(1 - false_negative - delta, false_positive) / false_positive
    second = np.maximum(1 - false_positive - delta, false_negative) / false_negative
    return np.log(np.maximum(first, second))


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """A bound on the probability of `right` or more right guesses in one run that is (epsilon,
    delta)-DP."""
    law = binom(guesses, 1 / (1 + math.exp(-epsilon)))
    i = np.arange(1, right + 1)
    below = np.cumsum(law.pmf(right - i))  # P[right - i <= B < right]
    steepest = float((below / i).max(initial=0.0))
    return min(1.0, float(law.sf(right - 1)) + 2 * canaries * delta * steepest)


def one_run(canaries: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """The lower bound on epsilon of one run: the largest epsilon refuted. To 0.001, from below.

    canaries: m, each in the data set by a fair coin. guesses: r, fixed before the run was looked
    at.

    Halving finds some epsilon that is refuted while a slightly larger one is not, which is enough:
    whoever refutes (epsilon', delta)-DP refutes it for all epsilon < epsilon', and does so by
    counting v >= v(epsilon'); of two such events one contains the other, so together they are no
    likelier than the likeliest.
    """
    whole("canaries", canaries)
    _check(right, guesses, confidence)
    if guesses > canaries:
        raise ArgumentError("guesses", guesses, f"there are only {canaries} canaries")

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, right, epsilon, delta) <= 1 - confidence

    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _check(successes: int, trials: int, confidence: float) -> None:
    whole("observations", trials)
    if not 0 <= successes <= trials:
        raise ArgumentError("right", successes, f"give a count from 0 to {trials}")
    if not 0.5 < confidence < 1:
        raise ArgumentError(
            "confidence", confidence, "give a number between 0.5 and 1, such as 0.95"
        )
