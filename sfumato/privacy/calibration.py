"""The least noise that keeps a promise, always rounded to the safe side."""

import math
from collections.abc import Callable

from sfumato.core.checks import positive
from sfumato.core.errors import ArgumentError
from sfumato.privacy.accountants import PLD_INTERVAL, epsilon
from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent, Tally, tally
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation, distance
from sfumato.privacy.relations import renyi_epsilon, simplified

RELATIVE_TOLERANCE = 1e-4
"""The noise multiplier returned is at most this factor above the smallest one that would do."""

LEAST = 1e-8
"""The smallest epsilon to ask for: every price is rounded up by 1e-10 or more."""

_COARSE_INTERVAL = 1e-3
_BOUNDS = (1e-3, 1e8)
_ENOUGH = 0.9  # a calibration that spends less than this share of its target is refused


def noise_multiplier(
    make_tally: Callable[[float], Tally],
    target_epsilon: float,
    delta: float,
    relation: Relation = ADD_OR_REMOVE,
) -> float:
    """The smallest sigma (to `RELATIVE_TOLERANCE`, from above) with epsilon(make_tally(sigma),
    delta) <= target_epsilon.

    make_tally: the run's events as a function of sigma; their epsilon must fall when sigma grows.
    Raises ArgumentError when no sigma in [0.001, 1e8] reaches the target, when what is found would
    spend much less than that, or when nobody can price the events under `relation`.
    """
    _check(target_epsilon)
    # Wide privacy-loss buckets are ten times cheaper and nearly as good (but for tiny epsilon):
    # they do the searching, and two looks through narrow ones, just below and at what they found,
    # usually confirm it.
    rough = _roughly(make_tally, target_epsilon, delta, relation)
    sigma = _smallest(
        lambda sigma: epsilon(make_tally(sigma), delta, PLD_INTERVAL, relation) <= target_epsilon,
        rough,
        factor=1 + RELATIVE_TOLERANCE,
    )
    if sigma >= _BOUNDS[1]:
        raise ArgumentError(
            "epsilon",
            target_epsilon,
            f"no noise up to {sigma:g} reaches it at delta={delta:g}; ask for more",
        )
    spent = epsilon(make_tally(sigma), delta, relation=relation)
    if spent < _ENOUGH * target_epsilon:
        raise ArgumentError(
            "epsilon",
            target_epsilon,
            f"the noise found, {sigma:.6g}, would spend {spent:.3g} only, and less "
            f"noise cannot be accounted for at delta={delta:g}; ask for at most that, or give a larger delta",
        )
    return sigma


def _roughly(
    make_tally: Callable[[float], Tally], target_epsilon: float, delta: float, relation: Relation
) -> float:
    """Right but for the width of the buckets."""
    coarse = _Falling(
        lambda sigma: epsilon(make_tally(sigma), delta, _COARSE_INTERVAL, relation), target_epsilon
    )
    _, parts = simplified(make_tally(1.0))
    if any(event.renyi_only for event, _ in parts):
        coarse.narrow(1.0, factor=2.0)
    elif parts:
        alike = _Falling(
            lambda sigma: renyi_epsilon(_alike(make_tally(sigma), relation), delta), target_epsilon
        )
        alike.narrow(1.0, factor=2.0, width=0.01)
        coarse.narrow(alike.high if math.isfinite(alike.high) else 1.0, factor=1.2)
    return _smallest(coarse.fits, 1.0, factor=2.0)


def _alike(events: Tally, relation: Relation) -> Tally:
    """Something of about the same price that has a Rényi bound, which is cheap: to know where to
    look, not as a price."""
    mu, parts = simplified(events)
    found: list[tuple[Event, int]] = (
        [(GaussianEvent(1 / mu / distance(relation)), 1)] if mu > 0 else []
    )
    found += [
        (
            PoissonSampledEvent(
                event.rate or 1.0, GaussianEvent(event.noise_multiplier / distance(relation))
            ),
            count,
        )
        for event, count in parts
    ]
    return tally(*found)


class _Falling:
    """A function of sigma that falls, and between which two sigmas it passes `target`: it is not
    looked at beyond them.

    low, high: the largest sigma known to be too small, and the smallest one known to be enough.
    """

    def __init__(self, value: Callable[[float], float], target: float):
        self._value, self._target = value, target
        self.low, self.high = 0.0, math.inf

    def fits(self, sigma: float) -> bool:
        return sigma >= self.high or (sigma > self.low and self._excess(math.log(sigma)) <= 0)

    def narrow(self, start: float, factor: float, width: float = 5e-6) -> None:
        """Bring `low` and `high` together, to a relative `width`, from `start` in growing steps,
        then by Brent's method: the logarithm of epsilon is nearly a straight line in that of sigma.
        Nothing happens where there is no such sigma.
        """
        from scipy.optimize import brentq

        _bracket(self.fits, start, factor)
        if self.low > 0 and math.isfinite(self.high):
            brentq(self._excess, math.log(self.low), math.log(self.high), xtol=width)

    def _excess(self, log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        value = self._value(sigma)
        if value <= self._target:
            self.high = min(self.high, sigma)
        else:
            self.low = max(self.low, sigma)
        return min(math.log(value / self._target), 100.0) if value > 0 else -100.0


def _check(target_epsilon: float) -> None:
    if positive("epsilon", target_epsilon) < LEAST:
        raise ArgumentError(
            "epsilon",
            target_epsilon,
            f"accountants round up by more than that; ask for {LEAST:g} or more",
        )


def _bracket(fits: Callable[[float], bool], start: float, factor: float) -> tuple[float, float]:
    """Two sigmas of which the first does not fit and the second does, from `start` in growing
    steps; or what is at the end of _BOUNDS.
    """
    low, high, step = start / factor, start, factor
    if fits(start):
        while low > _BOUNDS[0] and fits(low):
            high, low, step = low, low / step, step**1.5
    else:
        low, high = start, start * factor
        while high < _BOUNDS[1] and not fits(high):
            low, high, step = high, min(high * step, _BOUNDS[1]), step**1.5
    return low, high


def _smallest(fits: Callable[[float], bool], start: float, factor: float) -> float:
    """Geometric search for the smallest sigma that fits, within _BOUNDS; what is returned fits (or
    is the upper bound).

    It goes from `start` in growing steps until one end fits and the other does not, then halves the
    distance.
    """
    low, high = _bracket(fits, start, factor)
    while high / low > 1 + RELATIVE_TOLERANCE * (1 + 1e-9):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def gaussian_mu_for(
    target_epsilon: float, delta: float, relation: Relation = ADD_OR_REMOVE
) -> float:
    """The largest mu (to 1e-9, or to what prices are rounded up by, from below) for which one
    Gaussian of noise multiplier 1 / mu is (target_epsilon, delta)-DP.

    Balle & Wang 2018, Thm. 8. Under replace-one it is half of what it is otherwise: sums of
    neighbors are twice as far apart.
    """
    _check(target_epsilon)
    from dp_accounting import get_sigma_gaussian

    less = 1e-9
    mu = 1 / get_sigma_gaussian(target_epsilon, delta) / distance(relation) * (1 - less)
    while epsilon(tally((GaussianEvent(1 / mu), 1)), delta, relation=relation) > target_epsilon:
        mu *= 1 - less
        less *= 2  # prices are rounded up by 1e-10, which is much of a tiny epsilon
    return mu
