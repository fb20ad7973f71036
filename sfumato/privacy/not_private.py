"""Runs that promise nothing, for baselines and debugging: `--epsilon inf` and `--rehearse B`.

One event stands for whatever such a run releases. It holds the event that would be claimed if anything
were promised, and has no price: with it, epsilon is infinite at every delta, whatever else was
released. So no ledger of a finite budget pays for it, and a ledger without budget pays for nothing
else (`ledger.py`): neither kind of run can become the other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from sfumato.core.typed_json import INFINITY
from sfumato.privacy.event_base import Event, register

MARK = "NOT PRIVATE"
RULED_BY = 8.0
"""The epsilon whose settings a run without noise has where they hang on the budget: the largest one for
which settings are published."""


@register("not-private")
@dataclass(frozen=True)
class NotPrivateEvent(Event):
    """A release that promises nothing. noise_multiplier: of the noise that it has all the same, as `event`
    says; 0 for none, and then nothing is clipped, and `event` is what an honest run would have."""

    private: ClassVar[bool] = False

    event: Event
    noise_multiplier: float

    @property
    def words(self) -> str:
        had = (
            self.event.words
            if self.noise_multiplier
            else f"no noise, in place of {self.event.words}"
        )
        return f"{MARK}: {had}"

    @property
    def promised(self) -> Event:
        return self.event

    @property
    def rate(self) -> float | None:
        return self.event.rate

    @property
    def bands(self) -> int:
        return self.event.bands

    @property
    def turns(self) -> int:
        return self.event.turns

    @property
    def turn(self) -> int:
        return self.event.turn

    def at(self, k: int) -> Event:
        return replace(self, event=self.event.at(k))

    def concerns(self, positions: Any) -> Any:
        return self.event.concerns(positions)


@dataclass(frozen=True)
class NotPrivate:
    """Why a run promises nothing. epsilon, batch: of the run that it rehearses; None for --epsilon inf."""

    epsilon: float | None = None
    batch: int | None = None

    @property
    def words(self) -> str:
        """One line, the mark in front."""
        if self.batch is None:
            return (
                f"{MARK}: trained without noise and without clipping (epsilon inf), for baselines and debugging; the model may "
                "tell anything of its training data"
            )
        return (
            f"{MARK}: rehearsal of epsilon={self.epsilon:g} with batch {self.batch}: this run is not private, its noise is "
            "that of a smaller batch"
        )


def told(epsilon: float) -> NotPrivate | None:
    """What an epsilon alone tells; None for a finite one."""
    return NotPrivate() if epsilon == math.inf else None


def file_name(name: str, privacy: Mapping[str, Any]) -> str:
    """model.safetensors -> model-not-private.safetensors, where `privacy` (of model.json) says so."""
    if privacy.get("epsilon") not in (INFINITY, math.inf):
        return name
    path = Path(name)
    return f"{path.stem}-not-private{path.suffix}"
