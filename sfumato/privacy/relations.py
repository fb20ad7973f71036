"""Compositions of events under every relation of neighborhood, through the released `dp-accounting`.

What an event costs under a relation it knows itself (`events.py`); here the bounds of all of them
are composed: plain Gaussians exactly, sampled ones by privacy loss distributions and by Rényi
divergences, of which the smaller epsilon counts. Groups of examples that take turns see their own
releases only, so what counts is the busiest group.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.privacy import losses
from sfumato.privacy.events import Event, GaussianEvent, Tally
from sfumato.privacy.losses import Parts
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation, distance, of_library

_ORDERS = (
    [1 + k / 10 for k in range(1, 100)]
    + list(range(11, 64))
    + [round(64 * 1.12**k) for k in range(45)]
)
"""Rényi orders: any set is valid, more of them are tighter; up to 9,000 for small epsilon."""

_AT_ONCE = 16
"""So many orders are looked at before asking whether higher ones may be worth it."""

PLD_INTERVAL = 1e-4
"""Spacing of the discretized privacy loss, finer where one step's loss is small (`losses.py`); the
library errs above the truth at any spacing (connect the dots)."""

_ROOT_TOLERANCE = 1e-10
"""The library finds epsilon of one Gaussian by a root search to 1e-12; this much is added so that
we err above."""


def epsilon(tally: Tally, delta: float, relation: Relation, interval: float) -> float:
    """An epsilon such that the composition of `tally` is (epsilon, delta)-DP under `relation`.

    Raises ArgumentError for events that no accountant here can price, alone or together.
    """
    return price(tally, delta, relation, interval).epsilon


@dataclass(frozen=True)
class Price:
    """epsilon, and the accountant that found it: "exact", "PLD" or "Rényi", or "none" of what promises
    nothing. spacing: of the PLD's grid."""

    epsilon: float
    accountant: str
    spacing: float = 0.0


def price(tally: Tally, delta: float, relation: Relation, interval: float = PLD_INTERVAL) -> Price:
    """The smaller one of all the bounds that are known here. Raises ArgumentError as `epsilon`
    does."""
    mu, parts = simplified(tally)
    if mu == math.inf:
        return Price(math.inf, "none")
    if not parts:
        return Price(_gaussian_epsilon(mu * distance(relation), delta) if mu > 0 else 0.0, "exact")
    if any(event.renyi_only for event, _ in parts):
        return Price(_renyi_epsilon(mu, parts, delta, relation), "Rényi")
    return _sampled_price(mu, parts, delta, relation, interval)


@lru_cache(maxsize=4096)
def _sampled_price(
    mu: float, parts: Parts, delta: float, relation: Relation, interval: float
) -> Price:
    """Privacy loss distributions are tighter but for tiny delta, very many steps and grids that had
    to be wide."""
    try:
        found = [Price(_renyi_epsilon(mu, parts, delta, relation), "Rényi")]
    except (
        ArgumentError,
        OverflowError,
    ):  # no bound is known, as for truncated samples, or it is beyond all numbers
        found = []
    try:
        found.append(Price(*_by_losses(mu, parts, delta, relation, interval)))
    except OverflowError:
        found.append(Price(math.inf, "PLD"))
    except ArgumentError:
        if not found:
            raise
    best = min(
        (each for each in found if not math.isnan(each.epsilon)),
        key=lambda each: each.epsilon,
        default=None,
    )
    if best is None or not math.isfinite(best.epsilon):
        steps = sum(count for _, count in parts)
        raise ArgumentError(
            "delta",
            delta,
            f"too small to account for {steps:,} of these releases under {relation}: "
            f"rounding alone is {losses.ROUNDING * steps:.1g}; give more, or more noise",
        )
    return best


def _by_losses(
    mu: float, parts: Parts, delta: float, relation: Relation, interval: float
) -> tuple[float, str, float]:
    found, spacing = losses.epsilon(mu, parts, delta, relation, of_library(relation), interval)
    return found, "PLD", spacing


def delta(
    tally: Tally,
    at_epsilon: float,
    relation: Relation = ADD_OR_REMOVE,
    interval: float = PLD_INTERVAL,
) -> float:
    """A delta such that the composition is (at_epsilon, delta)-DP. Raises ArgumentError for events
    known by Rényi only."""
    return float(_deltas(tally, [at_epsilon], relation, interval)[0])


def _deltas(tally: Tally, epsilons: Sequence[float], relation: Relation, interval: float) -> Any:
    mu, parts = simplified(tally)
    if mu == math.inf:
        return [1.0] * len(epsilons)
    if any(event.renyi_only for event, _ in parts):
        raise ArgumentError(
            "event", parts[-1][0], "is known by Rényi divergences only; ask for epsilon"
        )
    return losses.deltas(mu, parts, epsilons, relation, of_library(relation), interval)


def true_positive_rate(
    tally: Tally,
    false_positive_rate: float,
    relation: Relation = ADD_OR_REMOVE,
    interval: float = PLD_INTERVAL,
) -> float:
    """No attacker who errs on so many non-members recognizes a larger share of members. Dong, Roth
    & Su 2019, Prop. 2.5.

    For plain Gaussians, which are mu-GDP, it is exact: Phi(Phi^-1(f) + mu); else min over epsilon
    of delta(epsilon) + e^epsilon f, over a grid. Raises ArgumentError for events known by Rényi
    divergences only.
    """
    import numpy as np
    from scipy.stats import norm

    mu, parts = simplified(tally)
    if mu == math.inf:
        return 1.0
    if not parts:
        return float(norm.cdf(norm.ppf(false_positive_rate) + mu * distance(relation)))
    grid = np.linspace(0.0, -math.log(false_positive_rate), 200)
    deltas = _deltas(tally, list(map(float, grid)), relation, interval)
    return float(min(1.0, np.min(deltas + np.exp(grid) * false_positive_rate)))


