"""(epsilon, delta) of a tally of events, always from above, through the released `dp-accounting`.

Full-batch Gaussian releases compose exactly: adaptive releases with noise multipliers s_1 ... s_k are together as private
as one release with multiplier (sum_i s_i^-2)^(-1/2), i.e. mu-GDP with mu^2 = sum_i s_i^-2 (Dong, Roth, Su 2019, Cor. 3.3),
and epsilon(delta) of one Gaussian is known in closed form up to a root search (Balle & Wang 2018, Thm. 8). As soon as one
event is subsampled, the privacy loss distributions are discretised pessimistically and composed by FFT (PLD; Koskela et
al. 2020, Doroshenko et al. 2022), the plain Gaussians first merged into one. A selected event, the best of several runs, is
known by its Rényi divergences (Papernot & Steinke 2022, arXiv 2110.03620, Thm. 2), and all that is with it is composed there.
"""

import importlib.metadata
import math
from functools import lru_cache
from typing import Any

from sfumato.core.checks import positive, whole
from sfumato.core.errors import ArgumentError
from sfumato.privacy import relations
from sfumato.privacy.events import Event, FixedSizeEvent, GaussianEvent, PoissonSampledEvent, SelectedEvent, Tally

PLD_INTERVAL = 1e-4
"""Spacing of the discretised privacy loss; the library errs above the truth at any spacing (connect the dots)."""

_ORDERS = [1 + k / 10 for k in range(1, 100)] + list(range(11, 64)) + [round(64 * 1.12**k) for k in range(45)]
"""Rényi orders: any set is valid, more of them are tighter; up to 9,000 for small epsilon."""

_ROOT_TOLERANCE = 1e-10
"""The library finds epsilon of one Gaussian by a root search to 1e-12; this much is added so that we err above."""

Sampled = tuple[tuple[PoissonSampledEvent, int], ...]
"""Events and how often each of them happened."""


def gaussian_mu(tally: Tally) -> float:
    """mu of the plain Gaussian events in the tally: sqrt(sum of count / sigma^2)."""
    terms = [count / event.noise_multiplier**2 for event, count in tally.items() if isinstance(event, GaussianEvent)]
    return math.sqrt(math.fsum(terms))


def epsilon(
    tally: Tally, delta: float, interval: float = PLD_INTERVAL, relation: relations.Relation = relations.ADD_OR_REMOVE
) -> float:
    """An epsilon such that the composition of `tally` is (epsilon, delta)-DP under `relation`. An empty tally costs 0."""
    _check_delta(delta)
    if relation != relations.ADD_OR_REMOVE or any(isinstance(event, relations.OTHER_EVENTS) for event in tally):
        return relations.epsilon(tally, delta, relation, interval)
    selected = tuple(sorted((event, count) for event, count in tally.items() if isinstance(event, SelectedEvent) and count))
    mu, sampled = _canonical({event: count for event, count in tally.items() if not isinstance(event, SelectedEvent)})
    if selected:
        return _selected_epsilon(mu, sampled, selected, delta)
    if not sampled:
        return _gaussian_epsilon(mu, delta) if mu > 0 else 0.0
    return _sampled_epsilon(mu, sampled, delta, interval)


def describe(tally: Tally) -> str:
    """The accountant that `epsilon` uses for this tally, in words for the report."""
    version = importlib.metadata.version("dp-accounting")
    if any(isinstance(event, SelectedEvent) for event in tally):
        return f"Rényi differential privacy with the bound of Papernot & Steinke 2022, by dp-accounting {version}"
    if any(isinstance(event, FixedSizeEvent) for event in tally):
        return f"Rényi differential privacy with the bound of Wang et al. 2019, by dp-accounting {version}"
    if not all(isinstance(event, GaussianEvent) for event in tally):
        return f"PLD (privacy loss distribution) by dp-accounting {version}, discretised pessimistically at {PLD_INTERVAL:g}"
    return f"exact Gaussian composition, by dp-accounting {version}"


def _canonical(tally: Tally) -> tuple[float, Sampled]:
    """Merge plain Gaussians into mu and sort the rest, so that equal compositions give equal numbers to the last bit."""
    plain: dict[Event, int] = {}
    sampled: dict[PoissonSampledEvent, int] = {}
    for event, count in tally.items():
        whole("count", count, at_least=0)
        match event:
            case GaussianEvent():
                plain[event] = plain.get(event, 0) + count
            case PoissonSampledEvent(rate, inner) if rate == 1.0:
                plain[inner] = plain.get(inner, 0) + count
            case PoissonSampledEvent():
                sampled[event] = sampled.get(event, 0) + count
            case _:
                raise ArgumentError("event", event, "give an event from sfumato.privacy.events")
    return gaussian_mu(plain), tuple(sorted((event, count) for event, count in sampled.items() if count))


@lru_cache(maxsize=4096)
def _gaussian_epsilon(mu: float, delta: float) -> float:
    from dp_accounting import get_epsilon_gaussian

    return get_epsilon_gaussian(1 / mu, delta) + _ROOT_TOLERANCE


@lru_cache(maxsize=4096)
def _sampled_epsilon(mu: float, sampled: Sampled, delta: float, interval: float) -> float:
    from dp_accounting import pld

    return float(_composed(pld.PLDAccountant(value_discretization_interval=interval), mu, sampled, ()).get_epsilon(delta))


@lru_cache(maxsize=4096)
def _selected_epsilon(mu: float, sampled: Sampled, selected: tuple[tuple[SelectedEvent, int], ...], delta: float) -> float:
    from dp_accounting import rdp

    return float(_composed(rdp.RdpAccountant(orders=_ORDERS), mu, sampled, selected).get_epsilon(delta))


def _composed(accountant: Any, mu: float, sampled: Sampled, selected: tuple[tuple[SelectedEvent, int], ...]) -> Any:
    """The library's accountant, with all of these composed."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.dp_event import RepeatAndSelectDpEvent

    if mu > 0:
        accountant.compose(GaussianDpEvent(1 / mu))
    for event, count in sampled:
        accountant.compose(PoissonSampledDpEvent(event.rate, GaussianDpEvent(event.event.noise_multiplier)), count)
    for chosen, count in selected:
        accountant.compose(RepeatAndSelectDpEvent(GaussianDpEvent(chosen.event.noise_multiplier), chosen.mean, 0), count)
    return accountant


def _check_delta(delta: float) -> None:
    positive("delta", delta)
    if delta >= 1:
        raise ArgumentError("delta", delta, "give a number below 1")
