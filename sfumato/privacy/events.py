"""Events: frozen facts about what one release does to privacy. Nothing here computes an epsilon.

Whoever samples and whoever adds noise state the event they may claim; the ledger stores it;
accountants compose it. Two data sets are neighbors when one has exactly one example more
(add-or-remove-one), when one example of it contributes nothing (zero-out), or when one example of
it is another (replace-one). An event is a fact about a mechanism, not about a relation: an
accountant is told the relation and prices the same event accordingly (`privacy/relations.py`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sfumato.core.checks import positive, probability, whole
from sfumato.core.errors import ArgumentError, LedgerError


@dataclass(frozen=True, order=True)
class GaussianEvent:
    """A sum over all examples, each moving it by at most S in L2 norm, plus N(0, (noise_multiplier
    * S)^2) per number."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("noise_multiplier", self.noise_multiplier)


@dataclass(frozen=True, order=True)
class BandedGaussianEvent:
    """A step of correlated noise (`noise/banded.py`): what one step adds shows, in part, for
    `bands` steps.

    It has a price only where no example takes part twice within `bands` steps: inside of a
    CyclicPoissonEvent.
    """

    noise_multiplier: float
    bands: int

    def __post_init__(self) -> None:
        positive("noise_multiplier", self.noise_multiplier)
        whole("bands", self.bands)


@dataclass(frozen=True, order=True)
class PoissonSampledEvent:
    """`event` applied to a random subset in which every example is, independently, with probability
    `rate`."""

    rate: float
    event: GaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        independent(self.event)


@dataclass(frozen=True, order=True)
class SelectedEvent:
    """The best of K runs of `event`, and nothing of the others; K secret, from the logarithmic law
    of mean `mean`."""

    event: GaussianEvent
    mean: float

    def __post_init__(self) -> None:
        if not (positive("mean", self.mean) > 1 and isinstance(self.event, GaussianEvent)):
            raise ArgumentError(
                "mean", self.mean, "give a mean number of runs greater than 1, of a GaussianEvent"
            )


@dataclass(frozen=True, order=True)
class TruncatedPoissonEvent:
    """A Poisson sample of n examples, of which a uniformly random `maximum` is kept if it has more."""

    rate: float
    n: int
    maximum: int
    event: GaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        whole("maximum", self.maximum)
        whole("n", self.n)
        independent(self.event)


@dataclass(frozen=True, order=True)
class CyclicPoissonEvent:
    """Examples stand in `cycle` fixed groups; `event` applied to a Poisson sample of group `phase`
    alone."""

    rate: float
    cycle: int
    phase: int
    event: GaussianEvent | BandedGaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        if not 0 <= whole("phase", self.phase, at_least=0) < whole("cycle", self.cycle):
            raise ArgumentError("phase", self.phase, f"give a group from 0 to {self.cycle - 1}")
        if not isinstance(self.event, BandedGaussianEvent):
            independent(self.event)
        elif self.event.bands > self.cycle:
            raise ArgumentError(
                "bands",
                self.event.bands,
                f"an example's turns come every {self.cycle} steps; give at most "
                "that many, or a longer cycle",
            )


@dataclass(frozen=True, order=True)
class FixedSizeEvent:
    """`event` applied to a uniformly random subset of exactly `size` of n examples. n is public."""

    size: int
    n: int
    event: GaussianEvent

    def __post_init__(self) -> None:
        if whole("size", self.size) > whole("n", self.n):
            raise ArgumentError("size", self.size, f"give at most n={self.n}")
        independent(self.event)


def independent(event: object) -> GaussianEvent:
    """The event itself. Raises ArgumentError for any other than a Gaussian one, which would be
    priced as if it were one."""
    if not isinstance(event, GaussianEvent):
        raise ArgumentError(
            "event", event, "give a GaussianEvent; correlated noise needs a cyclic sampler"
        )
    return event


Inner = GaussianEvent | BandedGaussianEvent
"""What a mechanism claims for one step, before sampling."""

Event = (
    GaussianEvent
    | PoissonSampledEvent
    | SelectedEvent
    | TruncatedPoissonEvent
    | CyclicPoissonEvent
    | FixedSizeEvent
)
Tally = Mapping[Event, int]
"""How often each event happened. Composition of these events does not depend on their order."""


