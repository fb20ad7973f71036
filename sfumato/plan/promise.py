"""What a user may ask of the promise: how much, to whom, by what noise. Part of `plan/config.py`."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from sfumato.core import generators
from sfumato.core.checks import choice, positive_or_infinite, whole
from sfumato.core.errors import ArgumentError
from sfumato.core.typed_json import INFINITY
from sfumato.noise import DEFAULT, NOISES
from sfumato.privacy.neighbors import ADD_OR_REMOVE, RELATIONS, Relation


@dataclass(frozen=True)
class BudgetConfig:
    """How much."""

    epsilon: Literal["inf"] | float | None = None
    """The privacy budget of the whole run [3, or the recipe's]. The word inf is NOT PRIVATE: the same run
    without noise and without clipping, for baselines and debugging."""
    delta: float | None = None
    """[the largest power of ten that is at most 1/(10 n) and 1e-5]"""


@dataclass(frozen=True)
class PromiseConfig:
    """To whom, and by what noise."""

    relation: Relation = ADD_OR_REMOVE
    """Which training sets are neighbors: add or remove one example | zero one out | replace one. The
    number of examples is public in the last two. replace-one asks for twice
    the noise of full batches."""
    noise: Annotated[str, tyro.conf.arg(help=f"How noise is drawn: {NOISES.help}.")] = DEFAULT
    noise_rng: Annotated[
        str, tyro.conf.arg(help=f"Generator of all secret randomness: {generators.HELP}.")
    ] = generators.DEFAULT


@dataclass(frozen=True)
class PrivacyConfig(PromiseConfig, BudgetConfig):
    """What is promised."""

    insecure_seed: int | None = None
    """FOR TESTS: fixes the secret noise and sampling too, which voids the guarantee."""
    rehearse: int | None = None
    """dp-sgd: with this smaller batch, and as much less noise, the same steps and learning rate: shows
    cheaply, on public data, how a run of the full batch learns. NOT PRIVATE."""

    @classmethod
    def asked(cls, epsilon: Any, *others: Any) -> "PrivacyConfig":
        """From Python, where the word inf is a number."""
        word: Any = INFINITY if epsilon == math.inf else epsilon
        return cls(word, *others)

    @property
    def budget(self) -> float:
        """epsilon, as it was given or not."""
        if isinstance(self.epsilon, str):
            return math.inf
        return 3.0 if self.epsilon is None else self.epsilon

    @property
    def private(self) -> bool:
        """Whether anything is to be promised."""
        return self.epsilon != INFINITY and self.rehearse is None

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right. What is read as an infinite
        number, such as 1e400, is a slip."""
        if self.budget == math.inf and self.epsilon != INFINITY:
            raise ArgumentError(
                "epsilon",
                self.epsilon,
                'give a finite number greater than 0; only the word inf (in files "inf") asks for a run without privacy',
            )
        positive_or_infinite("epsilon", self.budget)
        if self.rehearse is not None:
            whole("rehearse", self.rehearse)
            if self.epsilon == INFINITY:
                raise ArgumentError(
                    "rehearse",
                    self.rehearse,
                    "needs the finite epsilon of the run that it rehearses",
                )
        choice("relation", self.relation, RELATIONS)
        generators.find(self.noise_rng)
