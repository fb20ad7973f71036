"""Poisson samples of groups that take turns."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import CyclicPoissonEvent, Event, Inner
from sfumato.sampling.base import Coins, Sampler, Wanted, register
from sfumato.sampling.poisson import COIN, Poisson


@register("cyclic Poisson")
@dataclass(frozen=True)
class CyclicPoisson(Coins):
    """The examples i with i mod `cycle` = t mod `cycle` may take part in step t, each with
    probability `rate`, or `batch_size` * cycle / n.

    Disks are read in `cycle` parts, one after the other. An example's turn comes every `cycle`
    steps only. Its place in the cycle goes by its position, so a neighbor has an empty place, not
    later examples moved up.
    """

    own: ClassVar[tuple[str, ...]] = ("cycle",)
    detail: ClassVar[str] = ", {cycle:,} groups in turn"
    sentence: ClassVar[str] = (
        "The {unit}s stand in {cycle} fixed groups that take turns. In each step every {unit} of one "
        f"group {COIN} (cyclic Poisson sampling, {{size}} {{unit}}s expected; ε counts the group that "
        "had most turns)"
    )
    limits: ClassVar[tuple[str, ...]] = (
        "Whose turn it is. The group with which one {unit} takes turns goes by its position in the "
        "training set, so removing one means leaving its position empty, not moving the later ones up.",
    )

    cycle: int = 1

    def __post_init__(self) -> None:
        whole("cycle", self.cycle)
        if self.n is not None and self.cycle > self.n:
            raise ArgumentError("cycle", self.cycle, f"give at most n={self.n} groups")
        if self.batch_size is not None and self.n is not None:
            object.__setattr__(self, "rate", _rate(self.batch_size, self.n, self.cycle))
            object.__setattr__(self, "batch_size", None)
        super().__post_init__()

    @property
    def expected_batch_size(self) -> float:
        """On average over the groups, which differ in size by one at most."""
        return self.q * self.examples / self.cycle

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        phase = step % self.cycle
        members = len(range(phase, self.examples, self.cycle))
        return phase + self.cycle * Poisson(self.q, self.steps, members).indices(key, step)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return CyclicPoissonEvent(self.q, self.cycle, step % self.cycle, mechanism)

    def moved(self, n: int) -> Sampler:
        return replace(self, n=n, cycle=min(self.cycle, n))

    @classmethod
    def asked_for(cls, wanted: Wanted) -> Sampler:
        cycle = wanted.given.get("cycle")
        if cycle is None:
            raise ArgumentError(
                "cycle", None, "--sampler cyclic needs a number of groups; give --cycle K"
            )
        return cls(
            _rate(wanted.batch, wanted.n, whole("cycle", cycle)), wanted.steps, wanted.n, cycle
        )


def _rate(batch_size: int, n: int, cycle: int) -> float:
    if batch_size * cycle > n:
        raise ArgumentError(
            "cycle",
            cycle,
            f"a group of n / cycle = {n / cycle:.4g} examples has no batches of {batch_size}; give "
            f"at most {n // batch_size} groups, or a smaller --batch",
        )
    return batch_size * cycle / n
