"""A sampler from outside, with an event of its own: one example of each stratum."""

from dataclasses import dataclass
from typing import Any, ClassVar

import dp_accounting
import numpy as np

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy import events
from sfumato.privacy.events import Event, GaussianEvent, Inner, Sampled
from sfumato.privacy.neighbors import REPLACE_ONE, ZERO_OUT, Relation
from sfumato.sampling import Sampler, register


@events.register("stratified")
@dataclass(frozen=True, order=True)
class StratifiedEvent(Sampled):
    """n examples stand in `strata` strata, i in that of i mod `strata`; `event` applied to one
    uniformly random example of each.

    To an example it is a sample of size 1 of its own stratum, the smallest of which has n // strata.
    """

    renyi_only: ClassVar[str] = "Wang et al. 2019"

    strata: int
    n: int
    event: GaussianEvent

    def __post_init__(self) -> None:
        if whole("strata", self.strata) > whole("n", self.n):
            raise ArgumentError("strata", self.strata, f"give at most n={self.n}")
        events.independent(self.event)

    @property
    def rate(self) -> float:
        return 1 / (self.n // self.strata)

    @property
    def words(self) -> str:
        return f"{self.event.noise_words}, one example of each of {self.strata} strata"

    def renyi_relation(self, relation: Relation) -> Relation:
        return REPLACE_ONE if relation == ZERO_OUT else relation

    def renyi_event(self, relation: Relation) -> Any:
        one = self.event.renyi_event(relation)
        return dp_accounting.SampledWithoutReplacementDpEvent(self.n // self.strata, 1, one)


@register("stratified")
@dataclass(frozen=True)
class Stratified(Sampler):
    """One example of each of `batch_size` strata."""

    sentence: ClassVar[str] = "In each step one {unit} of each of {size} strata takes part"
    limits: ClassVar[tuple[str, ...]] = ("Which stratum one {unit} stands in.",)

    batch_size: int
    steps: int
    n: int | None = None

    @property
    def q(self) -> float:
        return self.batch_size / self.examples

    def indices(self, key: SecretKey, step: int) -> np.ndarray:
        first, stream = np.arange(self.batch_size), key.stream("sample", step)
        sizes = -((first - self.examples) // self.batch_size)
        return np.sort(first + self.batch_size * stream.integers(0, sizes))

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return StratifiedEvent(self.batch_size, self.examples, events.independent(mechanism))

    @classmethod
    def read(cls, value: Any, n: int, steps: int) -> Sampler:
        return cls(int(value["expected_batch_size"]), steps, n)
