"""config + public facts of the data -> the plan: everything that will happen, before any image is read."""

import dataclasses
from dataclasses import asdict, dataclass, replace
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from sfumato.core.checks import privacy_target
from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.registry import names as data_names
from sfumato.data.source import DataInfo
from sfumato.models import registry, trainable
from sfumato.models.input import Input
from sfumato.privacy import accountants, calibration
from sfumato.privacy.events import GaussianEvent, Tally
from sfumato.privacy.relations import ADD_OR_REMOVE, Relation
from sfumato.privacy.releases import Release, tally_of
from sfumato.runs import correlated, pretrained, samplers, units
from sfumato.runs.config import MethodConfig, TrainConfig, refuse
from sfumato.runs.pretrained import PublicWeights
from sfumato.runs.public import PublicRows, describe_public
from sfumato.sampling import CyclicPoisson, FullBatch, Poisson, Sampler, moved
from sfumato.solve.budget import ADJUSTABLE, LinearRecipe, automatic, linear_rule, releases_for
from sfumato.solve.budget import METHODS as LINEAR
from sfumato.solve.recipe import Recipe, rule
from sfumato.train.settings import SGDSettings, default_settings

SGD_ONLY = ("batch", "steps", "optimiser", "learning_rate", "momentum", "clip_norm", "views", "ema", "physical")
SAMPLING = ("sampler", "truncate", "cycle", "noise_bands")


Settings = Recipe | LinearRecipe | SGDSettings


@dataclass(frozen=True)
class Plan:
    """The run in numbers. n: training examples. settings: a Recipe (dp-fc), a LinearRecipe (fc, ls, ...) or
    SGDSettings (dp-sgd). mu: the Gaussian budget of (epsilon, delta) under `relation`. sampler: of the gradient steps. rooted,
    public: of the row map of linear heads. weights: the public ones it starts from. trains: which part of the network, as
    `models/trainable.py` has it; None where all of it is, or only a head on fixed features. size: side of what the network
    sees, None for its own. noise, noise_rng: by their names in `PrivacyConfig`. images_per_unit, grouping: of units of several
    images, how many are used at most and how they are told apart. n_validation, n_test: images, whatever the unit.
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
    noise: str = "gaussian"
    noise_rng: str = "philox"
    images_per_unit: int | None = None
    grouping: str | None = None

    @property
    def input(self) -> Input | None:
        """How the network wants its image, None as its architecture says."""
        return pretrained.input_of(self.model, self.size, self.weights)

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
        """The same plan for another number of training examples: for audits and estimates, which price nothing anew."""
        return replace(self, n=n, sampler=moved(self.sampler, n))

    def to_json(self) -> dict[str, Any]:
        """For plan.json, the report's source."""
        own = asdict(self)
        return own | {
            "releases": [each.to_json() for each in self.releases],
            "sampler": samplers.to_json(self.sampler),
            "mechanism": correlated.mechanism(self.noise, self.releases),
            "accountant": accountants.describe(self.tally),
            "clip_norm": self.settings.clip_norm,
            "public_facts": self._public_facts(),
            "not_covered": list(self.not_covered),
        }

    def _public_facts(self) -> list[str]:
        """Beyond those that every report names."""
        facts = [] if self.public is None else [self.public.fact]
        if self.grouping is not None:
            facts.append(f"that {self.unit}s are told apart by {self.grouping!r}, and that at most {self.images_per_unit} "
                         "images of each are used")  # fmt: skip
        if self.weights is not None:
            trained = "the head alone" if self.trains is None else f"{self.trains}, {self.parameters:,} parameters"
            facts.append(f"the public weights {self.weights.name} (SHA-256 {self.weights.sha256}), of which was trained: "
                         f"{trained}")
        return facts

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Plan":
        """The inverse of `to_json`."""
        own = {each.name: value[each.name] for each in dataclasses.fields(cls) if each.name in value}
        settings: Any = Recipe if own["method"] == "dp-fc" else LinearRecipe if own["method"] in LINEAR else SGDSettings
        made = settings(**own["settings"])
        return cls(**own | {
            "classes": tuple(own["classes"]), "shape": tuple(own["shape"]), "not_covered": tuple(own["not_covered"]),
            "releases": tuple(map(Release.from_json, own["releases"])), "settings": made,
            "sampler": samplers.from_json(own["sampler"], own["n"], made.steps),
            "public": None if own["public"] is None else PublicRows(**own["public"]),
            "weights": None if own["weights"] is None else PublicWeights.from_json(own["weights"]),
        })  # fmt: skip


