"""config + public facts of the data -> the plan: everything that will happen, before any image is
read."""

import dataclasses
from dataclasses import asdict, dataclass, replace
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from sfumato import noise
from sfumato.core import generators
from sfumato.core.checks import privacy_target
from sfumato.core.errors import DataError
from sfumato.data.listing import left_out_words
from sfumato.data.source import DataInfo
from sfumato.features import by_name
from sfumato.networks import trainable
from sfumato.networks.input import Input
from sfumato.noise import NOISES
from sfumato.plan import public_weights, unit_batches
from sfumato.plan.budget import Budget, Settings, spend
from sfumato.plan.choice import public_rows, resolve
from sfumato.plan.config import TrainConfig
from sfumato.plan.not_covered import not_covered
from sfumato.plan.public_features import PublicRows
from sfumato.plan.public_weights import PublicWeights
from sfumato.privacy import accountants, calibration
from sfumato.privacy.events import Tally
from sfumato.privacy.relations import ADD_OR_REMOVE, Relation
from sfumato.privacy.releases import Release, tally_of
from sfumato.sampling import Sampler, from_json
from sfumato.solve.covariance_settings import CovarianceSettings
from sfumato.solve.linear_settings import METHODS as LINEAR
from sfumato.solve.linear_settings import LinearSettings, automatic
from sfumato.train.sgd_settings import SGDSettings

BEST_OF = "best of "
"""Begins the method of a plan of `sfumato tune`."""


@dataclass(frozen=True)
class Plan:
    """The run in numbers. n: training examples. settings: a CovarianceSettings (dp-fc), a
    LinearSettings (fc, ls, ...) or SGDSettings (dp-sgd). mu: the Gaussian budget of (epsilon,
    delta) under `relation`. sampler: of the gradient steps. rooted, public: of the row map of
    linear heads. weights: the public ones it starts from. trains: which part of the network, as
    `networks/trainable.py` has it; None where all of it is, or only a head on fixed features. size:
    side of what the network sees, None for its own. noise, noise_rng: by their names in
    `PrivacyConfig`. images_per_unit, grouping: of units of several images, how many are used at
    most and how they are told apart. n_validation, n_test: images, whatever the unit. left_out:
    files of the data set that are not read, by their ending.
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
    epsilon: float
    delta: float
    mu: float
    settings: Settings
    releases: tuple[Release, ...]
    sampler: Sampler
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
    noise: str = noise.DEFAULT
    noise_rng: str = generators.DEFAULT
    images_per_unit: int | None = None
    grouping: str | None = None
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def input(self) -> Input | None:
        """How the network wants its image, None as its architecture says."""
        return public_weights.input_of(self.model, self.size, self.weights)

    @property
    def choices(self) -> tuple[str, ...]:
        """`sfumato tune`: the methods among whose fits the best was chosen; of any other run, none."""
        return (
            tuple(self.method.removeprefix(BEST_OF).split(", "))
            if self.method.startswith(BEST_OF)
            else ()
        )

    @property
    def promise(self) -> tuple[float, float, Relation]:
        """(epsilon, delta, relation)."""
        return self.epsilon, self.delta, self.relation

    @property
    def tally(self) -> Tally:
        return tally_of(self.releases)

    @property
    def spends(self) -> float:
        """epsilon of all releases together; at most `epsilon`."""
        return accountants.epsilon(self.tally, self.delta, relation=self.relation)

    def on(self, n: int) -> "Plan":
        """The same plan for another number of training examples: for audits and estimates, which
        price nothing anew."""
        return replace(self, n=n, sampler=self.sampler.moved(n))

    def to_json(self) -> dict[str, Any]:
        """For plan.json, the report's source."""
        own = asdict(self)
        return own | {
            "releases": [each.to_json() for each in self.releases],
            "sampler": self.sampler.to_json(),
            "mechanism": NOISES[self.noise].words(each.event for each in self.releases),
            "accountant": accountants.describe(self.tally, self.delta, self.relation),
            "clip_norm": self.settings.clip_norm,
            "public_facts": self._public_facts(),
            "not_covered": list(self.not_covered),
        }

    def _public_facts(self) -> list[str]:
        """Beyond those that every report names."""
        facts = [] if self.public is None else [self.public.fact]
        if self.left_out:
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
                f"the public weights {self.weights.name} (SHA-256 {self.weights.sha256}), of which was trained: "
                f"{trained}"
            )
        return facts

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Plan":
        """The inverse of `to_json`."""
        own = {
            each.name: value[each.name] for each in dataclasses.fields(cls) if each.name in value
        }
        linear = own["method"] in LINEAR or own["method"].startswith(BEST_OF)
        settings: Any = (
            CovarianceSettings
            if own["method"] == "dp-fc"
            else LinearSettings
            if linear
            else SGDSettings
        )
        made = settings(**own["settings"])
        return cls(
            **own
            | {
                "classes": tuple(own["classes"]),
                "shape": tuple(own["shape"]),
                "not_covered": tuple(own["not_covered"]),
                "releases": tuple(map(Release.from_json, own["releases"])),
                "settings": made,
                "sampler": from_json(own["sampler"], own["n"], made.steps),
                "public": None if own["public"] is None else PublicRows(**own["public"]),
                "weights": None
                if own["weights"] is None
                else PublicWeights.from_json(own["weights"]),
            }
        )


