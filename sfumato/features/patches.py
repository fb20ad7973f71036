"""Responses to whitened random patches (Coates, Ng and Lee 2011), the patches cut from pictures
that nobody took."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from sfumato.core.keys import public_stream
from sfumato.features.dead_leaves import dead_leaves
from sfumato.features.feature_map import (
    FeatureMap,
    Group,
    at_working_size,
    check_colors,
    spectrum,
    unit,
)

PATCH = 6
STRIDE = 2
CELLS = 3
# Keeps flat patches from being blown up: a variance of 10 gray levels squared (Coates et al. use
# the same constant).
_CONTRAST_FLOOR = 10 / 255**2
_WHITENING_FLOOR = 0.1
_ACTIVE = 0.3
# A response of contrast-normalized patches below this counts as silence.
_QUIET = 0.02


class Patches(FeatureMap):
    """Rectified responses to `filters` whitened patches and their mirror images, pooled on 3 x 3
    overlapping cells.

    With P(x) the 6 x 6 patches of the image on a grid of stride 2, each with its mean removed and
    divided by its contrast, the response to filter g is r = <g, P> - b; it is rectified twice,
    relu(r - t) and relu(-r - t), with t such that about 30 % of either are active. The response at
    x to the mirror image of g is the response to g of the mirrored image, mirrored; averaging both
    makes the row the same for an image and its mirror image (exactly so for even width). Logarithm,
    then the lowest six DCT frequencies of the 3 x 3 cells: 6 frequencies x 2 * filters channels.
    """

    weights: Float[Array, "p p c m"]
    offset: Float[Array, " m"]
    threshold: Float[Array, " m"]
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, colors: int, filters: int = 384, seed: int = 0, pictures: int = 400):
        """Draw the pictures, cut 100 patches from each and whiten them: all from the public `seed`.
        m = 2 * filters."""
        check_colors(colors)
        weights, offset, threshold = _filters(colors, filters, seed, pictures)
        self.weights, self.offset, self.threshold = (
            jnp.asarray(weights),
            jnp.asarray(offset),
            jnp.asarray(threshold),
        )
        self.groups = (Group(6, 2 * filters, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        return unit(spectrum(jnp.log(self.pooled(image) + _QUIET))).ravel()

    def pooled(self, image: Float[Array, "h w c"]) -> Float[Array, "3 3 m"]:
        """Mean rectified response per cell; channels: positive parts, then negative parts."""
        response = _convolve(at_working_size(image), self.weights) - self.offset
        half = self.weights.shape[-1] // 2
        parts = []
        for sign in (1, -1):
            cells = _pool(jnp.maximum(sign * response - self.threshold, 0))
            parts.append((cells[..., :half] + cells[:, ::-1, half:]) / 2)
        return jnp.concatenate(parts, axis=-1)


def _pool(active: Float[Array, "a b m"]) -> Float[Array, "3 3 m"]:
    """Means over the 3 x 3 windows, as sums written out.

    The compiler then rectifies and adds in one pass over the responses. As matrix products the
    rectified responses would be stored first, and the whole map takes three times as long.
    """
    down, across = windows(active.shape[0]).tolist(), windows(active.shape[1]).tolist()
    bands = [sum(active[i] * weight for i, weight in enumerate(row) if weight) for row in down]
    return jnp.stack(
        [
            jnp.stack(
                [sum(band[i] * weight for i, weight in enumerate(row) if weight) for row in across]
            )
            for band in bands
        ]
    )


def _convolve(
    image: Float[Array, "h w c"], weights: Float[Array, "p p c m"]
) -> Float[Array, "a b m"]:
    """Responses of contrast-normalized patches. The filters sum to zero, so the patch mean need not
    be removed."""
    count = weights[..., 0].size
    ones = jnp.ones((PATCH, PATCH, 1, 1), image.dtype)

    def slide(what: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            what[None],
            kernel,
            (STRIDE, STRIDE),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[0]

    # Removing 1/2 first keeps the difference of the two moments accurate in float32.
    centered = image - 0.5
    mean = slide(centered.sum(-1, keepdims=True), ones) / count
    square = slide((centered * centered).sum(-1, keepdims=True), ones) / count
    contrast = jnp.sqrt(jnp.maximum(square - mean * mean, 0) + _CONTRAST_FLOOR)
    return slide(centered, weights) / contrast


def windows(length: int, cells: int = CELLS) -> Float[np.ndarray, "cells length"]:
    """Weights of `cells` overlapping mean windows, each 3/7 of the length (6 of 14, neighbors share
    a third).

    The ends of a window may cover a fraction of a position, which keeps the windows
    mirror-symmetric for every length.
    """
    width = length * 3 / (2 * cells + 1)
    start = np.linspace(0, length - width, cells)[:, None]
    position = np.arange(length)[None]
    cover = np.minimum(position + 1, start + width) - np.maximum(position, start)
    return (np.clip(cover, 0, 1) / width).astype(np.float32)


def _filters(
    colors: int, filters: int, seed: int, pictures: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, offsets and thresholds of `filters` patches followed by those of their mirror
    images."""
    images = dead_leaves(pictures, 32, colors, seed)
    draw = public_stream(seed, "patches", colors)
    count = 100 * pictures
    which = draw.integers(pictures, size=count)
    top, left = draw.integers(32 - PATCH + 1, size=(2, count))
    steps = np.arange(PATCH)
    patches = images[
        which[:, None, None], top[:, None, None] + steps[:, None], left[:, None, None] + steps
    ]
    patches = patches.reshape(count, -1).astype(np.float64)
    patches -= patches.mean(1, keepdims=True)
    patches /= np.sqrt((patches**2).mean(1, keepdims=True) + _CONTRAST_FLOOR)
    # ZCA whitening with a floor: y = Z (P - mean), Z = C^(-1/2) (Bell and Sejnowski 1997). A filter
    # is a whitened patch w of norm 1, and <w, y> = <Z w, P> - <Z w, mean>: whitening costs nothing
    # at run time.
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    whitener = (vectors * (values + _WHITENING_FLOOR) ** -0.5) @ vectors.T
    white = (patches - mean) @ whitener
    chosen = white[draw.choice(count, filters, replace=False)]
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    weights = chosen @ whitener
    weights -= weights.mean(1, keepdims=True)
    # Mirrored after the whitening, which is itself only nearly symmetric.
    turned = weights.reshape(-1, PATCH, PATCH, colors)[:, :, ::-1].reshape(filters, -1)
    weights = np.concatenate([weights, turned])
    offset = weights @ mean
    response = patches[: count // 4] @ weights.T - offset
    threshold = np.quantile(np.abs(response), 1 - 2 * _ACTIVE, axis=0)
    # A filter and its mirror image share one threshold and one offset, or the mirror average would
    # not be invariant.
    threshold, offset = (
        np.tile((each[:filters] + each[filters:]) / 2, 2) for each in (threshold, offset)
    )
    return (
        weights.T.reshape(PATCH, PATCH, colors, -1).astype(np.float32),
        offset.astype(np.float32),
        threshold.astype(np.float32),
    )
