"""A frozen feature map over a source -> a matrix of rows, in memory.

The rows are a function of each image alone (and of public numbers), so they are as private as the
images and cost no privacy. Two promises are made here, for every solver: each row is finite, and
its norm is at most 1. An image with a pixel that is not finite becomes a row of zeros.
"""

from collections.abc import Callable
from contextlib import closing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num

from sfumato.core import devices
from sfumato.data.ahead import ahead, stored
from sfumato.data.source import Source
from sfumato.features.feature_map import FeatureMap
from sfumato.networks.input import pixels

SLACK = 1e-5
"""Norms are summed in float32; a row that is scaled down is scaled this much further, so that none
exceeds 1."""

CHUNK = 64
"""Images per compiled call, on each device."""

GROUP = 8
"""Images at once within a call, on a CPU: large enough for the convolutions, small enough that
their responses stay in the cache. An accelerator takes all of them.
"""


def bounded(row: Float[Array, " d"]) -> Float[Array, " d"]:
    """The row itself if it is finite and of norm at most 1; scaled to norm 1 if longer; zeros if
    not finite. In float32."""
    row = row.astype(jnp.float32)
    squared = jnp.sum(row * row)
    finite = jnp.isfinite(squared)
    row = jnp.where(finite, row, 0.0)
    return row / jnp.maximum(1.0, jnp.sqrt(jnp.where(finite, squared, 0.0)) * (1 + SLACK))


def rows_of(
    feature_map: FeatureMap,
) -> Callable[[Num[np.ndarray, "b h w c"]], Float32[Array, "b d"]]:
    """The map for a batch of images (uint8, or pixels in [0, 1]), compiled, its rows bounded. Its
    arrays are arguments of the program: a large network's would be too much as constants in it, and
    maps that differ in nothing else share one program. As many images go to every device, and a row
    does not depend on their number.
    """
    group = GROUP if jax.default_backend() == "cpu" else CHUNK
    where = devices.here()
    arrays, rest = eqx.partition(feature_map, eqx.is_array)
    feature_map = eqx.combine(where.put_everywhere(arrays), rest)
    return lambda images: _rows(feature_map, where.put_batch(jnp.asarray(images)), group, where)


@eqx.filter_jit
def _rows(
    own: FeatureMap, images: Num[Array, "b h w c"], group: int, where: devices.Layout
) -> Float32[Array, "b d"]:
    arrays, rest = eqx.partition(own, eqx.is_array)

    def each(arrays: FeatureMap, images: Num[Array, "b h w c"]) -> Float32[Array, "b d"]:
        one = eqx.combine(arrays, rest)
        return jax.lax.map(lambda image: bounded(one(pixels(image))), images, batch_size=group)

    return where.rows(each)(arrays, images)


def chunk() -> int:
    """Images per compiled call, on all devices of this process."""
    return CHUNK * devices.here().local


def extract(
    feature_map: FeatureMap,
    source: Source,
    progress: Callable[[int], None] = lambda done: None,
    into: Float[np.ndarray, "n d"] | None = None,
    first: int = 0,
) -> Float[np.ndarray, "n d"]:
    """The rows of all images of the source, from image `first` on, float32 or as `into` has it
    (which is then filled).

    progress(images done) is called after every chunk; all rows but the last `chunk()` of these are
    in place by then.
    """
    compiled, last, size = rows_of(feature_map), len(source) - 1, chunk()
    rows = np.empty((len(source), feature_map.size), np.float32) if into is None else into
    pending: tuple[int, int, Array] | None = None
    starts = range(first, len(source), size)
    # One shape, compiled once: the last chunk repeats the last image.
    images = (stored(source, np.minimum(np.arange(k, k + size), last)) for k in starts)
    with closing(ahead(images)) as read:  # type: ignore[type-var]
        for start, part in zip(starts, read, strict=True):
            stop = min(start + size, len(source))
            result = compiled(part)
            if pending is not None:  # store the last chunk while this one is computed
                rows[pending[0] : pending[1]] = np.asarray(pending[2])[: pending[1] - pending[0]]
            pending = (start, stop, result)
            progress(stop)
    if pending is not None:
        rows[pending[0] : pending[1]] = np.asarray(pending[2])[: pending[1] - pending[0]]
    return rows
