"""What a run will take before it is begun: measured here (its own code, timed on images of random
pixels), or counted from the plan alone, for a machine that is not here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sfumato.clip import clipped_grad
from sfumato.clip.arithmetic import compiled_for
from sfumato.core.keys import SecretKey
from sfumato.data.ahead import BYTES
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.extraction import CHUNK
from sfumato.networks import catalog, trainable
from sfumato.networks.image_cost import (
    forward_cost,
    multiply_adds,
    multiply_adds_in,
    outline,
    parameters,
)
from sfumato.networks.live_memory import BATCH, Held, held
from sfumato.plan.plan import Plan
from sfumato.plan.unit_batches import grouped
from sfumato.runs.jobs import Job, build, loss_of
from sfumato.runs.progress import EpsilonMeter, Quiet
from sfumato.runs.recorder import CURVE_POINTS
from sfumato.sampling import FullBatch
from sfumato.solve.optimizers import OPTIMIZERS
from sfumato.solve.statistics import CHUNK as ROWS
from sfumato.train import physical
from sfumato.train.dpsgd import DPSGD
from sfumato.train.evaluation import CURVE_IMAGES
from sfumato.train.loop import ReadingAhead, State
from sfumato.train.sgd_settings import SGDSettings

_BASE_MEMORY = 0.6e9
"""Python, JAX and compiled code, in bytes; measured."""
CELL = 90.0
"""Bytes of a number of the confusion matrix while it is written as the text of evaluation.json;
measured."""
_AROUND, _SOLVER = 7.0, 8.0
"""Seconds: imports, plan, files and report of a run; to compile the stages of a solver on features.
Measured on two cores."""
SHOWN = 128
"""Images on which an evaluation is timed."""


@dataclass(frozen=True)
class Estimate:
    seconds: float
    memory_bytes: float


def estimate(plan: Plan) -> Estimate:
    """Time a small copy of the plan on random images (nobody's) and scale it up. Raises
    ArgumentError where it does not fit the memory of this machine.
    """
    return _network(plan) if plan.features is None else _features(plan)


def _random_images(plan: Plan, n: int) -> Source:
    stream = np.random.default_rng(0)
    labels = plan.task.random(stream, n, len(plan.classes))
    images = stream.random((n, *plan.shape), np.float32)
    source = Source("random", "train", labels, plan.classes, plan.shape, lambda at: images[at])
    return grouped(source, plan.images_per_unit)


def _features(plan: Plan) -> Estimate:
    assert plan.features is not None
    source = _random_images(plan, 4 * CHUNK if plan.weights is None else CHUNK)
    images = plan.n * (plan.images_per_unit or 1)
    shown = plan.n_validation or plan.n_test
    jobs: list[Job] = []
    compiling, per_copy = _timed(
        lambda: jobs.append(build(plan.on(source.examples), source, None, 0, _key(), Quiet()))
    )
    job, per_image = jobs[-1], per_copy / len(source)
    rows_bytes = 4.0 * plan.features
    # A step reads every row it samples once and multiplies it by the weights twice: bound by
    # memory, 4 GB/s is modest.
    per_step = plan.sampler.expected_batch_size * rows_bytes / 4e9
    measuring, fixed = _timed(lambda: job.procedure.measure(job.procedure.start(), 0, _key()))
    seconds = (
        _AROUND
        + _SOLVER
        + compiling
        + measuring
        + per_image * (images + shown)
        + per_step * job.procedure.steps
        + 2 * fixed * plan.n / ROWS
    )
    return Estimate(
        seconds, _BASE_MEMORY + rows_bytes * (images + shown) * 1.15 + head_memory(plan)
    )


def head_memory(plan: Plan) -> float:
    """Bytes of what grows with the classes: the weights, with their sums, noise (in float64) and
    the optimizer's; the scores of the test rows; and, whichever is larger, what training takes
    (scores of the rows that are looked at together, d x d matrices of those methods that have them)
    or the confusion of the test rows.
    """
    c, d = len(plan.classes), plan.parameters / len(plan.classes)
    asked = getattr(plan.settings, "physical_batch_size", ROWS)
    together = ROWS if isinstance(asked, str) else asked
    curved = 4.0 * 4 * d * d * plan.settings.matrices(c)
    evaluation = CELL * c * c if plan.n_test + plan.n_validation else 0.0
    return (
        4.0 * 8 * plan.parameters
        + 4.0 * plan.n_test * c
        + max(4.0 * 4 * together * c + curved, evaluation)
    )


def _network(plan: Plan) -> Estimate:
    """The parts of a step, what a step takes besides (noise, optimizer), evaluations on the way,
    epsilon on the way."""
    most = plan.images_per_unit or 1
    step = build(plan, _random_images(plan, most), None, 0, _key(), Quiet()).procedure
    assert isinstance(step, DPSGD)
    step.rehearse(step.start())
    needed = step.needs(step.start()["params"], step.at_once)
    source, shown = (
        _random_images(plan, step.at_once * most),
        _random_images(replace(plan, images_per_unit=None), SHOWN),
    )
    everybody = FullBatch(plan.sampler.steps, source.examples)
    job = build(
        _at_once(replace(plan, n=source.examples, sampler=everybody), source.examples),
        source,
        shown,
        0,
        _key(),
        Quiet(),
    )
    state = job.procedure.start()
    compiling, per_part = _timed(lambda: job.procedure.measure(state, 0, _key()))
    _, whole = _timed(lambda: _step(job.procedure, state))
    parts = physical.parts(physical.batches(plan.sampler), step.at_once)
    each = parts * per_part + max(0.0, whole - per_part)
    seconds = (
        _AROUND
        + compiling
        + each * plan.sampler.steps
        + _evaluations(plan, job, state)
        + _epsilons(plan)
    )
    memory = _BASE_MEMORY + 4.0 * plan.parameters * 8 + needed
    if isinstance(job.procedure, ReadingAhead):
        job.procedure.stop()
    image = float(np.prod(plan.shape))
    read_ahead = min(BYTES, 2 * image * most * plan.sampler.expected_batch_size)
    images = image * (plan.n * most + len(source)) + read_ahead
    return Estimate(seconds, memory + images)


def _at_once(plan: Plan, size: int) -> Plan:
    """Whose physical batches hold so many examples."""
    assert isinstance(plan.settings, SGDSettings)
    return replace(plan, settings=replace(plan.settings, physical_batch_size=size))


def _step(procedure: Any, state: State) -> State:
    """A release, as the loop makes it."""
    mechanism = procedure.mechanism(0)
    bound = mechanism.bind(procedure.measure(state, 0, _key()), _key())
    return procedure.absorb(state, 0, mechanism.release(bound))


def _evaluations(plan: Plan, job: Job, state: State) -> float:
    """Seconds: the learning curve's, and the last one."""
    assert job.confusion is not None
    confusion = job.confusion
    compiling, each = _timed(lambda: confusion(state))
    images = plan.n_validation or plan.n_test
    looked_at = min(CURVE_POINTS, plan.sampler.steps) * min(images, CURVE_IMAGES) + images
    return compiling + each * looked_at / SHOWN


def _epsilons(plan: Plan) -> float:
    """Seconds: what was spent is shown after every step."""
    events = [event for event, count in plan.tally.items() for _ in range(count)]
    meter = EpsilonMeter(events, plan.delta, plan.relation)
    began = time.monotonic()
    meter.after(plan.sampler.steps // 2)
    return (time.monotonic() - began) * min(EpsilonMeter.POINTS, plan.sampler.steps)


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds: what compiling takes, and what a call takes after that."""
    took = []
    for _ in range(2):
        began = time.monotonic()
        for leaf in jax.tree.leaves(call())[:1]:
            np.asarray(leaf)
        took.append(time.monotonic() - began)
    return max(0.0, took[0] - took[1]), took[1]


def _key() -> SecretKey:
    return SecretKey.from_insecure_seed(0)


# -- counted, for a machine that is not here

FLOAT = 4
"""Bytes."""


@dataclass(frozen=True)
class Cost:
    """Counted. forward: multiply-adds of one image. state: bytes of all parameters and their copies. held:
    bytes of a step besides, whatever the batch and for each example, gradients and patches that are kept
    included. rows: bytes of all features and their head, on the host. total: floating-point operations
    of the whole run, each multiply-add two. read: bytes of pixels that are read in the whole run. noisy:
    numbers that get noise in the whole run. summed: bytes that the devices add up in the whole run.
    """

    parameters: int
    forward: int
    state: float
    held: Held
    rows: float
    total: float
    read: float
    noisy: float
    summed: float


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
    rows = FLOAT * images * plan.features + head_memory(plan)
    total, read = 2.0 * (forward * images + head), float(images * np.prod(plan.shape))
    return Cost(size, forward, FLOAT * size, Held(0.0, 0.0), rows, total, read, 0.0, 0.0)


def _of_network(plan: Plan) -> Cost:
    settings = plan.settings
    assert isinstance(settings, SGDSettings)
    own = plan.input or catalog.find(plan.model).input
    trained, frozen, static = _pieces(plan)
    views = max(1, settings.views)
    shape = (views, *own.window(plan.shape[:2]), plan.shape[2])
    one = ((jax.ShapeDtypeStruct(shape, jnp.float32), ()), jax.ShapeDtypeStruct((), jnp.int32))
    own = replace(own, crop=None)

    def loss(params: PyTree, example: PyTree, frozen: PyTree) -> Any:
        network = eqx.combine(frozen, static)
        shown = loss_of(network, own, lambda seen, _: seen, settings.precision, plan.task)
        return shown(params, example)

    def step(params: PyTree, batch: PyTree, mask: Any, frozen: PyTree) -> PyTree:
        return clipped_grad(loss, 1.0)(params, batch, mask, frozen).value

    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((BATCH, *leaf.shape), leaf.dtype), one)
    mask = jax.ShapeDtypeStruct((BATCH,), jnp.bool_)
    with compiled_for("gpu"):
        traced = jax.make_jaxpr(step)(trained, batch, mask, frozen).jaxpr
        forward = multiply_adds(loss, trained, one, frozen)
    size, rest = parameters(trained), parameters(frozen)
    copies = 4 + OPTIMIZERS[settings.optimizer].copies
    # The trained parameters, their average, the sum of gradients, the noisy sum, and the optimizer's.
    state, program = float(FLOAT * (rest + copies * size)), held(traced)
    images = settings.steps * plan.sampler.expected_batch_size
    return Cost(
        size + rest,
        forward // views,
        state,
        # Parameters and the sum are in the state already.
        program._replace(fixed=max(0.0, program.fixed - FLOAT * (rest + 2 * size))),
        0.0,
        2.0 * multiply_adds_in(traced) / BATCH * images,
        float(images * np.prod(plan.shape)),
        float(settings.steps * size),
        float(settings.steps * FLOAT * size),
    )


def _pieces(plan: Plan) -> tuple[PyTree, PyTree, PyTree]:
    """(trained, frozen, static), arrays as shapes."""

    def make(key: Any) -> tuple[PyTree, PyTree]:
        network = by_name.network(
            plan.model, plan.shape, len(plan.classes), key, plan.input
        ).network
        return eqx.partition(*trainable.select(network, plan.trains or "all", key))

    trained, rest = eqx.filter_eval_shape(make, jax.random.key(0))
    frozen, static = eqx.partition(rest, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    return trained, frozen, static
