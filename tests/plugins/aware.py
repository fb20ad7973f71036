"""A sampler as one of the package would be: its event stands in its own file, and nothing imports
that file but the registry."""

from dataclasses import dataclass

from sfumato.privacy import events
from sfumato.privacy.events import Event, Inner, PoissonSampledEvent
from sfumato.sampling import Poisson, register


@events.register("aware")
@dataclass(frozen=True, order=True)
class AwareEvent(PoissonSampledEvent):
    """Poisson sampling by another name."""


@register("aware")
@dataclass(frozen=True)
class Aware(Poisson):
    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return AwareEvent(self.q, events.independent(mechanism))
