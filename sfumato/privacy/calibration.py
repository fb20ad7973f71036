"""The least noise that keeps a promise, always rounded to the safe side."""

from collections.abc import Callable

from sfumato.core.checks import positive
from sfumato.core.errors import ArgumentError
from sfumato.privacy.accountants import PLD_INTERVAL, epsilon
from sfumato.privacy.events import GaussianEvent, Tally, tally
from sfumato.privacy.relations import ADD_OR_REMOVE, Relation, distance, renyi_epsilon, simplified

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
    enough = _enough_by_renyi(make_tally, target_epsilon, delta, relation)

    def fits(sigma: float, interval: float) -> bool:
        return epsilon(make_tally(sigma), delta, interval, relation) <= target_epsilon

    def nearly(sigma: float) -> bool:
        """Rényi divergences, which are cheap, say that so much is enough, and half of that is in
        practice too little."""
        if enough is not None and not 0.5 * enough < sigma < enough:
            return sigma >= enough
        return fits(sigma, _COARSE_INTERVAL)

    # Wide privacy-loss buckets are ten times cheaper and nearly as good (but for tiny epsilon):
    # they do the searching, and two looks through narrow ones, just below and at what they found,
    # usually confirm it.
    rough = _smallest(nearly, 1.0, factor=2.0)
    sigma = _smallest(lambda sigma: fits(sigma, PLD_INTERVAL), rough, factor=1 + RELATIVE_TOLERANCE)
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


def _enough_by_renyi(
    make_tally: Callable[[float], Tally], target_epsilon: float, delta: float, relation: Relation
) -> float | None:
    """A sigma that Rényi divergences say is enough, where releases are sampled and there is such a
    bound."""
    if not simplified(make_tally(1.0))[1]:
        return None
    try:
        return _smallest(
            lambda sigma: renyi_epsilon(make_tally(sigma), delta, relation) <= target_epsilon,
            1.0,
            factor=2.0,
        )
    except ArgumentError:
        return None


def _check(target_epsilon: float) -> None:
    if positive("epsilon", target_epsilon) < LEAST:
        raise ArgumentError(
            "epsilon",
            target_epsilon,
            f"accountants round up by more than that; ask for {LEAST:g} or more",
        )


def _smallest(fits: Callable[[float], bool], start: float, factor: float) -> float:
    """Geometric search for the smallest sigma that fits, within _BOUNDS; what is returned fits (or
    is the upper bound).

    It goes from `start` in growing steps until one end fits and the other does not, then halves the
    distance.
    """
    low, high, step = start / factor, start, factor
    if fits(start):
        while low > _BOUNDS[0] and fits(low):
            high, low, step = low, low / step, step**1.5
    else:
        low, high = start, start * factor
        while high < _BOUNDS[1] and not fits(high):
            low, high, step = high, min(high * step, _BOUNDS[1]), step**1.5
    while high / low > 1 + RELATIVE_TOLERANCE * (1 + 1e-9):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def gaussian_mu_for(
    target_epsilon: float, delta: float, relation: Relation = ADD_OR_REMOVE
) -> float:
    """The largest mu (to 1e-9, from below) for which one Gaussian of noise multiplier 1 / mu is
    (target_epsilon, delta)-DP.

    Balle & Wang 2018, Thm. 8. Under replace-one it is half of what it is otherwise: sums of
    neighbors are twice as far apart.
    """
    _check(target_epsilon)
    from dp_accounting import get_sigma_gaussian

    mu = 1 / get_sigma_gaussian(target_epsilon, delta) / distance(relation) * (1 - 1e-9)
    while epsilon(tally((GaussianEvent(1 / mu), 1)), delta, relation=relation) > target_epsilon:
        mu *= 1 - 1e-9
    return mu
