"""Feature maps: fixed functions of one image that cost no privacy: nothing in them was learned from
private data.

A map returns one row of numbers, laid out in groups so that a solver may treat each group and each
frequency by itself. The one promise the privacy analysis relies on is that **a row's Euclidean norm
is at most 1** (for finite input; the caller replaces rows that are not finite).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sfumato.core.errors import ArgumentError

# A float32 row scaled by its own rounded norm may end up a few units in the last place above 1.
# Aiming this far below 1 leaves room for the rounding of sums over a hundred thousand terms
# (pairwise sums: error about 17 * 6e-8).
_TARGET_NORM = 1 - 2.0**-16
_SMALLEST_NORM = 1e-12

SIDES = (28, 40)
RESIZED = 32


@dataclass(frozen=True)
class Group:
    """`frequencies * channels` consecutive features; feature f * channels + k is channel k at
    frequency f.

    `weight` is the group's share of the squared norm of the whole row. The last `doubted` frequencies
    tell classes apart in some data sets and nothing in others (`solve/doubted.py`).
    """

    frequencies: int
    channels: int
    weight: float
    doubted: int = 0

    @property
    def size(self) -> int:
        return self.frequencies * self.channels


class FeatureMap(eqx.Module):
    """A fixed function of one image whose result has Euclidean norm <= 1."""

    groups: eqx.AbstractVar[tuple[Group, ...]]

    @property
    def size(self) -> int:
        """d, the length of a row."""
        return sum(group.size for group in self.groups)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        """The row of one image, pixels in [0, 1], c = 1 or 3, h and w at least 8."""
        raise NotImplementedError


class Joined(FeatureMap):
    """Several maps side by side: map i's row times the square root of its share (shares sum to 1)."""

    maps: tuple[FeatureMap, ...]
    shares: tuple[float, ...] = eqx.field(static=True)
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, maps: Sequence[FeatureMap], shares: Sequence[float]):
        if len(maps) != len(shares) or not maps or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ArgumentError(
                "shares", tuple(shares), f"give {len(maps)} positive numbers of sum 1, one per map"
            )
        self.maps, self.shares = tuple(maps), tuple(shares)
        self.groups = tuple(
            replace(group, weight=share * group.weight)
            for each, share in zip(maps, shares, strict=True)
            for group in each.groups
        )

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        return jnp.concatenate(
            [each(image) * share**0.5 for each, share in zip(self.maps, self.shares, strict=True)]
        )


class Given(FeatureMap):
    """Rows that were computed elsewhere, as 1 x 1 x d "images": passed on as they are. Their norm
    is not bounded, so only a head that brings rows to norm 1 itself may follow.
    """

    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, features: int):
        self.groups = (Group(1, features, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        return image.ravel()


def unit(row: Float[Array, "*any"], smallest: float = _SMALLEST_NORM) -> Float[Array, "*any"]:
    """`row` scaled to norm 1 (a hair below, see above), to less if its norm is below `smallest`;
    zeros stay zeros."""
    norm = jnp.sqrt(jnp.sum(row * row))
    return row * (_TARGET_NORM / jnp.maximum(norm, smallest))


def roots(row: Array | np.ndarray) -> Any:
    """sign(x) sqrt|x| of each number, which evens out means of rectified maps (Perronnin et al. 2010)."""
    return jnp.sign(row) * jnp.sqrt(jnp.abs(row))


def check_colors(colors: int) -> None:
    """Raises ArgumentError."""
    if colors not in (1, 3):
        raise ArgumentError("colors", colors, "images have 1 or 3 color channels")


def working_size(height: int, width: int) -> tuple[int, int]:
    """The size at which the maps look at an image: its own where the shorter side is 28 to 40
    pixels.

    Any other is resized so that the shorter side has 32 pixels: filters of fixed size then see
    structure of the same relative scale, and the cost of a row stays bounded. The longer side is
    even, which keeps grids mirror-symmetric.
    """
    shorter = min(height, width)
    if shorter < 8:
        raise ArgumentError(
            "image size", (height, width), "images must be at least 8 pixels high and wide"
        )
    if SIDES[0] <= shorter <= SIDES[1] and max(height, width) <= 2 * SIDES[1]:
        return height, width
    longer = min(2 * SIDES[1], 2 * round(RESIZED * max(height, width) / shorter / 2))
    return (RESIZED, longer) if height <= width else (longer, RESIZED)


def at_working_size(image: Float[Array, "h w c"]) -> Float[Array, "a b c"]:
    """`image` at `working_size`: bilinear, antialiased when it shrinks."""
    height, width, colors = image.shape
    size = working_size(height, width)
    if size == (height, width):
        return image
    return jax.image.resize(image, (*size, colors), method="bilinear")


def cosines(cells: int, count: int) -> Float[np.ndarray, "count cells"]:
    """The first `count` rows of the orthonormal DCT-II of length `cells` (Ahmed, Natarajan and Rao
    1974)."""
    rows = np.cos(np.pi / cells * np.outer(np.arange(count), np.arange(cells) + 0.5)) * np.sqrt(
        2 / cells
    )
    rows[0] /= np.sqrt(2)
    return rows.astype(np.float32)


def low_frequencies(limit: int) -> list[tuple[int, int]]:
    """The pairs (u, v) of vertical and horizontal frequency with u + v <= limit, lowest first."""
    return sorted(
        ((u, v) for u in range(limit + 1) for v in range(limit + 1 - u)),
        key=lambda pair: (sum(pair), pair),
    )


def spectrum(cells: Float[Array, "a b k"], limit: int = 2) -> Float[Array, "f k"]:
    """The DCT coefficients u + v <= limit of every channel of a map of cells."""
    rows, columns, _ = cells.shape
    both = jnp.einsum(
        "ua,vb,abk->uvk",
        cosines(rows, min(limit + 1, rows)),
        cosines(columns, min(limit + 1, columns)),
        cells,
    )
    return jnp.stack([both[u, v] for u, v in low_frequencies(limit)])