def make_plan(config: TrainConfig, info: DataInfo, weights: PublicWeights | None = None) -> Plan:
    """Resolve everything that was left open and calibrate the noise. Raises ArgumentError, DataError, WeightsError.

    weights: the public ones, where they are known without looking.
    """
    config.check()
    weights = weights or pretrained.find(config.method)
    n, shape = info.examples, info.shape
    if n < 1 or shape is None:
        raise DataError(f"data={config.data.data!r}: no readable training images; give at least one per class")
    epsilon, delta = privacy_target(config.privacy.epsilon, config.privacy.delta, n)
    method, model, trains = resolve(config.method, weights)
    if min(shape[:2]) < 8 and model != registry.GIVEN:
        raise DataError(f"data={config.data.data!r}: images of {shape[0]}x{shape[1]} pixels; give --resize 8 or more")
    relation = config.privacy.relation
    mu = calibration.gaussian_mu_for(epsilon, delta, relation)
    given = pretrained.input_of(model, config.method.size, weights)
    fixed = trains is None and (registry.is_features(model) or weights is not None)
    features = pretrained.feature_count(model, shape, weights) if fixed else None
    public = _public(config.method, method, features, n, mu)
    d = features if public is None else public.directions
    parameters = d * len(info.classes) if d else trained_size(model, shape, len(info.classes), given, trains)
    method = automatic(method, d or 0)
    kind = "features" if fixed else "fine-tuning" if trains is not None else "cnn" if model == "cnn" else "network"
    budget = _Budget(kind, n, d or parameters, len(info.classes), epsilon, delta, mu, relation)
    make = _covariance_plan if method == "dp-fc" else _linear_plan if method in LINEAR else _sgd_plan
    settings, releases, chosen = make(replace(config.method, method=method), model, budget)
    if not fixed:
        settings = units.at_once(settings, info, config.method.physical)
    releases = units.reworded(releases, info)
    return Plan(
        name=info.name, n=n, n_validation=info.counts.get("validation", 0), n_test=info.counts.get("test", 0),
        classes=tuple(info.classes), shape=shape, unit=info.unit, method=method, model=model, epsilon=epsilon, delta=delta,
        mu=mu, settings=settings, releases=releases, sampler=chosen, parameters=parameters, features=features,
        insecure=config.privacy.insecure_seed is not None,
        not_covered=units.not_covered(info) + _positions(config, info) + _turns(chosen, info.unit) + _given(model, info.unit)
        + _learnt(weights),
        rooted=config.method.rooted, images_per_unit=info.images_per_unit, grouping=config.units.unit,
        public=public, weights=weights, trains=trains, size=None if given is None else given.size, relation=relation,
        noise=config.privacy.noise, noise_rng=config.privacy.noise_rng,
    )  # fmt: skip


def resolve(config: MethodConfig, weights: PublicWeights | None = None) -> tuple[str, str, str | None]:
    """`auto` -> (method, model, which part of the network is trained, None for all or for a head on fixed features).

    Without public weights, fixed features and DP-FC; a network name asks for DP-SGD.
    """
    if weights is not None:
        return _resolve_weights(config, weights)
    model = config.model if config.model == "auto" else registry.check(config.model)
    method = config.method
    if model == registry.GIVEN:
        return _for_rows(method), model, None
    if method == "auto":
        method = "dp-fc" if model == "auto" or registry.is_features(model) else "dp-sgd"
    if model == "auto":
        model = "patches+scattering" if method == "dp-fc" else "scattering" if method in LINEAR else "cnn"
    if method in LINEAR and not registry.is_features(model):
        raise ArgumentError("model", model, f"{method} needs --weights, or fixed features: {', '.join(registry.FEATURES)}")
    if method == "dp-fc" and not (registry.is_features(model) and model != "scatternet"):
        raise ArgumentError("model", model, "method dp-fc needs fixed features: patches+scattering, patches or scattering")
    return method, model, None


def _resolve_weights(config: MethodConfig, weights: PublicWeights) -> tuple[str, str, str | None]:
    """A head on frozen features by a linear method, or more than the head by DP-SGD."""
    mode, method = config.train or "head", config.method
    kind, _ = trainable.parse(mode)
    if method == "dp-fc":
        raise ArgumentError("method", method, "is for features in groups; with public weights take fc")
    if kind == "head":
        if config.views is not None:
            raise ArgumentError("views", config.views, "features are computed once per image; leave it out, or train last:1")
        return method, weights.model, None
    if method not in ("auto", "dp-sgd"):
        raise ArgumentError("method", method, f"trains a head on fixed features; with --train {mode} take dp-sgd")
    return "dp-sgd", weights.model, mode


def _public(config: MethodConfig, method: str, features: int | None, n: int, mu: float) -> PublicRows | None:
    """What is known of the public rows, if there are any; only linear heads have a use for them."""
    heads = features is not None and (method == "auto" or method in LINEAR)
    for name in ("public", "rooted", "per_class"):
        if getattr(config, name) and not heads:
            raise ArgumentError(name, getattr(config, name), f"method {method} has no such setting; it is for the linear heads "
                                f"on features: {', '.join(LINEAR)}")  # fmt: skip
    if config.public is None or features is None:
        return None
    return describe_public(config.public, features, n, mu, config.rooted)


def _for_rows(method: str) -> str:
    if method not in ("auto", *LINEAR):
        raise ArgumentError("method", method, f"for feature rows choose auto or one of {', '.join(LINEAR)}")
    return method


