"""The mechanisms that a claim speaks of: what an attacker can make of them, and what they cost if
their noise is off.

See `bounds.py`, "Known family", for why the total variation distance bounds the share of right
guesses.
"""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from sfumato.audit.bounds import lower_limit
from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants, events, relations
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, Tally
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation

_INTERVAL = 1e-3
_RANGE = 64.0
_LOG_TOLERANCE = 1e-3


def scaled(tally: Tally, factor: float) -> Tally:
    """The same releases with `factor` times their noise."""
    return events.tally(
        *((event.with_noise(factor * event.noise_multiplier), n) for event, n in tally.items())
    )


def of_one_fit(tally: Tally) -> Tally:
    """The same, each choice taken for a single one of its fits: about what can be seen of it, and
    no bound on that."""
    return events.tally(*((each.of_one, n) for each, n in tally.items()))


def seen(tally: Tally) -> tuple[float, Counter[PoissonSampledEvent]]:
    """What one example can show of these releases to who knows all others': (mu of those it is
    always in, its Poisson samples).

    It is in a batch of fixed size with probability size / n, in a truncated one with the rate or
    less, and takes its turn in a cycle with its group alone. That others are pushed out of a batch
    is priced by the accountants; attacks do not use it.
    """
    mu, parts = relations.simplified(tally)
    found: Counter[PoissonSampledEvent] = Counter()
    for event, count in parts:
        if event.rate is None:
            raise ArgumentError(
                "event", event, "audits know Gaussian releases, of all examples or of samples"
            )
        found[PoissonSampledEvent(event.rate, GaussianEvent(event.noise_multiplier))] += count
    return mu, found


def profile(tally: Tally, epsilons: np.ndarray) -> np.ndarray:
    """delta(epsilon) of what is `seen`, from above (Balle & Wang 2018, Thm. 8 for Gaussians;
    privacy loss distributions for samples).
    """
    mu, sampled = seen(tally)
    if not sampled:
        return norm.cdf(mu / 2 - epsilons / mu) - np.exp(
            epsilons + norm.logcdf(-mu / 2 - epsilons / mu)
        )
    import dp_accounting
    from dp_accounting import pld

    accountant = pld.PLDAccountant(value_discretization_interval=_INTERVAL)
    if mu > 0:
        accountant.compose(dp_accounting.GaussianDpEvent(1 / mu))
    for event, count in sampled.items():
        gaussian = dp_accounting.GaussianDpEvent(event.event.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(event.rate, gaussian), count)
    return np.asarray(accountant.get_delta(list(map(float, epsilons))))


def total_variation(tally: Tally) -> float:
    """The distance between all releases with and without one example."""
    return float(profile(tally, np.zeros(1))[0])


def family_epsilon(
    right: int,
    guesses: int,
    tally: Tally,
    delta: float,
    confidence: float,
    relation: Relation = ADD_OR_REMOVE,
) -> float:
    """The lower bound on epsilon from `right` of `guesses` about fair coins, if the noise is s
    times that of `tally`.

    relation: what epsilon is meant for; the coins are of examples that contribute or do not.
    It stops at s = 1/64: a trainer whose noise is smaller still is far beyond any claim.
    """
    best = lower_limit(right, guesses, confidence)

    def unexplained(log_s: float) -> float:
        return best - (1 + total_variation(scaled(tally, math.exp(log_s)))) / 2

    if best <= 0.5:
        return 0.0
    return accountants.epsilon(
        scaled(tally, math.exp(_largest(unexplained))), delta, relation=relation
    )


def _largest(unexplained: Callable[[float], float]) -> float:
    """The largest log s with unexplained(log s) <= 0, a rising function; at most `_LOG_TOLERANCE`
    too large."""
    low = high = 0.0
    while low > -math.log(_RANGE) and unexplained(low) > 0:
        low -= math.log(2)
    while unexplained(high) <= 0:
        high += math.log(2)
        if high > 20:
            return high
    if unexplained(low) > 0:
        return low
    return float(brentq(unexplained, low, high, xtol=_LOG_TOLERANCE / 2)) + _LOG_TOLERANCE / 2
