"""The plan: everything that will happen, as it stands in plan.json. `plan/making.py` makes it; whoever
reads it needs no JAX."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato import augment, sampling
from sfumato.core import generators, typed_json
from sfumato.core.checks import large_delta
from sfumato.core.errors import ArgumentError
from sfumato.core.tasks import SINGLE, Task
from sfumato.core.typed_json import OrInfinity, Read
from sfumato.noise import DEFAULT, NOISES
from sfumato.plan.methods import METHODS, MethodSettings
from sfumato.plan.public_facts import PublicRows, PublicWeights
from sfumato.privacy import accountants
from sfumato.privacy.events import Tally
from sfumato.privacy.guarantee import whole_unit
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation
from sfumato.privacy.not_private import NotPrivate
from sfumato.privacy.releases import Release, tally_of
from sfumato.sampling import Sampler
from sfumato.solve.linear_settings import weakness

if TYPE_CHECKING:
    from sfumato.networks.input import Input
else:
    Input = Any

BEST_OF = "best of "
"""Begins the method of a plan of `sfumato tune`."""


def choices(method: str) -> tuple[str, ...]:
    """The methods that a plan's method stands for, if it is a choice among some; else none."""
    return tuple(method.removeprefix(BEST_OF).split(", ")) if method.startswith(BEST_OF) else ()


def _settings(value: Any, plan: Mapping[str, Any]) -> Any:
    """Of the plan's method; of a choice, the first one's."""
    name = (*choices(plan["method"]), plan["method"])[0]
    if name not in METHODS:
        raise ArgumentError("method", name, "not known to this version; use the one that wrote it")
    return typed_json.convert(METHODS[name], value, "settings")


def _sampler(value: Any, plan: Mapping[str, Any]) -> Sampler:
    return sampling.from_json(value, plan["n"], _settings(plan["settings"], plan).steps)


class Stated:
    """What a plan states of its releases, whatever makes them."""

    releases: tuple[Release, ...]
    delta: float
    relation: Relation
    noise: str
    noise_rng: str
    unit: str
    images_per_unit: int | None
    epsilon: float
    not_private: NotPrivate | None

    def __post_init__(self) -> None:
        """Raise ArgumentError for a plan that promises something and nothing."""
        if (self.epsilon == math.inf) != (self.not_private is not None):
            raise ArgumentError(
                "epsilon", self.epsilon, "contradicts what the plan says of not_private"
            )

    @property
    def tally(self) -> Tally:
        return tally_of(self.releases)

    @property
    def spends(self) -> float:
        """epsilon of all releases together; at most `epsilon`."""
        return accountants.epsilon(self.tally, self.delta, relation=self.relation)

    @property
    def mechanism(self) -> str:
        """What is added to every sum, in words before "noise"."""
        if self.not_private is not None:
            return "Gaussian" if any(each.noise_multiplier for each in self.releases) else "no"
        words: str = NOISES[self.noise].words(each.event for each in self.releases)
        return words

    @property
    def accountant(self) -> str:
        """How epsilon is computed, in words."""
        return accountants.describe(self.tally, self.delta, self.relation)

    @property
    def whole_unit(self) -> str:
        """What is added or removed: "image", or "patient with up to 8 images"."""
        return whole_unit(self.unit, self.images_per_unit)

    def to_json(self) -> dict[str, Any]:
        """For plan.json, the report's source: every field, and two sentences."""
        own = {each.name: typed_json.plain(getattr(self, each.name)) for each in fields(self)}  # type: ignore[arg-type]
        return own | {"mechanism": self.mechanism, "accountant": self.accountant}


