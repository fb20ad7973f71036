"""Crops of any size and aspect, as Szegedy et al. 2015 (Sec. 6) and, privately, Kurakin et al. 2022."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt64

from sfumato.augment.base import LOW, Augmentation, Image, along, below, below_too, mirrored, picked
from sfumato.networks.input import Input, pixels

AREA = (0.08, 1.0)
"""Of the image."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height."""
TRIES = 10


@dataclass(frozen=True)
class Inception(Augmentation):
    """A box of 8 % to all of the area, its aspect 3/4 to 4/3 (its logarithm uniform), resized by
    bilinear interpolation between the box's own pixels; half of those of color images are flipped.
    The first of ten boxes that fits; if none does, the largest of such an aspect in the center. At
    evaluation, the central 7/8 of the side are seen."""

    words: ClassVar[str] = (
        "boxes of 8 % to all of the area, aspect 3/4 to 4/3, resized; in color, half of them flipped"
    )
    random: ClassVar[int] = TRIES + 1
    stage: ClassVar[int] = 0
    kept: ClassVar[float | None] = 0.875

    @classmethod
    def for_network(cls, shape: tuple[int, int, int], own: Input) -> "Inception":
        return cls(shape, own.shape(shape)[:2])

    def draws(self, words: UInt64[np.ndarray, "b v r"]) -> Int32[np.ndarray, "b v 5"]:
        """Top, left, height, width, and whether it is flipped."""
        tall, wide = self.shape[:2]
        share = (words[..., :TRIES] % LOW).astype(np.float64) / 2**32
        log_aspect = (words[..., :TRIES] // LOW).astype(np.float64) / 2**32
        area = tall * wide * (AREA[0] + (AREA[1] - AREA[0]) * share)
        low, high = np.log(ASPECT)
        aspect = np.exp(low + (high - low) * log_aspect)
        heights, widths = (
            np.rint(np.sqrt(each)).astype(np.int32) for each in (area / aspect, area * aspect)
        )
        fits = (heights >= 1) & (heights <= tall) & (widths >= 1) & (widths <= wide)
        first, found = fits.argmax(-1)[..., None], fits.any(-1)
        height, width = (
            np.where(found, np.take_along_axis(each, first, -1)[..., 0], all_of)
            for each, all_of in zip((heights, widths), self._largest(), strict=True)
        )
        last = words[..., TRIES]
        top, left = below(last, tall - height + 1), below_too(last, wide - width + 1)
        top, left = (
            np.where(found, at, (side - size) // 2)
            for at, side, size in ((top, tall, height), (left, wide, width))
        )
        return np.stack([top, left, height, width, mirrored(last, self.colored)], -1).astype(
            np.int32
        )

    def _largest(self) -> tuple[int, int]:
        tall, wide = self.shape[:2]
        return max(1, min(tall, round(wide / ASPECT[0]))), max(
            1, min(wide, round(tall * ASPECT[1]))
        )

    def view(self, image: Image, draws: Int32[Array, " 5"]) -> Float[Array, "h2 w2 c"]:
        top, left, height, width, flipped = draws
        tall, wide = self.out
        rows, under, down = _between(jnp.arange(tall), top, height, tall)
        columns, after, right = _between(along(wide, flipped), left, width, wide)

        def blended(row: Array) -> Float[Array, "h w c"]:
            one, other = (pixels(picked(image, row, at)) for at in (columns, after))
            return one + (other - one) * right[:, None]

        one, other = blended(rows), blended(under)
        return one + (other - one) * down[:, None, None]


def _between(
    place: Int32[Array, " n"], first: Array, size: Array, out: int
) -> tuple[Int32[Array, " n"], Int32[Array, " n"], Float[Array, " n"]]:
    """For pixels `place` of `out`: between which two of `first .. first + size - 1` they lie, and how
    far from the one before; centers of pixels go to centers."""
    at = jnp.clip((place + 0.5) * (size / out) - 0.5, 0, size - 1)
    before = jnp.floor(at).astype(jnp.int32)
    return first + before, first + jnp.minimum(before + 1, size - 1), at - before
