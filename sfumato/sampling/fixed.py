"""Samples of fixed size, without replacement."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import Event, FixedSizeEvent, Inner, independent
from sfumato.privacy.neighbors import ADD_OR_REMOVE
from sfumato.sampling.base import Sampler, Wanted, register, subset


@register("fixed size")
@dataclass(frozen=True)
class WithoutReplacement(Sampler):
    """A uniformly random subset of exactly `batch_size` examples. For replace-one and zero-out
    only."""

    sentence: ClassVar[str] = (
        "In each step {size} of the {n} {unit}s take part, drawn at random without repetition (a "
        "batch of fixed size)"
    )

    batch_size: int
    steps: int
    n: int | None = None

    def __post_init__(self) -> None:
        whole("batch_size", self.batch_size)
        whole("steps", self.steps)
        if self.n is not None and self.batch_size > whole("n", self.n):
            raise ArgumentError("batch_size", self.batch_size, f"give at most n={self.n}")

    @property
    def q(self) -> float:
        return self.batch_size / self.examples

    @property
    def expected_batch_size(self) -> float:
        return float(self.batch_size)

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        return subset(key.stream("sample", step), self.examples, self.batch_size)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return FixedSizeEvent(self.batch_size, self.examples, independent(mechanism))

    def moved(self, n: int) -> Sampler:
        """The same rate, rounded down."""
        return replace(self, n=n, batch_size=max(1, self.batch_size * n // self.examples))

    @classmethod
    def asked_for(cls, wanted: Wanted) -> Sampler:
        if wanted.relation == ADD_OR_REMOVE:
            raise ArgumentError(
                "sampler",
                "fixed",
                "fixed-size batches have no known privacy bound under add-or-remove-one; give "
                "--relation zero-out or replace-one, or another --sampler",
            )
        return cls(wanted.batch, wanted.steps, wanted.n)

    @classmethod
    def read(cls, value: Mapping[str, Any], n: int, steps: int) -> Sampler:
        return cls(int(value["expected_batch_size"]), steps, n)
