"""What a computation will release, stated before it begins: for the plan, the budget and the
report."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sfumato.privacy import events
from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent, SelectedEvent, Tally
from sfumato.privacy.not_private import NotPrivateEvent


@dataclass(frozen=True)
class Release:
    """A kind of release: how often, the event that the first of them is, and what it is, in words
    for the report.

    The others are the same event, but for groups that take turns.
    """

    name: str
    count: int
    event: Event
    what: str

    def event_at(self, k: int) -> Event:
        """Of the k-th of these releases, from 0."""
        return self.event.at(k)

    @property
    def tally(self) -> Tally:
        """All of them. Groups that take turns differ by one at most."""
        turns = min(self.event.turns, self.count)
        return events.tally(
            *((self.event_at(k), len(range(k, self.count, turns))) for k in range(turns))
        )

    @property
    def noise_multiplier(self) -> float:
        return self.event.noise_multiplier

    @property
    def rate(self) -> float | None:
        return self.event.rate

    @property
    def selected(self) -> float | None:
        """If it is the best of several that stay secret, how many these are on average."""
        return self.event.selected

    def unprotected(self, noise_multiplier: float = 0.0) -> "Release":
        """In its place one that promises nothing, with this noise, or with neither noise nor clip."""
        what = self.what if noise_multiplier else self.what.replace("clipped ", "")
        return replace(self, event=NotPrivateEvent(self.event, noise_multiplier), what=what)

    def with_noise(self, noise_multiplier: float) -> "Release":
        return replace(self, event=self.event.with_noise(noise_multiplier))

    def to_json(self) -> dict[str, Any]:
        """With the numbers that people look for beside the event that they come from."""
        shown = {
            name: getattr(self, name)
            for name in ("name", "count", "noise_multiplier", "rate", "selected", "what")
        }
        return shown | {"event": events.to_json(self.event)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Release":
        """The inverse of `to_json`. Older plans have no event: all they could have is told by the
        numbers."""
        if "event" in value:
            event = events.from_json(value["event"])
        else:
            event = GaussianEvent(value["noise_multiplier"])
            if value["selected"] is not None:
                event = SelectedEvent(event, value["selected"])
            elif value["rate"] is not None:
                event = PoissonSampledEvent(value["rate"], event)
        return cls(value["name"], value["count"], event, value["what"])


def tally_of(releases: Iterable[Release]) -> Tally:
    """All of them as events."""
    total: Counter[Event] = Counter()
    for release in releases:
        total.update(release.tally)
    return total
