"""Pooling of ONE image, height x width x channels."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def max_pool(image: Float[Array, "h w d"], size: int, stride: int) -> Float[Array, "a b d"]:
    return lax.reduce_window(
        image, -jnp.inf, lax.max, (size, size, 1), (stride, stride, 1), "VALID"
    )


def max_pool_padded(image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
    """3 x 3 windows, stride 2, one pixel of padding that never wins."""
    return lax.reduce_window(
        image, -jnp.inf, lax.max, (3, 3, 1), (2, 2, 1), ((1, 1), (1, 1), (0, 0))
    )


def halve(image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
    """Means of 2 x 2 windows; of an odd side's last pixels, means of what is there."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((0, height % 2), (0, width % 2), (0, 0)))
    sums = padded.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3))
    inside = [np.minimum(2, side - np.arange(0, side, 2)) for side in (height, width)]
    return sums / np.outer(*inside)[..., None].astype(np.float32).astype(image.dtype)