def _given(model: str, unit: str) -> tuple[str, ...]:
    """What cannot be known of rows that were computed elsewhere."""
    if model != registry.GIVEN:
        return ()
    return (f"How the features were computed. If a row depends on other {unit}s too (for example because features were "
            f"standardised by the training set's own mean), or their map was trained on these {unit}s, that is not covered.",)


def _learnt(weights: PublicWeights | None) -> tuple[str, ...]:
    if weights is None:
        return ()
    return (f"Whatever the public weights {weights.name} were learnt from, and whoever chose them by looking at these images.",)


def _positions(config: TrainConfig, info: DataInfo) -> tuple[str, ...]:
    """What removing an image means for arrays of which some were held out."""
    if info.units is not None:  # a unit is held out by its own name
        return ()
    folder = not config.data.data.endswith(".npz") and config.data.data not in data_names()
    whole = config.data.validation == 0 and config.data.share == 1
    if folder or (whole and config.data.data != "digits" and not config.data.data.endswith(".npz")):
        return ()
    return (f"The order of the {info.unit}s. Who is held out is decided by each {info.unit}'s position in the data set, so "
            f"removing one means leaving its position empty, not moving the later ones up.",)


def _turns(chosen: Sampler, unit: str) -> tuple[str, ...]:
    """What removing an image means where its turn goes by its place."""
    if not isinstance(chosen, CyclicPoisson):
        return ()
    return (f"Whose turn it is. The group with which one {unit} takes turns goes by its position in the training set, so "
            f"removing one means leaving its position empty, not moving the later ones up.",)


Made = tuple[Settings, tuple[Release, ...], Sampler]


@dataclass(frozen=True)
class _Budget:
    """Public facts that recipes depend on. kind: what is trained, as `train/settings.py` has it. d: features, or parameters of
    a network.
    """

    kind: str
    n: int
    d: int
    classes: int
    epsilon: float
    delta: float
    mu: float
    relation: Relation


def _linear_plan(config: MethodConfig, model: str, budget: _Budget) -> Made:
    method = config.method
    for name in SAMPLING:
        refuse(name, getattr(config, name), method)
    given = {name: value for name in SGD_ONLY if (value := getattr(config, name)) is not None}
    given |= {"per_class": True} if config.per_class else {}
    for name, value in given.items():
        if name not in ADJUSTABLE[method]:
            refuse(name, value, method)
    recipe = linear_rule(method, budget.n, budget.d + 1, budget.classes, budget.mu)
    batch, steps = given.pop("batch", budget.n), given.get("steps", recipe.steps)
    chosen = samplers.choose(config, batch, steps, budget.n, budget.relation)
    recipe = replace(recipe, sampling=chosen.rate if isinstance(chosen, Poisson) else 1.0, **given)
    return recipe, releases_for(recipe, budget.epsilon, budget.delta, budget.mu, budget.relation), chosen


def _covariance_plan(config: MethodConfig, model: str, budget: _Budget) -> Made:
    n, mu = budget.n, budget.mu
    for name in (*SGD_ONLY, *SAMPLING):
        refuse(name, getattr(config, name), "dp-fc")
    recipe = rule(n, budget.d, mu)
    releases = (
        Release("mean", 1, GaussianEvent(recipe.mean_noise(mu)), "the sum of the feature rows of all training images"),
        Release("second moments", 1, GaussianEvent(recipe.moments_noise(mu)),
                "how feature channels vary together over all training images, per spatial frequency"),
        Release("gradient", recipe.steps, GaussianEvent(recipe.gradient_noise(mu)),
                "the sum over all training images of the clipped gradient of the classifier"),
    )  # fmt: skip
    return recipe, releases, FullBatch(recipe.steps, n)


def _sgd_plan(config: MethodConfig, model: str, budget: _Budget) -> Made:
    n, epsilon, event = budget.n, budget.epsilon, correlated.event_of(config)
    config = correlated.with_groups(config)
    given = {"batch": n} if config.sampler == "full" else {}
    given |= {name: value for name in SGD_ONLY if (value := getattr(config, name)) is not None}
    settings = default_settings(budget.kind, n, epsilon, budget.mu).adjusted(**given)
    chosen = samplers.choose(config, settings.batch, settings.steps, n, budget.relation)

    def gradient(sigma: float) -> Release:
        return Release("gradient", settings.steps, chosen.event(event(sigma)),
                       "the sum of the clipped gradients of a random batch of training images")

    sigma = calibration.noise_multiplier(lambda s: gradient(s).tally, epsilon, budget.delta, budget.relation)
    return settings, (gradient(sigma),), chosen


def trained_size(model: str, shape: tuple[int, int, int], classes: int, given: Input | None, trains: str | None) -> int:
    """Trained parameters, by abstract evaluation: nothing is computed."""
    def trained(key: PRNGKeyArray) -> PyTree:
        network = registry.network(model, shape, classes, key, given).network
        return eqx.filter(*trainable.select(network, trains or "all", key))

    leaves = jax.tree.leaves(eqx.filter_eval_shape(trained, jax.random.key(0)))
    return sum(leaf.size for leaf in leaves)
