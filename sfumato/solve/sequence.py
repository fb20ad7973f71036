"""A procedure as a list of stages, for solvers that are little more than: measure this, digest
that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import PyTree

from sfumato.clip import BoundedSum
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.features.heads import SphereLinear
from sfumato.noise import Gaussian
from sfumato.privacy.events import Event
from sfumato.privacy.releases import Release
from sfumato.sampling import Poisson

State = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One kind of release, made `release.count` times in a row.

    measure: (state, indices) -> sum over the examples at `indices`, all of them for None. absorb:
    (state, released) -> state.
    """

    release: Release
    measure: Callable[[State, np.ndarray | None], BoundedSum]
    absorb: Callable[[State, PyTree], State]


@dataclass
class Stages:
    """The procedure: stage after stage. n: rows. initial: the state at the start. classifier: state
    -> classifier of rows."""

    name: str
    n: int
    initial: State
    stages: Sequence[Stage]
    classifier: Callable[[State], SphereLinear]

    @property
    def steps(self) -> int:
        return sum(stage.release.count for stage in self.stages)

    @property
    def releases(self) -> tuple[Release, ...]:
        return tuple(stage.release for stage in self.stages)

    def start(self) -> State:
        return self.initial

    def event(self, step: int) -> Event:
        stage, k = self._at(step)
        return stage.release.event_at(k)

    def mechanism(self, step: int) -> Gaussian:
        return Gaussian(self._at(step)[0].release.noise_multiplier)

    def measure(self, state: State, step: int, key: SecretKey) -> BoundedSum:
        stage, _ = self._at(step)
        rate = stage.release.rate
        return stage.measure(
            state, None if rate is None else Poisson(rate, self.steps, self.n).indices(key, step)
        )

    def absorb(self, state: State, step: int, released: PyTree) -> State:
        return self._at(step)[0].absorb(state, released)

    def _at(self, step: int) -> tuple[Stage, int]:
        """(the stage, which of its releases)."""
        left = step
        for stage in self.stages:
            if left < stage.release.count:
                return stage, left
            left -= stage.release.count
        raise ArgumentError("step", step, f"this procedure has {self.steps}")
