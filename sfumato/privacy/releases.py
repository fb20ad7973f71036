"""What a computation will release, stated before it begins: for the plan, the budget and the report."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent, SelectedEvent, Tally


@dataclass(frozen=True)
class Release:
    """A kind of release: how often, with what noise, and what it is, in words for the report.

    rate: None for all examples. selected: if it is the best of several that stay secret, how many these are on average.
    """

    name: str
    count: int
    noise_multiplier: float
    rate: float | None
    what: str
    selected: float | None = None

    @property
    def event(self) -> Event:
        gaussian = GaussianEvent(self.noise_multiplier)
        if self.selected is not None:
            return SelectedEvent(gaussian, self.selected)
        return gaussian if self.rate is None else PoissonSampledEvent(self.rate, gaussian)


def tally_of(releases: Iterable[Release]) -> Tally:
    """All of them as events."""
    total: Counter[Event] = Counter()
    for release in releases:
        total[release.event] += release.count
    return total
