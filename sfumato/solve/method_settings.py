"""What the settings of every method are asked, and what most of them answer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

from sfumato.core.tasks import Task
from sfumato.privacy.events import Event
from sfumato.privacy.releases import Release
from sfumato.privacy.terms import Budget


class MethodSettings(ABC):
    """The part of a plan that is its method's own, a frozen dataclass.

    method: its name. what: it, in words for `--help`. needs: what it learns on, "rows" of features,
    features in "groups", or a "network" (or features). clip_norm: of a gradient. steps: of the
    sampler.
    """

    method: ClassVar[str]
    what: ClassVar[str]
    needs: ClassVar[str]

    steps: int
    clip_norm: float

    @classmethod
    @abstractmethod
    def default_model(cls, n: int, shape: tuple[int, int, int]) -> str:
        """What n images of that shape are learnt with where the user named no model."""

    @classmethod
    @abstractmethod
    def ruled(cls, budget: Budget) -> "MethodSettings":
        """The settings where the user left all open: a function of public facts."""

    @abstractmethod
    def given(self, asked: dict[str, Any], n: int) -> "MethodSettings":
        """With what the user asked for, flag -> value."""

    def check_task(self, task: Task) -> None:  # noqa: B027
        """Raise ArgumentError for settings that do not suit such labels."""

    @abstractmethod
    def batch_of(self, n: int) -> int:
        """The expected batch of n examples, whom the sampler draws from."""

    @abstractmethod
    def paid(self, budget: Budget, sampled: Callable[[float], Event]) -> tuple[Release, ...]:
        """The releases that cost the budget together. sampled: noise multiplier -> the first event
        of a gradient step, by the run's sampler and mechanism."""

    def matrices(self, classes: int) -> int:
        """How many matrices of d x d numbers are held, for d features."""
        return 0

    def computed(self, asked: str | None, trains: bool, platform: str) -> "MethodSettings":
        """In the precision that was asked for, or else the platform's usual one. trains: is a network
        trained? Raises ArgumentError."""
        return self

    def unclipped(self) -> Any:
        """For a run that promises nothing."""
        own: Any = self
        return replace(own, clip_norm=math.inf)

    @property
    def momentum_of_sums(self) -> float | None:
        """With which noisy sums of a sampler's steps become parameters; None where there are none."""
        return None

    def lines(self, trains: bool) -> list[tuple[str, str]]:
        """For the terminal: what a plan shows of them beside their values."""
        return []