def renyi_epsilon(tally: Tally, delta: float, relation: Relation = ADD_OR_REMOVE) -> float:
    """The same by Rényi differential privacy alone: larger, and found by other formulas, so a
    cross-check.

    Raises ArgumentError for truncated samples, for Poisson samples under replace-one and for
    samples of fixed size under add-or-remove-one: the library has no bound for them.
    """
    return _renyi_epsilon(*simplified(tally), delta, relation)


@lru_cache(maxsize=4096)
def _renyi_epsilon(mu: float, parts: Parts, delta: float, relation: Relation) -> float:
    from dp_accounting import rdp

    if mu == math.inf:
        return math.inf
    for event, _ in parts:
        relation = event.renyi_relation(relation)
    parts += ((GaussianEvent(1 / mu), 1),) if mu > 0 else ()

    def divergences(orders: Sequence[float]) -> Any:
        return sum(
            count * (_divergences(event, relation, tuple(orders)) + _rounding(event, orders))
            for event, count in parts
        )

    def at(orders: Sequence[float]) -> float:
        return float(rdp.compute_epsilon(orders, divergences(orders), delta)[0])

    if not all(event.order_by_order for event, _ in parts):
        return at(_ORDERS)
    if any(event.renyi_only for event, _ in parts):
        return _rising(divergences, delta)
    return _smallest(lambda k: at(_ORDERS[k : k + 1]), len(_ORDERS)) if parts else 0.0


def _rising(divergences: Callable[[Sequence[float]], Any], delta: float) -> float:
    """The smallest epsilon of all orders, from the lowest on; the highest take a second.

    A divergence rises with its order (van Erven & Harremoës 2014, Thm. 3). So the search ends where
    no higher order would bring less, even if the divergence rose no further. A bound of one that
    does fall somewhere may be missed there: then epsilon is larger than it might be.
    """
    from dp_accounting import rdp

    best = math.inf
    for start in range(0, len(_ORDERS), _AT_ONCE):
        orders, higher = _ORDERS[start : start + _AT_ONCE], _ORDERS[start + _AT_ONCE :]
        found = divergences(orders)
        best = min(best, float(rdp.compute_epsilon(orders, found, delta)[0]))
        if not higher or rdp.compute_epsilon(higher, [found[-1]] * len(higher), delta)[0] >= best:
            break
    return best


def _smallest(value: Callable[[int], float], n: int) -> float:
    """The smallest of value(0) .. value(n - 1), which fall and then rise; any of them is a bound.

    As function of the order a, epsilon is (a convex function + log 1 / delta) / (a - 1) but for
    small terms.
    """
    low, high = 0, n - 1
    while high - low > 2:
        left, right = low + (high - low) // 3, high - (high - low) // 3
        if value(left) < value(right):
            high = right
        else:
            low = left
    return min(map(value, range(low, high + 1)))


@lru_cache(maxsize=4096)
def _divergences(event: Event, relation: Relation, orders: tuple[float, ...]) -> Any:
    """Of one release: up to ten thousand terms an order, and a run asks for it at many numbers of
    steps."""
    from dp_accounting import rdp
    from dp_accounting.privacy_accountant import UnsupportedEventError

    accountant = rdp.RdpAccountant(orders, of_library(relation))
    try:
        with without_warnings():
            accountant.compose(event.renyi_event(relation))
    except UnsupportedEventError:
        raise ArgumentError("event", event, f"no Rényi bound for it under {relation}") from None
    return accountant.rdp


def _rounding(event: Event, orders: Sequence[float]) -> Any:
    """What the library's divergence of one sampled release may be too small by, per order a: it is
    log(A) / (a - 1), and where one step tells little, A = 1 + little. With 1e9 steps what came out
    was below nothing, and so an epsilon of zero.

    Integer a: A is a sum of terms with log-binomials of up to a log a, each right to some units u =
    2^-53 in the last place; sixteen are allowed. Others: a series that ends where its terms fall
    below e^-30 of the sum; eight times that is allowed.
    """
    import numpy as np

    a = np.asarray(orders, float)
    if event.rate is None:
        return np.zeros_like(a)
    return np.where(a % 1 == 0, 2.0**-49 * a * np.log(a), 8 * math.exp(-30)) / (a - 1)


@contextmanager
def without_warnings() -> Iterator[None]:
    """The library warns of every order that it leaves out, which only makes its epsilon larger."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def simplified(tally: Tally) -> tuple[float, Parts]:
    """mu of the plain Gaussians (at distance C), and all other events, sorted, as they are to an
    example of the busiest group. Where any promises nothing, mu is infinite."""
    squares: list[float] = []
    rest: Counter[Event] = Counter()
    series: dict[Event, Counter[int]] = {}
    for event, count in tally.items():
        if whole("count", count, at_least=0) == 0:
            continue
        if not isinstance(event, Event):
            raise ArgumentError("event", event, "give an event from sfumato.privacy.events")
        series.setdefault(event.at(-event.turn), Counter())[event.turn] += count
    for first, turns in series.items():
        plain, busiest = first.plain, max(turns.values())
        if not plain.private:
            squares.append(math.inf)
        elif plain.exact:
            squares.append(busiest / plain.noise_multiplier**2)
        else:
            rest[plain] += busiest
    return math.sqrt(math.fsum(squares)), tuple(sorted(rest.items(), key=repr))


@lru_cache(maxsize=4096)
def _gaussian_epsilon(mu: float, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    return get_epsilon_gaussian(1 / mu, delta) + _ROOT_TOLERANCE
