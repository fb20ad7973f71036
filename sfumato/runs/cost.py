"""What a run will take before it is begun: measured here (its own code, timed on images of random
pixels), or counted from the plan alone, for a machine that is not here.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sfumato.augment.views import ITSELF
from sfumato.clip.handling import handle
from sfumato.clip.microbatch import free_memory, program_memory
from sfumato.clip.trace import trace_loss
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.precision import PRECISIONS
from sfumato.data.ahead import BYTES
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.extraction import CHUNK
from sfumato.networks import catalog, trainable
from sfumato.networks.image_cost import forward_cost, multiply_adds, outline, parameters
from sfumato.plan.plan import Plan
from sfumato.plan.unit_batches import grouped
from sfumato.runs.jobs import Job, build, loss_of
from sfumato.runs.progress import EpsilonMeter, Quiet
from sfumato.runs.recorder import CURVE_POINTS
from sfumato.sampling import FullBatch, Sampler
from sfumato.solve.optimizers import OPTIMIZERS
from sfumato.solve.statistics import CHUNK as ROWS
from sfumato.train.evaluation import CURVE_IMAGES
from sfumato.train.feed import physical_batches
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
    together = getattr(plan.settings, "physical_batch_size", ROWS)
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
    settings, most = plan.settings, plan.images_per_unit or 1
    assert isinstance(settings, SGDSettings)
    source, shown = (
        _random_images(plan, settings.physical_batch_size * most),
        _random_images(replace(plan, images_per_unit=None), SHOWN),
    )
    everybody = FullBatch(plan.sampler.steps, source.examples)
    job = build(
        replace(plan, n=source.examples, sampler=everybody), source, shown, 0, _key(), Quiet()
    )
    state = job.procedure.start()
    needed = _step_memory(job.procedure, state)
    if needed > free_memory():
        raise ArgumentError(
            "physical_batch_size",
            settings.physical_batch_size,
            f"so many examples at once need {needed / 1e9:.1f} GB, of which "
            f"{free_memory() / 1e9:.1f} GB are free; take fewer",
        )
    compiling, per_part = _timed(lambda: job.procedure.measure(state, 0, _key()))
    _, whole = _timed(lambda: _step(job.procedure, state))
    each = _parts(plan.sampler, source.examples) * per_part + max(0.0, whole - per_part)
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


def _parts(sampler: Sampler, physical: int) -> float:
    """Of a batch, on average; each is padded to the same size."""
    parts = sampler.expected_batch_size / physical
    return math.ceil(parts) if not sampler.secret else max(1.0, parts + 0.5)


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


def _step_memory(procedure: Any, state: dict[str, Any]) -> float:
    """Bytes of the compiled gradient of one physical batch."""

    def clipped_sum(arrays: Any, examples: Any, mask: Any) -> Any:
        params, constants = arrays
        return procedure.clipped(params, examples, mask, *constants).value

    size = procedure.physical_batch_size
    batch = next(physical_batches(procedure.fetch, np.arange(size), 0, size))
    arrays = ((state["params"], procedure.constants), *batch)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    return float(program_memory(clipped_sum, shapes, size))


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
    """Counted. forward: multiply-adds of one image. state: bytes of all parameters and their copies. tape:
    bytes of one view in a step, activations and cotangents that are held until the sum. rows: bytes
    of all features and their head, on the host. total: floating-point operations of the whole run, each
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
    rows = FLOAT * images * plan.features + head_memory(plan)
    return Cost(size, forward, FLOAT * size, 0.0, rows, 2.0 * (forward * images + head))


def _of_network(plan: Plan) -> Cost:
    settings = plan.settings
    assert isinstance(settings, SGDSettings)
    own = plan.input or catalog.find(plan.model).input
    trained, frozen, static = _pieces(plan)
    views = max(1, settings.views)
    view = jax.ShapeDtypeStruct((*own.window(plan.shape[:2]), plan.shape[2]), jnp.float32)
    one = ((view, ()), jax.ShapeDtypeStruct((), jnp.int32))
    own = replace(own, crop=None)

    def loss(params: PyTree, example: tuple[PyTree, Any]) -> Any:
        rest, images = example
        network = eqx.combine(rest, static)
        return loss_of(network, own, ITSELF, settings.precision, plan.task)(params, images)

    step = multiply_adds(jax.grad(loss), trained, (frozen, one))
    clipping = handle(trace_loss(loss, trained, (frozen, one)))
    tape = sum(clipping.sizes(path).tape for path in clipping.sites)
    size, rest = parameters(trained), parameters(frozen)
    copies = 4 + OPTIMIZERS[settings.optimizer].copies
    # The trained parameters, their average, the sum of gradients, the noisy sum, and the optimizer's.
    images = settings.steps * plan.sampler.expected_batch_size * views
    return Cost(
        size + rest,
        multiply_adds(loss, trained, (frozen, one)),
        FLOAT * (rest + copies * size),
        PRECISIONS[settings.precision].size * tape,
        0.0,
        2.0 * step * images,
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