@dataclass(frozen=True)
class Plan(Stated):
    """The run in numbers. n: training examples. settings: the method's own (`plan/methods.py`). mu: the Gaussian budget of (epsilon,
    delta) under `relation`. sampler: of the gradient steps. rooted, public: of the row map of
    linear heads. weights: the public ones it starts from. trains: which part of the network, as
    `networks/trainable.py` has it; None where all of it is, or only a head on fixed features. size:
    side of what the network sees, None for its own. noise, noise_rng: by their names in
    `PrivacyConfig`. images_per_unit, grouping: of units of several images, how many are used at
    most and how they are told apart. n_validation, n_test: images, whatever the unit. left_out:
    files of the data set that are not read, by their ending. task: whether `classes` are names of
    findings. not_private: why nothing is promised, where nothing is; epsilon is then infinite, and mu that
    by which settings were ruled.
    """

    name: str
    n: int
    n_validation: int
    n_test: int
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    unit: str
    method: str
    model: str
    epsilon: OrInfinity
    delta: float
    mu: float
    settings: Annotated[MethodSettings, Read(_settings)]
    releases: tuple[Release, ...]
    sampler: Annotated[Sampler, Read(_sampler)]
    parameters: int
    features: int | None
    insecure: bool
    not_covered: tuple[str, ...] = ()
    rooted: bool = False
    public: PublicRows | None = None
    weights: PublicWeights | None = None
    trains: str | None = None
    size: int | None = None
    relation: Relation = ADD_OR_REMOVE
    noise: str = DEFAULT
    noise_rng: str = generators.DEFAULT
    images_per_unit: int | None = None
    grouping: str | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    task: Task = SINGLE
    not_private: NotPrivate | None = None

    @property
    def input(self) -> Input | None:
        """How the network wants its image, None as its architecture says."""
        from sfumato.plan import public_weights

        names = (
            getattr(self.settings, "augment", augment.NONE)
            if self.features is None
            else augment.NONE
        )
        return public_weights.input_of(self.model, self.size, self.weights, augment.kept(names))

    @property
    def seen(self) -> str:
        """What the network sees of an image, in words; empty where it is all of it."""
        own = self.input
        return "" if own is None else own.seen(self.shape[:2])

    @property
    def choices(self) -> tuple[str, ...]:
        """`sfumato tune`: the methods among whose fits the best was chosen; of any other run, none."""
        return choices(self.method)

    @property
    def promise(self) -> tuple[float, float, Relation]:
        """(epsilon, delta, relation)."""
        return self.epsilon, self.delta, self.relation

    def warnings(self) -> list[str]:
        """What the public facts say against the plan."""
        if self.not_private is not None:
            return [self.not_private.words]
        weak = weakness(self.epsilon, self.n, len(self.classes), self.mu, self.task)
        return [problem for problem in (weak, large_delta(self.delta, self.n)) if problem]

    def on(self, n: int) -> "Plan":
        """The same plan for another number of training examples: for audits and estimates, which
        price nothing anew."""
        return replace(self, n=n, sampler=self.sampler.moved(n))

    @property
    def clip_norm(self) -> float:
        """C: what one example's gradient is clipped to."""
        return self.settings.clip_norm

    def to_json(self) -> dict[str, Any]:
        """With what people look for beside the fields."""
        facts = {"clip_norm": self.clip_norm, "public_facts": self.public_facts}
        return super().to_json() | typed_json.plain(facts)

    @property
    def public_facts(self) -> list[str]:
        """Beyond those that every report names."""
        facts = [] if self.public is None else [self.public.fact]
        if self.left_out:
            from sfumato.data.listing import left_out_words

            facts.append(f"{left_out_words(self.left_out)} (nothing of them was learned)")
        if self.grouping is not None:
            facts.append(
                f"that {self.unit}s are told apart by {self.grouping!r}, and that at most {self.images_per_unit} "
                "images of each are used"
            )
        if self.weights is not None:
            trained = (
                "the head alone"
                if self.trains is None
                else f"{self.trains}, {self.parameters:,} parameters"
            )
            facts.append(
                f"the public weights {self.weights.words}, of which was trained: "
                f"{trained}{self.seen and f'; they see {self.seen}'}"
            )
        return facts


def read_plan(path: Path) -> Plan:
    """plan.json of a run. Raises RunError, one line."""
    plan: Plan = typed_json.read(Plan, path)
    return plan
