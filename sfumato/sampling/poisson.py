"""Poisson samples."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from sfumato.core.keys import SecretKey
from sfumato.privacy.events import Event, Inner, PoissonSampledEvent, independent
from sfumato.sampling.base import Coins, Sampler, Wanted, register, subset
from sfumato.sampling.full import FullBatch

COIN = "takes part independently with probability q = {rate}"
"""In sentences for the report."""


@register("Poisson")
@dataclass(frozen=True)
class Poisson(Coins):
    """Every example takes part in every step independently with probability `rate`, or `batch_size`
    / n.

    Drawn as a binomial size and a uniform subset of that size, which is the same law in O(rate * n)
    instead of O(n).
    """

    sentence: ClassVar[str] = (
        f"In each step every {{unit}} {COIN} (Poisson sampling, {{size}} {{unit}}s expected)"
    )

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        stream = key.stream("sample", step)
        size = int(stream.binomial(self.examples, self.q))
        return subset(stream, self.examples, size)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        one = independent(mechanism)
        return one if self.q == 1.0 else PoissonSampledEvent(self.q, one)

    @classmethod
    def asked_for(cls, wanted: Wanted) -> Sampler:
        if wanted.batch == wanted.n:
            return FullBatch.asked_for(wanted)
        return super().asked_for(wanted)
