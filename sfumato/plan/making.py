"""config + public facts of the data -> the plan, before any image is read."""

import math

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from sfumato import augment
from sfumato.core.checks import privacy_target
from sfumato.core.errors import DataError
from sfumato.data.source import DataInfo
from sfumato.features import by_name
from sfumato.networks import trainable
from sfumato.networks.input import Input
from sfumato.plan import public_weights, unit_batches
from sfumato.plan.choice import public_rows, resolve
from sfumato.plan.config import TrainConfig
from sfumato.plan.methods import refuse_foreign
from sfumato.plan.not_covered import not_covered
from sfumato.plan.plan import Plan
from sfumato.plan.public_facts import PublicWeights
from sfumato.plan.spending import spend
from sfumato.plan.unprotected_plan import unprotected
from sfumato.privacy import calibration
from sfumato.privacy.not_private import RULED_BY
from sfumato.privacy.terms import Budget
from sfumato.solve.linear_settings import automatic


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
    epsilon, delta = privacy_target(config.privacy.budget, config.privacy.delta, n, infinite=True)
    ruled_by = RULED_BY if epsilon == math.inf else epsilon
    method, model, trains = resolve(config.method, n, shape, weights)
    if min(shape[:2]) < 8 and model != by_name.GIVEN:
        raise DataError(
            f"data={config.data.data!r}: images of {shape[0]}x{shape[1]} pixels; give --resize 8 or more"
        )
    relation = config.privacy.relation
    mu = calibration.gaussian_mu_for(ruled_by, delta, relation)
    fixed = trains is None and (by_name.is_features(model) or weights is not None)
    crop = None if fixed else augment.kept(config.method.augment or augment.DEFAULT)
    given = public_weights.input_of(model, config.method.size, weights, crop)
    features = public_weights.feature_count(model, shape, weights) if fixed else None
    if method != "auto":
        refuse_foreign(config.method, method)
    public = public_rows(config.method, features, n, mu)
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
    budget = Budget(
        kind, n, d or parameters, len(info.classes), ruled_by, delta, mu, relation, info.task
    )
    made, not_private = unprotected(config, budget, spend(config.method, method, budget))
    settings, releases, chosen = made
    settings = settings.computed(config.method.precision, not fixed, jax.default_backend())
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
        epsilon=epsilon if not_private is None else math.inf,
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
        task=info.task,
        not_private=not_private,
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
