"""What a run will take before it is begun: measured here (its own code, timed on images of random
pixels), or counted from the plan alone, for a machine that is not here.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sfumato.clip.handling import make_plan as clipping_plan
from sfumato.clip.microbatch import program_memory
from sfumato.clip.trace import trace_loss
from sfumato.core.keys import SecretKey
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.extraction import CHUNK
from sfumato.networks import catalog, trainable
from sfumato.networks.image_cost import forward_cost, multiply_adds, outline, parameters
from sfumato.plan.plan import Plan
from sfumato.plan.unit_batches import grouped
from sfumato.runs.jobs import build, loss_of
from sfumato.runs.progress import Quiet
from sfumato.sampling.samplers import FullBatch
from sfumato.solve.optimizers import OPTIMIZERS
from sfumato.solve.statistics import CHUNK as ROWS
from sfumato.train.feed import physical_batches
from sfumato.train.sgd_settings import SGDSettings

_BASE_MEMORY = 0.6e9
"""Python, JAX and compiled code, in bytes; measured."""


@dataclass(frozen=True)
class Estimate:
    seconds: float
    memory_bytes: float


def estimate(plan: Plan) -> Estimate:
    """Time a small copy of the plan on random images (nobody's) and scale it up."""
    return _network(plan) if plan.features is None else _features(plan)


def _random_images(plan: Plan, n: int) -> Source:
    stream = np.random.default_rng(0)
    labels = stream.integers(len(plan.classes), size=n).astype(np.int32)
    images = stream.random((n, *plan.shape), np.float32)
    source = Source("random", "train", labels, plan.classes, plan.shape, lambda at: images[at])
    return grouped(source, plan.images_per_unit)


def _features(plan: Plan) -> Estimate:
    assert plan.features is not None
    source = _random_images(plan, 512 if plan.weights is None else CHUNK)
    images = plan.n * (plan.images_per_unit or 1)
    build(plan, source, None, 0, _key(), Quiet())  # compile
    began = time.monotonic()
    job = build(plan.on(source.examples), source, None, 0, _key(), Quiet())
    per_image = (time.monotonic() - began) / len(source)
    rows_bytes = 4.0 * plan.features
    # A step reads every row it samples once and multiplies it by the weights twice: bound by
    # memory, 4 GB/s is modest.
    per_step = plan.sampler.expected_batch_size * rows_bytes / 4e9
    fixed = (
        _seconds(lambda: job.procedure.measure(job.procedure.start(), 0, _key())) * plan.n / ROWS
    )
    seconds = per_image * (images + plan.n_test) + per_step * job.procedure.steps + 2 * fixed + 15
    return Estimate(
        seconds, _BASE_MEMORY + rows_bytes * (images + plan.n_test) * 1.15 + _head(plan)
    )


def _head(plan: Plan) -> float:
    """Bytes of what grows with the classes: the weights, with their sums, noise (in float64) and
    the optimizer's; the scores of the rows that are looked at together; the scores of the test rows
    and their confusion; d x d matrices of those methods.
    """
    c, d = len(plan.classes), plan.parameters / len(plan.classes)
    together = getattr(plan.settings, "physical_batch_size", ROWS)
    curved = 4.0 * 4 * d * d * plan.settings.matrices(c)
    return (
        4.0 * 8 * plan.parameters
        + 4.0 * 4 * together * c
        + 4.0 * plan.n_test * c
        + 8.0 * 2 * c * c
        + curved
    )


def _network(plan: Plan) -> Estimate:
    settings, most = plan.settings, plan.images_per_unit or 1
    assert isinstance(settings, SGDSettings)
    source = _random_images(plan, settings.physical_batch_size * most)
    everybody = FullBatch(plan.sampler.steps, source.examples)
    job = build(
        replace(plan, n=source.examples, sampler=everybody), source, None, 0, _key(), Quiet()
    )
    state = job.procedure.start()
    per_part = _seconds(lambda: job.procedure.measure(state, 0, _key()))
    parts = plan.sampler.expected_batch_size / source.examples
    views = max(1, settings.views)
    memory = _BASE_MEMORY + 4.0 * plan.parameters * 8 + _step_memory(job.procedure, state)
    images = float(np.prod(plan.shape)) * (plan.n * most + 4 * views * len(source))
    return Estimate(per_part * parts * job.procedure.steps + 15, memory + images)


def _step_memory(procedure: Any, state: dict[str, Any]) -> float:
    """Bytes of the compiled gradient of one physical batch."""

    def clipped_sum(arrays: Any, examples: Any, mask: Any) -> Any:
        params, constants = arrays
        return procedure.clipped(params, examples, mask, *constants).value

    batch = next(
        physical_batches(procedure.fetch, np.arange(procedure.physical), 0, procedure.physical)
    )
    arrays = ((state["params"], procedure.constants), *batch)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    return float(program_memory(clipped_sum, shapes, procedure.physical))


def _seconds(call) -> float:  # type: ignore[no-untyped-def]
    """Of the second call; the first one compiles."""
    for _ in range(2):
        began = time.monotonic()
        np.asarray(next(iter(_leaves(call()))))
    return time.monotonic() - began


def _leaves(tree: object) -> list[Any]:
    return jax.tree.leaves(tree)


def _key() -> SecretKey:
    return SecretKey.from_insecure_seed(0)


# -- counted, for a machine that is not here

FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Cost:
    """Counted. forward: multiply-adds of one image. state: bytes of all parameters and their copies. tape:
    bytes of one view in a step, activations and cotangents that are held until the sum. rows: bytes
    of all features, in the host's memory. total: floating-point operations of the whole run, each
    multiply-add two.
    """

    parameters: int
    forward: int
    state: float
    tape: float
    rows: float
    total: float


def counted(plan: Plan) -> Cost:
    """From the plan alone: no image is needed, no parameter is drawn."""
    return _of_features(plan) if plan.features else _of_network(plan)


def _of_features(plan: Plan) -> Cost:
    """Every image once through the frozen network; then steps over n rows of d features, of which a
    gradient takes two products with the weights, and one matrix of second moments.
    """
    assert plan.features is not None and plan.input is not None
    shape = plan.input.shape(plan.shape)
    network = outline(catalog.find(plan.model), shape, len(plan.classes))
    size, forward = parameters(network), forward_cost(network, shape)
    steps = sum(each.count for each in plan.releases if each.name in ("gradient", "quadratic"))
    head = plan.n * plan.features * (2 * len(plan.classes) * steps + plan.features)
    images = plan.n + plan.n_test
    return Cost(
        size,
        forward,
        FLOAT * size,
        0.0,
        FLOAT * images * plan.features,
        2.0 * (forward * images + head),
    )


def _of_network(plan: Plan) -> Cost:
    settings = plan.settings
    assert isinstance(settings, SGDSettings)
    own = plan.input or catalog.find(plan.model).input
    trained, frozen, static = _parts(plan)
    views = max(1, settings.views)
    one = (jax.ShapeDtypeStruct((1, *plan.shape), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))

    def loss(params: PyTree, example: tuple[PyTree, Any]) -> Any:
        rest, images = example
        return loss_of(eqx.combine(rest, static), own)(params, images)

    step = multiply_adds(jax.grad(loss), trained, (frozen, one))
    clipping = clipping_plan(trace_loss(loss, trained, (frozen, one)))
    tape = sum(clipping.sizes(path).tape for path in clipping.sites)
    size, rest = parameters(trained), parameters(frozen)
    copies = 4 + OPTIMIZERS[settings.optimizer].copies
    # The trained parameters, their average, the sum of gradients, the noisy sum, and the optimizer's.
    images = settings.steps * plan.sampler.expected_batch_size * views
    return Cost(
        size + rest,
        multiply_adds(loss, trained, (frozen, one)),
        FLOAT * (rest + copies * size),
        FLOAT * tape,
        0.0,
        2.0 * step * images,
    )


def _parts(plan: Plan) -> tuple[PyTree, PyTree, PyTree]:
    """(trained, frozen, static), arrays as shapes."""

    def make(key: Any) -> tuple[PyTree, PyTree]:
        network = by_name.network(
            plan.model, plan.shape, len(plan.classes), key, plan.input
        ).network
        return eqx.partition(*trainable.select(network, plan.trains or "all", key))

    trained, rest = eqx.filter_eval_shape(make, jax.random.key(0))
    frozen, static = eqx.partition(rest, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return trained, frozen, static
