"""A sampler from outside with a value of its own, which a user gives behind its name, and a sampler
whose event stands in its own file."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sfumato.core.checks import whole
from sfumato.core.keys import SecretKey
from sfumato.privacy import events
from sfumato.privacy.events import Event, Inner, PoissonSampledEvent
from sfumato.sampling import register
from sfumato.sampling.base import Coins


@register("thinned")
@dataclass(frozen=True, kw_only=True)
class Thinned(Coins):
    """Whoever has heads in each of `tosses` tosses takes part: with probability `rate` in all."""

    own: ClassVar[tuple[str, ...]] = ("tosses", "rare")
    sentence: ClassVar[str] = (
        "In each step whoever of the {n} {unit}s has {tosses} heads takes part"
    )
    detail: ClassVar[str] = ", {tosses} tosses"

    tosses: int
    rare: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tosses", self.tosses)

    def indices(self, key: SecretKey, step: int) -> np.ndarray:
        tossed = key.stream("sample", step).random((self.tosses, self.examples))
        return np.flatnonzero((tossed < self.q ** (1 / self.tosses)).all(0))

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return PoissonSampledEvent(self.q, events.independent(mechanism))
