"""A batch in parts that fit the device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError

Microbatch = int | str | None
Sum = Callable[[PyTree, Array], PyTree]


def check_microbatch(microbatch: Microbatch) -> None:
    if isinstance(microbatch, str) and microbatch != "auto":
        raise ArgumentError("microbatch", microbatch, 'give a number of examples, "auto" or None')
    if not isinstance(microbatch, str) and microbatch is not None:
        whole("microbatch", microbatch)


def in_microbatches(
    clipped_sum: Sum, microbatch: Microbatch, params: PyTree, batch: PyTree[Shaped[Array, "b ..."]], mask: Bool[Array, "b"]
) -> PyTree:
    if microbatch is None or microbatch >= len(mask):
        return clipped_sum(batch, mask)
    size = microbatch
    count = -(-len(mask) // size)

    def split(leaf: Array) -> Array:
        """(b, ...) -> (count, size, ...), neighbours in different parts, so that a sharded batch stays where it is."""
        padding = [(0, count * size - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.moveaxis(jnp.pad(leaf, padding).reshape((size, count, *leaf.shape[1:])), 1, 0)

    def step(total: PyTree, part: tuple[PyTree, Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, clipped_sum(*part)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    return jax.lax.scan(step, zeros, (jax.tree.map(split, batch), split(mask)))[0]
