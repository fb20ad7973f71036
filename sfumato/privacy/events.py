"""Events: frozen facts about what one release does to privacy. Nothing here computes an epsilon.

Whoever samples and whoever adds noise state the event they may claim; the ledger stores it; accountants compose it.
All events are for the add-or-remove-one relation: two data sets are neighbours when one has exactly one example more.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato.core.checks import positive, probability
from sfumato.core.errors import ArgumentError, LedgerError


@dataclass(frozen=True, order=True)
class GaussianEvent:
    """A sum over all examples, each moving it by at most S in L2 norm, plus N(0, (noise_multiplier * S)^2) per number."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("noise_multiplier", self.noise_multiplier)


@dataclass(frozen=True, order=True)
class PoissonSampledEvent:
    """`event` applied to a random subset in which every example is, independently, with probability `rate`."""

    rate: float
    event: GaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        if not isinstance(self.event, GaussianEvent):  # anything else would be counted as nothing when rate = 1
            raise ArgumentError("event", self.event, "give a GaussianEvent")


@dataclass(frozen=True, order=True)
class SelectedEvent:
    """The best of K runs of `event`, and nothing of the others; K secret, from the logarithmic law of mean `mean`."""

    event: GaussianEvent
    mean: float

    def __post_init__(self) -> None:
        if not (positive("mean", self.mean) > 1 and isinstance(self.event, GaussianEvent)):
            raise ArgumentError("mean", self.mean, "give a mean number of runs greater than 1, of a GaussianEvent")


Event = GaussianEvent | PoissonSampledEvent | SelectedEvent
Tally = Mapping[Event, int]
"""How often each event happened. Composition of these events does not depend on their order."""


def to_json(event: Event) -> dict[str, Any]:
    match event:
        case GaussianEvent(noise_multiplier):
            return {"kind": "gaussian", "noise_multiplier": noise_multiplier}
        case PoissonSampledEvent(rate, inner):
            return {"kind": "poisson", "rate": rate, "event": to_json(inner)}
        case SelectedEvent(inner, mean):
            return {"kind": "selected", "mean": mean, "event": to_json(inner)}


def from_json(value: Any) -> Event:
    """The inverse of `to_json`. Raises LedgerError on anything else: an unknown event must never be counted as nothing."""
    match value:
        case {"kind": "gaussian", "noise_multiplier": float() | int() as sigma, **rest} if not rest:
            return GaussianEvent(float(sigma))
        case {"kind": "poisson", "rate": float() | int() as rate, "event": inner, **rest} if not rest:
            event = from_json(inner)
            if isinstance(event, GaussianEvent):
                return PoissonSampledEvent(float(rate), event)
        case {"kind": "selected", "mean": float() | int() as mean, "event": inner, **rest} if not rest:
            event = from_json(inner)
            if isinstance(event, GaussianEvent):
                return SelectedEvent(event, float(mean))
    raise LedgerError(f"event={value!r}: not an event this version can account for; use the version that wrote it")


def tally(*parts: tuple[Event, int]) -> Counter[Event]:
    """A tally from (event, count) pairs; equal events add up."""
    total: Counter[Event] = Counter()
    for event, count in parts:
        total[event] += count
    return total