def to_json(event: Event | Inner) -> dict[str, Any]:
    match event:
        case GaussianEvent(noise_multiplier):
            return {"kind": "gaussian", "noise_multiplier": noise_multiplier}
        case BandedGaussianEvent(noise_multiplier, bands):
            return {"kind": "banded-gaussian", "noise_multiplier": noise_multiplier, "bands": bands}
        case PoissonSampledEvent(rate, inner):
            return {"kind": "poisson", "rate": rate, "event": to_json(inner)}
        case SelectedEvent(inner, mean):
            return {"kind": "selected", "mean": mean, "event": to_json(inner)}
        case TruncatedPoissonEvent() | CyclicPoissonEvent() | FixedSizeEvent():
            own = {name: kind(getattr(event, name)) for name, kind in _numbers(type(event)).items()}
            return {"kind": _KINDS[type(event)], **own, "event": to_json(event.event)}


def from_json(value: Any) -> Event:
    """The inverse of `to_json`. Raises LedgerError on anything else: an unknown event must never be
    counted as nothing."""
    event = _from_json(value)
    if event is None or isinstance(event, BandedGaussianEvent):
        raise LedgerError(
            f"event={value!r}: not an event this version can account for; use the version that wrote it"
        )
    return event


def _from_json(value: Any) -> Event | Inner | None:
    match value:
        case {"kind": "gaussian", "noise_multiplier": float() | int() as sigma, **rest} if not rest:
            return GaussianEvent(float(sigma))
        case {
            "kind": "banded-gaussian",
            "noise_multiplier": float() | int() as sigma,
            "bands": bands,
            **rest,
        } if not rest:
            return BandedGaussianEvent(float(sigma), bands)
        case {"kind": "poisson", "rate": float() | int() as rate, "event": inner, **rest} if (
            not rest
        ):
            event = _from_json(inner)
            if isinstance(event, GaussianEvent):
                return PoissonSampledEvent(float(rate), event)
        case {"kind": "selected", "mean": float() | int() as mean, "event": inner, **rest} if (
            not rest
        ):
            event = _from_json(inner)
            if isinstance(event, GaussianEvent):
                return SelectedEvent(event, float(mean))
        case {
            "kind": "truncated-poisson" | "cyclic-poisson" | "fixed-size" as name,
            "event": inner,
            **rest,
        }:
            event, made = _from_json(inner), next(made for made in _KINDS if _KINDS[made] == name)
            kinds = _numbers(made)
            right = set(rest) == set(kinds) and all(
                type(rest[each]) in (int, kind) for each, kind in kinds.items()
            )
            fits = isinstance(event, GaussianEvent) or (
                isinstance(event, BandedGaussianEvent) and made is CyclicPoissonEvent
            )
            if fits and right:
                return made(**{each: kind(rest[each]) for each, kind in kinds.items()}, event=event)
    return None


_KINDS: dict[Any, str] = {
    TruncatedPoissonEvent: "truncated-poisson",
    CyclicPoissonEvent: "cyclic-poisson",
    FixedSizeEvent: "fixed-size",
}


def _numbers(event: Any) -> dict[str, Any]:
    """The fields of an event but for the inner one, and their types."""
    return {each.name: each.type for each in fields(event) if each.name != "event"}


def noise_of(event: Event) -> float:
    """The noise multiplier of the Gaussian inside."""
    return (
        event.noise_multiplier if isinstance(event, GaussianEvent) else event.event.noise_multiplier
    )


def bands_of(event: Event) -> int:
    """Over how many steps the noise inside is correlated; 1 if it is independent."""
    inner = event if isinstance(event, GaussianEvent) else event.event
    return inner.bands if isinstance(inner, BandedGaussianEvent) else 1


def rate_of(event: Event) -> float | None:
    """With what probability an example that may take part does; None for all examples. (A truncated
    sample holds it a little less often.)
    """
    match event:
        case PoissonSampledEvent(rate) | TruncatedPoissonEvent(rate) | CyclicPoissonEvent(rate):
            return rate
        case FixedSizeEvent(size, n):
            return size / n
    return None


def with_noise(event: Event, noise_multiplier: float) -> Event:
    """The same event, sampled or selected as it is, with another noise multiplier."""
    if isinstance(event, GaussianEvent):
        return replace(event, noise_multiplier=noise_multiplier)
    inner: Any = replace(event.event, noise_multiplier=noise_multiplier)
    return replace(event, event=inner)


def tally(*parts: tuple[Event, int]) -> Counter[Event]:
    """A tally from (event, count) pairs; equal events add up."""
    total: Counter[Event] = Counter()
    for event, count in parts:
        total[event] += count
    return total
