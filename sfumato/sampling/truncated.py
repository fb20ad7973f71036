"""Poisson samples that are cut where they would be too large."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import Event, Inner, TruncatedPoissonEvent, independent
from sfumato.sampling.base import Coins, Sampler, Wanted, register, subset
from sfumato.sampling.poisson import COIN, Poisson

ROOM = 5.0
"""Standard deviations above its mean at which a batch is cut, where nobody says otherwise: nobody
notices."""


@register("truncated Poisson")
@dataclass(frozen=True)
class TruncatedPoisson(Coins):
    """A Poisson sample, of which a uniformly random `maximum` is kept if it has more: batches that
    fit a device for certain. maximum=None: five standard deviations above the mean.

    Truncation lets one example push out another, which costs privacy; the event says so, and is
    priced with it. At `maximum` five standard deviations above the mean the price cannot be seen,
    at the mean itself it is ruinous.
    """

    own: ClassVar[tuple[str, ...]] = ("maximum",)
    detail: ClassVar[str] = ", at most {maximum:,}"
    sentence: ClassVar[str] = (
        f"In each step every {{unit}} {COIN} (Poisson sampling, {{size}} {{unit}}s expected; of more "
        "than {maximum}, that many are kept at random; ε includes what this costs)"
    )

    maximum: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maximum is not None:
            whole("maximum", self.maximum)
        elif self.n is not None:
            object.__setattr__(self, "maximum", _room(self.q * self.n, self.q, self.n))

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        stream = key.stream("sample", step)
        size = min(int(stream.binomial(self.examples, self.q)), self._known("maximum"))
        return subset(stream, self.examples, size)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        maximum = self._known("maximum")
        if maximum >= self.examples:
            return Poisson(self.q, self.steps, self.examples).event(mechanism)
        return TruncatedPoissonEvent(self.q, self.examples, maximum, independent(mechanism))

    def moved(self, n: int) -> Sampler:
        """Each example more can fill one place more."""
        return replace(self, n=n, maximum=self._known("maximum") + max(0, n - self.examples))

    @classmethod
    def asked_for(cls, wanted: Wanted) -> Sampler:
        batch, n, maximum = wanted.batch, wanted.n, wanted.given.get("truncate")
        if batch == n:
            raise ArgumentError(
                "batch",
                batch,
                "--sampler truncated cuts random batches, and this one holds everybody; give a "
                "smaller --batch, or --sampler full",
            )
        maximum = _room(batch, batch / n, n) if maximum is None else whole("truncate", maximum)
        return cls(batch / n, wanted.steps, n, maximum)


def _room(mean: float, rate: float, n: int) -> int:
    return min(n, math.ceil(mean + ROOM * math.sqrt(mean * (1 - rate))))
