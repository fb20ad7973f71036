"""A procedure as a list of stages, for solvers that are little more than: measure this, digest
that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import PyTree

from sfumato.clip import BoundedSum
from sfumato.core.digests import digest_of
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.data.finite import Spoiled, of_rows
from sfumato.features.heads import SphereLinear
from sfumato.noise import Mechanism
from sfumato.noise.banded import noise_of_run
from sfumato.privacy.events import Event
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.releases import Release
from sfumato.sampling import Poisson
from sfumato.solve.labeled_rows import Rows

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
    """The procedure: stage after stage. rows: the private ones. initial: the state at the start.
    classifier: state -> classifier of rows. again: noise multiplier -> itself, all its releases
    together as private as one with this noise. bare: itself without noise and clip. facts: public ones, that must be the same when a run
    goes on. published: parts of the state. noisy: whether the noise was chosen.
    """

    name: str
    rows: Rows
    initial: State
    stages: Sequence[Stage]
    classifier: Callable[[State], SphereLinear]
    again: Callable[[float], "Stages"]
    bare: Callable[[], "Stages"]
    facts: dict[str, Any] = field(default_factory=dict)
    published: tuple[str, ...] = ("mean", "weight")
    guarantee: Guarantee | None = None
    noisy: bool = True

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def steps(self) -> int:
        return sum(stage.release.count for stage in self.stages)

    @property
    def releases(self) -> tuple[Release, ...]:
        if not self.noisy:
            raise _not_noisy()
        return tuple(stage.release for stage in self.stages)

    def with_noise(self, noise_multiplier: float, guarantee: Guarantee | None = None) -> "Stages":
        """As `again`. guarantee: for which the noise was chosen."""
        return replace(self.again(noise_multiplier), guarantee=guarantee)

    def unprotected(self, guarantee: Guarantee | None = None) -> "Stages":
        """The same without noise and clip, for `sf.calibrate`."""
        return replace(self.bare(), guarantee=guarantee)

    def describe(self) -> dict[str, Any]:
        """Public facts, for `sf.run(out=)`."""
        return self.facts | {"releases": [each.to_json() for each in self.releases]}

    def spoiled(self) -> Spoiled:
        return of_rows(self.rows.matrix)

    def fingerprint(self, mac: Callable[[bytes], str]) -> str:
        return mac(digest_of(self.rows.arrays).encode())

    def released(self, state: State) -> State:
        return {name: state[name] for name in self.published}

    def start(self) -> State:
        return self.initial

    def event(self, step: int) -> Event:
        if not self.noisy:
            raise _not_noisy()
        stage, k = self._at(step)
        return stage.release.event_at(k)

    def mechanism(self, step: int) -> Mechanism:
        return noise_of_run(self.event(step), 0.0)

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


def _not_noisy() -> ArgumentError:
    return ArgumentError("noise", None, "calibrate the method (sf.calibrate)")
