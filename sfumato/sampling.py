"""Who takes part in step t. Each sampler states the event it may claim; it is a pure function of (secret key, t).

The denominator of an average is `expected_batch_size`, a public constant: the realised size depends on the private data
set only through n, which is public, and on the secret coin flips, but dividing by it would cost sensitivity.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import probability, whole
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent


@runtime_checkable
class Sampler(Protocol):
    """What a procedure needs of a sampler."""

    n: int
    steps: int

    @property
    def expected_batch_size(self) -> float: ...
    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, "b"]: ...
    def event(self, mechanism: GaussianEvent) -> Event: ...


@dataclass(frozen=True)
class Poisson:
    """Every example takes part in every step independently with probability `rate`.

    Drawn as a binomial size and a uniform subset of that size, which is the same law in O(rate * n) instead of O(n).
    """

    rate: float
    steps: int
    n: int

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        whole("steps", self.steps)
        whole("n", self.n)

    @property
    def expected_batch_size(self) -> float:
        return self.rate * self.n

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, "b"]:
        """The members of batch `step`, ascending; possibly none."""
        stream = key.stream("sample", step)
        size = int(stream.binomial(self.n, self.rate))
        return np.sort(stream.choice(self.n, size, replace=False, shuffle=False))

    def event(self, mechanism: GaussianEvent) -> Event:
        return mechanism if self.rate == 1.0 else PoissonSampledEvent(self.rate, mechanism)


@dataclass(frozen=True)
class FullBatch:
    """Every example takes part in every step: no amplification, and composition is exact."""

    steps: int
    n: int

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("n", self.n)

    @property
    def expected_batch_size(self) -> float:
        return float(self.n)

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, "b"]:
        return np.arange(self.n)

    def event(self, mechanism: GaussianEvent) -> Event:
        return mechanism
