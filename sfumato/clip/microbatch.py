"""A batch in parts that fit the device."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from sfumato.clip.arithmetic import platform
from sfumato.core import machine
from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError

Microbatch = int | str | None
Sum = Callable[..., PyTree]
"""(params, batch, mask, *frozen) -> the tree of sums."""

SHARE = 0.8
"""Of the memory that is free, what a compiled program may take."""

UNROLLED = 8
_found: dict[Hashable, int] = {}


def check_microbatch(microbatch: Microbatch) -> None:
    """Raise ArgumentError unless it is a number of examples, "auto" or None."""
    if isinstance(microbatch, str) and microbatch != "auto":
        raise ArgumentError("microbatch", microbatch, 'give a number of examples, "auto" or None')
    if not isinstance(microbatch, str) and microbatch is not None:
        whole("microbatch", microbatch)


def in_microbatches(
    clipped_sum: Sum,
    size: int | None,
    params: PyTree,
    batch: PyTree[Shaped[Array, "b ..."]],
    mask: Bool[Array, " b"],
    *frozen: PyTree,
) -> PyTree:
    """The sum over the batch, `size` examples at a time; the last examples of all may be masked
    padding."""
    if size is None or size >= len(mask):
        return clipped_sum(params, batch, mask, *frozen)
    count = -(-len(mask) // size)

    def split(leaf: Array) -> Array:
        """(b, ...) -> (count, size, ...), neighbors in different parts, so that a sharded batch
        stays where it is.

        Padding repeats examples from the front, under a mask of False; zeros would do, but random
        keys have none.
        """
        padded = leaf if count * size == len(mask) else leaf[jnp.arange(count * size) % len(mask)]
        return jnp.moveaxis(padded.reshape((size, count, *leaf.shape[1:])), 1, 0)

    def step(total: PyTree, part: tuple[PyTree, Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, clipped_sum(params, *part, *frozen)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    # On a CPU, XLA's gradients of convolutions are 6 to 50 times slower inside a loop than outside.
    unroll = count if platform() == "cpu" and count <= UNROLLED else 1
    members = jnp.pad(mask, (0, count * size - len(mask))).reshape(size, count).T
    return jax.lax.scan(step, zeros, (jax.tree.map(split, batch), members), unroll=unroll)[0]


def fitting(
    clipped_sum: Sum,
    name: Hashable,
    params: PyTree,
    batch: PyTree[Shaped[Array, "b ..."]],
    mask: Bool[Array, " b"],
    *frozen: PyTree,
) -> int:
    """The largest microbatch (or nearly) whose compiled program fits into the device's free memory.

    Found by compiling for the whole batch and, as long as that is too much, for a proportionally
    smaller one; nothing is run. The answer is kept for `name` and these shapes, so it does not
    change during a run. Raises ArgumentError if not even one example fits.
    """
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)),
        (params, batch, mask, *frozen),
    )
    key = (name, *jax.tree.leaves(shapes), jax.tree.structure(shapes))
    if key not in _found:
        free, size = SHARE * free_memory(), len(mask)
        while (needed := program_memory(clipped_sum, shapes, size)) > free:
            if size == 1:
                raise ArgumentError(
                    "microbatch",
                    "auto",
                    f"one example alone needs {needed / 1e9:.1f} GB of the "
                    f"{free / 1e9:.1f} GB there are; take a smaller model, method='two_pass' or jax.checkpoint",
                )
            size = max(1, min(size - 1, int(0.95 * size * free / needed)))
        _found[key] = size
    return _found[key]


def program_memory(clipped_sum: Sum, shapes: tuple[PyTree, ...], size: int) -> int:
    """Bytes that the compiled sum over `size` examples takes, its arguments included, by XLA's own
    analysis."""
    params, batch, mask, *frozen = shapes
    part = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), (batch, mask)
    )
    found: Any = jax.jit(clipped_sum).lower(params, *part, *frozen).compile().memory_analysis()
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def free_memory() -> int:
    """Bytes free on the first device; of a CPU, in the whole machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return machine.free_memory() or 4 * 2**30
