"""Compositions of every kind of event under every relation of neighbourhood, through the released `dp-accounting`.

The multiplier of a Gaussian event is relative to C, the most that one example contributes.

add-or-remove-one   the sums of neighbours differ by at most C
zero-out            likewise; n is public. Every pair of neighbours is one of add-or-remove-one with an empty place kept, so the
                    same numbers hold (and a sampler that needs n, such as one of fixed size, may be used)
replace-one         the sums differ by up to 2 C: plain Gaussians count with half their multiplier. A Poisson sample holds the
                    example or its replacement, so (1 - q) N(0) + q N(1) stands against (1 - q) N(0) + q N(-1)

Truncated Poisson samples are accounted as the library does (arXiv 2508.15089): with the probability that truncation happens,
one example may push another out of the batch, which moves the sum by 2 C. Cyclic samples: an example stands in one group and
sees its group's releases only, so what counts is the busiest group (parallel composition), with correlated noise, too
(`noise/banded.py`). Samples of fixed size are known
under replace-one by their Rényi divergences (Wang et al. 2019, arXiv 1808.00087, Thm. 27), for sums that differ by 2 C;
zero-out is the case in which the replacement contributes nothing.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.privacy.events import (
    CyclicPoissonEvent,
    Event,
    FixedSizeEvent,
    GaussianEvent,
    PoissonSampledEvent,
    SelectedEvent,
    Tally,
    TruncatedPoissonEvent,
)

Relation = Literal["add-or-remove-one", "zero-out", "replace-one"]
ADD_OR_REMOVE: Relation = "add-or-remove-one"
ZERO_OUT: Relation = "zero-out"
REPLACE_ONE: Relation = "replace-one"
RELATIONS: tuple[Relation, ...] = (ADD_OR_REMOVE, ZERO_OUT, REPLACE_ONE)

_RENYI_ONLY = (SelectedEvent, FixedSizeEvent)
_ORDERS = [1 + k / 10 for k in range(1, 100)] + list(range(11, 64)) + [round(64 * 1.12**k) for k in range(45)]
"""Rényi orders: any set is valid, more of them are tighter; up to 9,000 for small epsilon."""

PLD_INTERVAL = 1e-4
"""Spacing of the discretised privacy loss; the library errs above the truth at any spacing (connect the dots)."""

_ROOT_TOLERANCE = 1e-10
"""The library finds epsilon of one Gaussian by a root search to 1e-12; this much is added so that we err above."""


Parts = tuple[tuple[Event, int], ...]


def epsilon(tally: Tally, delta: float, relation: Relation, interval: float) -> float:
    """An epsilon such that the composition of `tally` is (epsilon, delta)-DP under `relation`.

    Raises ArgumentError for events that no accountant here can price, alone or together.
    """
    mu, parts = simplified(tally)
    if not parts:
        return _gaussian_epsilon(mu * distance(relation), delta) if mu > 0 else 0.0
    if any(isinstance(event, _RENYI_ONLY) for event, _ in parts):
        return _renyi_epsilon(mu, parts, delta, relation)
    return _pld_epsilon(mu, parts, delta, relation, interval)


def delta(tally: Tally, at_epsilon: float, relation: Relation = ADD_OR_REMOVE, interval: float = PLD_INTERVAL) -> float:
    """A delta such that the composition is (at_epsilon, delta)-DP. Raises ArgumentError for events known by Rényi only."""
    return float(_deltas(tally, [at_epsilon], relation, interval)[0])


def _deltas(tally: Tally, epsilons: Sequence[float], relation: Relation, interval: float) -> Any:
    mu, parts = simplified(tally)
    if any(isinstance(event, _RENYI_ONLY) for event, _ in parts):
        raise ArgumentError("event", parts[-1][0], "is known by Rényi divergences only; ask for epsilon")
    return _pld(mu, parts, relation, interval).get_delta_for_epsilon(epsilons)  # many at once, or one by one takes long


def true_positive_rate(
    tally: Tally, false_positive_rate: float, relation: Relation = ADD_OR_REMOVE, interval: float = PLD_INTERVAL
) -> float:
    """No attacker who errs on so many non-members recognises a larger share of members. Dong, Roth & Su 2019, Prop. 2.5.

    For plain Gaussians, which are mu-GDP, it is exact: Phi(Phi^-1(f) + mu); else min over epsilon of delta(epsilon) +
    e^epsilon f, over a grid. Raises ArgumentError for events known by Rényi divergences only.
    """
    import numpy as np
    from scipy.stats import norm

    mu, parts = simplified(tally)
    if not parts:
        return float(norm.cdf(norm.ppf(false_positive_rate) + mu * distance(relation)))
    grid = np.linspace(0.0, -math.log(false_positive_rate), 200)
    deltas = _deltas(tally, list(map(float, grid)), relation, interval)
    return float(min(1.0, np.min(deltas + np.exp(grid) * false_positive_rate)))


def renyi_epsilon(tally: Tally, delta: float, relation: Relation = ADD_OR_REMOVE) -> float:
    """The same by Rényi differential privacy alone: larger, and found by other formulas, so a cross-check.

    Raises ArgumentError for truncated samples, for Poisson samples under replace-one and for samples of fixed size under
    add-or-remove-one: the library has no bound for them.
    """
    return _renyi_epsilon(*simplified(tally), delta, relation)


@lru_cache(maxsize=4096)
def _renyi_epsilon(mu: float, parts: Parts, delta: float, relation: Relation) -> float:
    from dp_accounting import rdp
    from dp_accounting.privacy_accountant import UnsupportedEventError

    fixed = any(isinstance(event, FixedSizeEvent) for event, _ in parts)
    if fixed and relation == ZERO_OUT:
        relation = REPLACE_ONE
    try:
        found = [count * _divergences(event, relation) for event, count in parts]
    except UnsupportedEventError:
        raise ArgumentError("event", [event for event, _ in parts], f"no Rényi bound for these under {relation}") from None
    found += [_divergences(GaussianEvent(1 / mu), relation)] if mu > 0 else []
    return float(rdp.compute_epsilon(_ORDERS, sum(found), delta)[0]) if found else 0.0


@lru_cache(maxsize=64)
def _divergences(event: Event, relation: Relation) -> Any:
    """Of one release, at every order: some ten thousand terms, and a run asks for it at every number of steps."""
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(_ORDERS, _neighbours(relation))
    with without_warnings():
        accountant.compose(_renyi_event(event, relation))
    return accountant.rdp


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
    """mu of the plain Gaussians (at distance C), and all other events, sorted; cyclic ones as Poisson samples."""
    squares: list[float] = []
    rest: Counter[Event] = Counter()
    groups: dict[tuple[Any, ...], int] = {}
    for event, count in tally.items():
        if whole("count", count, at_least=0) == 0:
            continue
        match event:
            case GaussianEvent(sigma) | PoissonSampledEvent(1.0, GaussianEvent(sigma)):
                squares.append(count / sigma**2)
            case CyclicPoissonEvent(rate, cycle, _, inner):
                key = (rate, cycle, inner)  # inner: correlated noise or not, the turns of one example do not overlap
                groups[key] = max(groups.get(key, 0), count)  # the busiest group
            case FixedSizeEvent(size, n, GaussianEvent(sigma)) if size == n:
                squares.append(count / sigma**2)
            case PoissonSampledEvent() | TruncatedPoissonEvent() | FixedSizeEvent() | SelectedEvent():
                rest[event] += count
            case _:
                raise ArgumentError("event", event, "give an event from sfumato.privacy.events")
    for (rate, _, inner), count in groups.items():
        if rate == 1.0:
            squares.append(count / inner.noise_multiplier**2)
        else:
            rest[PoissonSampledEvent(rate, GaussianEvent(inner.noise_multiplier))] += count
    return math.sqrt(math.fsum(squares)), tuple(sorted(rest.items(), key=repr))


def distance(relation: Relation) -> float:
    """How far the sums of neighbours are apart, in units of C."""
    return 2.0 if relation == REPLACE_ONE else 1.0


def _neighbours(relation: Relation) -> Any:
    from dp_accounting.privacy_accountant import NeighboringRelation as Neighbours

    return {ADD_OR_REMOVE: Neighbours.ADD_OR_REMOVE_ONE, ZERO_OUT: Neighbours.REPLACE_SPECIAL,
            REPLACE_ONE: Neighbours.REPLACE_ONE}[relation]  # fmt: skip


def _renyi_event(event: Event, relation: Relation) -> Any:
    """The library's Rényi accountant takes noise relative to how far the sums of neighbours are apart."""
    import dp_accounting as library

    sigma = (event if isinstance(event, GaussianEvent) else event.event).noise_multiplier
    gaussian = library.GaussianDpEvent(sigma / distance(relation))
    match event:
        case GaussianEvent():
            return gaussian
        case FixedSizeEvent(size, n):
            return library.SampledWithoutReplacementDpEvent(n, size, gaussian)
        case SelectedEvent(_, mean):
            return library.dp_event.RepeatAndSelectDpEvent(gaussian, mean, 0)
        case PoissonSampledEvent(rate):
            return library.PoissonSampledDpEvent(rate, gaussian)
    return library.UnsupportedDpEvent()


