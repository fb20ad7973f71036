"""The mechanisms that a claim speaks of: what an attacker can make of them, and what they cost if their noise is off.

See `bounds.py`, "Known family", for why the total variation distance bounds the share of right guesses.
"""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from sfumato.audit.bounds import lower_limit
from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants
from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent, Tally

_INTERVAL = 1e-3
_RANGE = 64.0
_LOG_TOLERANCE = 1e-3


def scaled(tally: Tally, factor: float) -> Tally:
    """The same releases with `factor` times their noise."""
    total: Counter[Event] = Counter()
    for event, count in tally.items():
        match event:
            case GaussianEvent(sigma):
                total[GaussianEvent(factor * sigma)] += count
            case PoissonSampledEvent(rate, GaussianEvent(sigma)):
                total[PoissonSampledEvent(rate, GaussianEvent(factor * sigma))] += count
            case _:
                raise ArgumentError("event", event, "audits know Gaussian releases, of all examples or of Poisson samples")
    return total


def profile(tally: Tally, epsilons: np.ndarray) -> np.ndarray:
    """delta(epsilon), from above (Balle & Wang 2018, Thm. 8 for Gaussians; privacy loss distributions for samples)."""
    mu = accountants.gaussian_mu(tally)
    sampled = {event: count for event, count in tally.items() if isinstance(event, PoissonSampledEvent)}
    if not sampled:
        return norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons + norm.logcdf(-mu / 2 - epsilons / mu))
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


def family_epsilon(right: int, guesses: int, tally: Tally, delta: float, confidence: float) -> float:
    """The lower bound on epsilon from `right` of `guesses` about fair coins, if the noise is s times that of `tally`.

    It stops at s = 1/64: a trainer whose noise is smaller still is far beyond any claim.
    """
    best = lower_limit(right, guesses, confidence)

    def unexplained(log_s: float) -> float:
        return best - (1 + total_variation(scaled(tally, math.exp(log_s)))) / 2

    return accountants.epsilon(scaled(tally, math.exp(_largest(unexplained))), delta) if best > 0.5 else 0.0


def _largest(unexplained: Callable[[float], float]) -> float:
    """The largest log s with unexplained(log s) <= 0, a rising function; at most `_LOG_TOLERANCE` too large."""
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
