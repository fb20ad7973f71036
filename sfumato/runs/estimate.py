"""How long a run will take and how much memory: its own code, timed on images of random pixels."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sfumato.clip.microbatch import program_memory
from sfumato.core.keys import SecretKey
from sfumato.data.source import Source
from sfumato.features.extraction import CHUNK
from sfumato.plan.plan import Plan
from sfumato.plan.unit_batches import grouped
from sfumato.runs.jobs import build
from sfumato.runs.progress import Quiet
from sfumato.sampling.samplers import FullBatch
from sfumato.solve.statistics import CHUNK as ROWS
from sfumato.train.feed import physical_batches

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
    together = getattr(plan.settings, "physical", ROWS)
    matrices = (
        d
        * d
        * (
            1
            if plan.method not in ("ls", "newton") or not getattr(plan.settings, "per_class", False)
            else c + 1
        )
    )
    curved = (
        0.0 if plan.method in ("sgd", "adam", "lamb", "means", "dp-sgd") else 4.0 * 4 * matrices
    )
    return (
        4.0 * 8 * plan.parameters
        + 4.0 * 4 * together * c
        + 4.0 * plan.n_test * c
        + 8.0 * 2 * c * c
        + curved
    )


def _network(plan: Plan) -> Estimate:
    settings, most = plan.settings, plan.images_per_unit or 1
    source = _random_images(plan, settings.physical * most)  # type: ignore[union-attr]
    everybody = FullBatch(plan.sampler.steps, source.examples)
    job = build(
        replace(plan, n=source.examples, sampler=everybody), source, None, 0, _key(), Quiet()
    )
    state = job.procedure.start()
    per_part = _seconds(lambda: job.procedure.measure(state, 0, _key()))
    parts = plan.sampler.expected_batch_size / source.examples
    views = max(1, settings.views)  # type: ignore[union-attr]
    memory = _BASE_MEMORY + 4.0 * plan.parameters * 8 + _step_memory(job.procedure, state)
    images = float(np.prod(plan.shape)) * (plan.n * most + 4 * views * len(source))
    return Estimate(per_part * parts * job.procedure.steps + 15, memory + images)


def _step_memory(procedure: Any, state: dict[str, Any]) -> float:
    """Bytes of the compiled gradient of one physical batch."""
    import jax

    def clipped_sum(arrays: Any, examples: Any, mask: Any) -> Any:
        params, constants = arrays
        return procedure.clipped(params, examples, mask, *constants).value

    batch = next(
        physical_batches(
            procedure.fetch,
            np.arange(procedure.physical_batch_size),
            0,
            procedure.physical_batch_size,
        )
    )
    arrays = ((state["params"], procedure.constants), *batch)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    return float(program_memory(clipped_sum, shapes, procedure.physical_batch_size))


def _seconds(call) -> float:  # type: ignore[no-untyped-def]
    """Of the second call; the first one compiles."""
    for _ in range(2):
        began = time.monotonic()
        np.asarray(next(iter(_leaves(call()))))
    return time.monotonic() - began


def _leaves(tree: object) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)


def _key() -> SecretKey:
    return SecretKey.from_insecure_seed(0)