@lru_cache(maxsize=4096)
def _pld_epsilon(mu: float, parts: Parts, delta: float, relation: Relation, interval: float) -> float:
    return float(_pld(mu, parts, relation, interval).get_epsilon_for_delta(delta))


@lru_cache(maxsize=8)  # a distribution takes megabytes
def _pld(mu: float, parts: Parts, relation: Relation, interval: float) -> Any:
    """The library's PLD accountant takes noise relative to C and knows the relations itself."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = pld.identity(value_discretization_interval=interval)
    if mu > 0:
        total = total.compose(pld.from_gaussian_mechanism(1 / mu, **_about(relation, interval)))
    for event, count in parts:
        total = total.compose(_sampled_pld(event, relation, interval).self_compose(count))
    return total


def _about(relation: Relation, interval: float) -> dict[str, Any]:
    return {"value_discretization_interval": interval, "neighboring_relation": _neighbours(relation)}


@lru_cache(maxsize=8)
def _sampled_pld(event: Event, relation: Relation, interval: float) -> Any:
    """Of one release; a run asks for it at every number of steps."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    about = _about(relation, interval)
    match event:
        case PoissonSampledEvent(rate, GaussianEvent(sigma)):
            return pld.from_gaussian_mechanism(sigma, sampling_prob=rate, **about)
        case TruncatedPoissonEvent(rate, n, maximum, GaussianEvent(sigma)):
            return pld.from_truncated_subsampled_gaussian_mechanism(n, rate, maximum, sigma, **about)
    raise ArgumentError("event", event, "has no privacy loss distribution here")


@lru_cache(maxsize=4096)
def _gaussian_epsilon(mu: float, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    return get_epsilon_gaussian(1 / mu, delta) + _ROOT_TOLERANCE