def make_plan(config: TrainConfig, info: DataInfo, weights: PublicWeights | None = None) -> Plan:
    """Resolve everything that was left open and calibrate the noise. Raises ArgumentError,
    DataError, WeightsError.

    weights: the public ones, where they are known without looking.
    """
    config.check()
    weights = weights or public_weights.find(config.method)
    n, shape = info.examples, info.shape
    if n < 1 or shape is None:
        raise DataError(
            f"data={config.data.data!r}: no readable training images; give at least one per class"
        )
    epsilon, delta = privacy_target(config.privacy.budget, config.privacy.delta, n)
    method, model, trains = resolve(config.method, weights)
    if min(shape[:2]) < 8 and model != by_name.GIVEN:
        raise DataError(
            f"data={config.data.data!r}: images of {shape[0]}x{shape[1]} pixels; give --resize 8 or more"
        )
    relation = config.privacy.relation
    mu = calibration.gaussian_mu_for(epsilon, delta, relation)
    given = public_weights.input_of(model, config.method.size, weights)
    fixed = trains is None and (by_name.is_features(model) or weights is not None)
    features = public_weights.feature_count(model, shape, weights) if fixed else None
    public = public_rows(config.method, method, features, n, mu)
    d = features if public is None else public.directions
    parameters = (
        d * len(info.classes) if d else trained_size(model, shape, len(info.classes), given, trains)
    )
    method = automatic(method, d or 0)
    kind = (
        "features"
        if fixed
        else "fine-tuning"
        if trains is not None
        else "cnn"
        if model == "cnn"
        else "network"
    )
    budget = Budget(kind, n, d or parameters, len(info.classes), epsilon, delta, mu, relation)
    settings, releases, chosen = spend(replace(config.method, method=method), budget)
    if not fixed:
        settings = unit_batches.at_once(settings, info, config.method.physical)
    releases = unit_batches.reworded(releases, info)
    return Plan(
        name=info.name,
        n=n,
        n_validation=info.counts.get("validation", 0),
        n_test=info.counts.get("test", 0),
        classes=tuple(info.classes),
        shape=shape,
        unit=info.unit,
        method=method,
        model=model,
        epsilon=epsilon,
        delta=delta,
        mu=mu,
        settings=settings,
        releases=releases,
        sampler=chosen,
        parameters=parameters,
        features=features,
        insecure=config.privacy.insecure_seed is not None,
        not_covered=not_covered(info, model, chosen, weights),
        rooted=config.method.rooted,
        images_per_unit=info.images_per_unit,
        grouping=config.units.unit,
        public=public,
        weights=weights,
        trains=trains,
        size=None if given is None else given.size,
        relation=relation,
        noise=config.privacy.noise,
        noise_rng=config.privacy.noise_rng,
        left_out=info.left_out,
    )


def trained_size(
    model: str, shape: tuple[int, int, int], classes: int, given: Input | None, trains: str | None
) -> int:
    """Trained parameters, by abstract evaluation: nothing is computed."""

    def trained(key: PRNGKeyArray) -> PyTree:
        network = by_name.network(model, shape, classes, key, given).network
        return eqx.filter(*trainable.select(network, trains or "all", key))

    leaves = jax.tree.leaves(eqx.filter_eval_shape(trained, jax.random.key(0)))
    return sum(leaf.size for leaf in leaves)
