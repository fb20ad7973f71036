"""What a computation will release, stated before it begins: for the plan, the budget and the report."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent, Tally


@dataclass(frozen=True)
class Release:
    """A kind of release: how often, with what noise, and what it is, in words for the report. rate: None for all examples."""

    name: str
    count: int
    noise_multiplier: float
    rate: float | None
    what: str

    @property
    def event(self) -> Event:
        gaussian = GaussianEvent(self.noise_multiplier)
        return gaussian if self.rate is None else PoissonSampledEvent(self.rate, gaussian)


def tally_of(releases: Iterable[Release]) -> Tally:
    """All of them as events."""
    total: Counter[Event] = Counter()
    for release in releases:
        total[release.event] += release.count
    return total
