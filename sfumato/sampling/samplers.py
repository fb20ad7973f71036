"""Who takes part in step t. Each sampler states the event it may claim; it is a pure function of
(secret key, t).

So any step's batch can be drawn at any time, in any order, again after a crash, and nothing is
stored between steps.

The denominator of an average is `expected_batch_size`, a public constant: the realized size depends
on the private data set only through n, which is public, and on the secret coin flips, but dividing
by it would cost sensitivity.

Memory and time are those of the batch at any n, as long as it holds less than a fiftieth of all
examples.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import positive, probability, whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import (
    CyclicPoissonEvent,
    Event,
    FixedSizeEvent,
    Inner,
    PoissonSampledEvent,
    TruncatedPoissonEvent,
    independent,
)


@runtime_checkable
class Sampler(Protocol):
    """What a procedure needs of a sampler. event: what the release of this step costs."""

    @property
    def n(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def expected_batch_size(self) -> float: ...
    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]: ...
    def event(self, mechanism: Inner, step: int = 0) -> Event: ...
    def on(self, n: int) -> "Sampler": ...


UNBOUND = 0
"""n of a sampler that is not told yet how many examples there are (see `on`)."""


def _same(sampler: Any, n: int) -> Any:
    if sampler.n != n:
        raise ArgumentError(
            "sampler", sampler, f"is for n={sampler.n} examples and there are {n}; leave n out"
        )
    return sampler


def _subset(stream: np.random.Generator, n: int, size: int) -> Int64[np.ndarray, " b"]:
    """A uniformly random set of `size` of the numbers 0 .. n-1, ascending."""
    return np.sort(stream.choice(n, size, replace=False, shuffle=False))


@dataclass(frozen=True)
class Poisson:
    """Every example takes part in every step independently with probability `rate`: of n examples,
    or with `batch_size` expected of whatever number `on` is told.

    Drawn as a binomial size and a uniform subset of that size, which is the same law in O(rate * n)
    instead of O(n).
    """

    rate: float = UNBOUND
    steps: int = UNBOUND
    n: int = UNBOUND
    batch_size: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        if self.batch_size is not None:
            positive("batch_size", self.batch_size)
        else:
            probability("rate", self.rate)
            whole("n", self.n)

    def on(self, n: int) -> "Poisson":
        """This sampler for n examples. Raises ArgumentError where it is for another number, or its
        batch is larger."""
        if self.batch_size is None:
            return _same(self, n)
        if self.batch_size > n:
            raise ArgumentError(
                "batch_size", self.batch_size, f"there are {n} examples; give at most that many"
            )
        return Poisson(self.batch_size / n, self.steps, n)

    @property
    def expected_batch_size(self) -> float:
        return self.rate * self.n

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        """The members of batch `step`, ascending; possibly none."""
        stream = key.stream("sample", step)
        size = int(stream.binomial(self.n, self.rate))
        return _subset(stream, self.n, size)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        one = independent(mechanism)
        return one if self.rate == 1.0 else PoissonSampledEvent(self.rate, one)


@dataclass(frozen=True)
class TruncatedPoisson:
    """A Poisson sample, of which a uniformly random `maximum` is kept if it has more: batches that
    fit a device for certain.

    Truncation lets one example push out another, which costs privacy; the event says so, and is
    priced with it. At `maximum` five standard deviations above the mean the price cannot be seen,
    at the mean itself it is ruinous.
    """

    rate: float
    steps: int
    n: int
    maximum: int

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        for name in ("steps", "n", "maximum"):
            whole(name, getattr(self, name))

    def on(self, n: int) -> "TruncatedPoisson":
        """This sampler. Raises ArgumentError where it is not for n examples."""
        return _same(self, n)

    @property
    def expected_batch_size(self) -> float:
        return self.rate * self.n

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        stream = key.stream("sample", step)
        size = min(int(stream.binomial(self.n, self.rate)), self.maximum)
        return _subset(stream, self.n, size)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        if self.maximum >= self.n:
            return Poisson(self.rate, self.steps, self.n).event(mechanism)
        return TruncatedPoissonEvent(self.rate, self.n, self.maximum, independent(mechanism))


@dataclass(frozen=True)
class CyclicPoisson:
    """The examples i with i mod `cycle` = t mod `cycle` may take part in step t, each with
    probability `rate`.

    Disks are read in `cycle` parts, one after the other. An example's turn comes every `cycle`
    steps only. Its place in the cycle goes by its position, so a neighbor has an empty place, not
    later examples moved up.
    """

    rate: float
    steps: int
    n: int
    cycle: int

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        for name in ("steps", "n", "cycle"):
            whole(name, getattr(self, name))
        if self.cycle > self.n:
            raise ArgumentError("cycle", self.cycle, f"give at most n={self.n} groups")

    def on(self, n: int) -> "CyclicPoisson":
        """This sampler. Raises ArgumentError where it is not for n examples."""
        return _same(self, n)

    @property
    def expected_batch_size(self) -> float:
        """On average over the groups, which differ in size by one at most."""
        return self.rate * self.n / self.cycle

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        phase = step % self.cycle
        members = len(range(phase, self.n, self.cycle))
        return phase + self.cycle * Poisson(self.rate, self.steps, members).indices(key, step)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return CyclicPoissonEvent(self.rate, self.cycle, step % self.cycle, mechanism)


@dataclass(frozen=True)
class FixedSize:
    """A uniformly random subset of exactly `size` examples, without replacement. For replace-one
    and zero-out only."""

    size: int
    steps: int
    n: int

    def __post_init__(self) -> None:
        for name in ("size", "steps", "n"):
            whole(name, getattr(self, name))
        if self.size > self.n:
            raise ArgumentError("size", self.size, f"give at most n={self.n}")

    def on(self, n: int) -> "FixedSize":
        """This sampler. Raises ArgumentError where it is not for n examples."""
        return _same(self, n)

    @property
    def rate(self) -> float:
        return self.size / self.n

    @property
    def expected_batch_size(self) -> float:
        return float(self.size)

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        return _subset(key.stream("sample", step), self.n, self.size)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return FixedSizeEvent(self.size, self.n, independent(mechanism))


@dataclass(frozen=True)
class FullBatch:
    """Every example takes part in every step: no amplification, and composition is exact."""

    steps: int
    n: int = UNBOUND

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        whole("n", self.n, at_least=UNBOUND)

    def on(self, n: int) -> "FullBatch":
        """This sampler for n examples. Raises ArgumentError where it is for another number."""
        return FullBatch(self.steps, n) if self.n == UNBOUND else _same(self, n)

    @property
    def expected_batch_size(self) -> float:
        return float(self.n)

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        return np.arange(self.n)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return independent(mechanism)


def moved(sampler: Any, n: int) -> Any:
    """The same sampler for n examples: the same rate (of a fixed size, rounded down), and batches
    are cut no more often.

    For an audit, whose claim is that of the sampler it began with.
    """
    match sampler:
        case TruncatedPoisson(maximum=maximum):  # each example more can fill one place more
            return replace(sampler, n=n, maximum=maximum + max(0, n - sampler.n))
        case CyclicPoisson(cycle=cycle):
            return replace(sampler, n=n, cycle=min(cycle, n))
        case FixedSize(size):
            return replace(sampler, n=n, size=max(1, size * n // sampler.n))
    return replace(sampler, n=n)
