"""Noise drawn on the host from the secret key's streams, in float64, one stream for each leaf: the same
noise on every device and for any number of devices.

Leaves are drawn on all threads (NumPy lets go of the interpreter's lock), and each in parts, so that what was drawn is
added while it is in the processor's cache, and no copy of all the noise is held. A stream is drawn in its order
whatever the size of the parts, so they change no bit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from sfumato.core.keys import SecretKey
from sfumato.data.workers import spread
from sfumato.noise import lattice as on_lattice

MARK: tuple[str, ...] = ()
"""Tells seals of this kind from others."""

PART = 2**16
"""Numbers drawn at once."""

T = TypeVar("T")


def sealed(leaves: Sequence[Any], names: Sequence[str], key: SecretKey) -> list[memoryview]:
    """All bytes of each leaf."""
    return [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data for leaf in leaves]


def normals(
    shapes: Sequence[tuple[int, ...]], names: Sequence[str], key: SecretKey
) -> list[Float64[np.ndarray, "..."]]:
    """Independent N(0, 1) numbers, an array for each leaf."""

    def leaf(which: int) -> np.ndarray:
        drawn = np.empty(shapes[which])
        flat = drawn.reshape(-1)
        for place, part in parts(key, names[which], flat.size):
            flat[place] = part
        return drawn

    return _on_all_threads(leaf, [int(np.prod(shape)) for shape in shapes])


def gaussian(
    leaves: Sequence[Any],
    names: Sequence[str],
    key: SecretKey,
    multiplier: float,
    sensitivity: float,
) -> list[jax.Array]:
    """Each leaf with noise of a deviation of multiplier * sensitivity, summed in float64 and rounded to float32."""
    scale = multiplier * sensitivity

    def leaf(which: int) -> jax.Array:
        value = np.asarray(leaves[which])
        released = np.empty(value.shape, np.float32)
        flat, out = value.reshape(-1), released.reshape(-1)
        for place, part in parts(key, names[which], flat.size):
            part *= scale
            part += flat[place]
            out[place] = part
        return _where_it_was(released, leaves[which])

    return _on_all_threads(leaf, [each.size for each in leaves])


def lattice(
    leaves: Sequence[Any], names: Sequence[str], key: SecretKey, g: float, deviation: float
) -> list[jax.Array]:
    """Each leaf, rounded to multiples of g, with discrete Gaussian noise of so many g. g: a power of two."""

    def leaf(which: int) -> jax.Array:
        value = np.asarray(leaves[which], np.float64)
        stream, flat = key.stream("noise", names[which]), value.reshape(-1)
        noise = on_lattice.discrete_gaussian(stream, deviation, flat.size)
        released = ((on_lattice.whole_steps(flat, g) + noise) * g).astype(np.float32)
        return _where_it_was(released.reshape(value.shape), leaves[which])

    return _on_all_threads(leaf, [each.size for each in leaves])


def parts(key: SecretKey, name: str, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Independent N(0, 1) numbers for a leaf, float64, part by part: where they belong, and they, until the
    next part is asked for."""
    stream, room = key.stream("noise", name), np.empty(min(PART, size))
    for start in range(0, size, PART):
        count = min(PART, size - start)
        yield slice(start, start + count), stream.standard_normal(out=room[:count])


def _on_all_threads(work: Callable[[int], T], sizes: Sequence[int]) -> list[T]:
    """The largest leaves first, as the last one is waited for."""
    order = sorted(range(len(sizes)), key=lambda which: -sizes[which])
    done = dict(zip(order, spread(work, order), strict=True))
    return [done[which] for which in range(len(sizes))]


def _where_it_was(released: np.ndarray, leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
        return jax.device_put(released, leaf.sharding)
    return jnp.asarray(released)
