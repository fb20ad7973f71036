"""Random shifts and mirror images, as in De et al. 2022, Sec. 3.2 (pad, crop, flip)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt64

from sfumato.augment.base import Augmentation, Image, along, below, below_too, mirrored, picked


@dataclass(frozen=True)
class Shift(Augmentation):
    """Down and right by up to `most` pixels each, an eighth of the shorter side unless given; what
    comes in at the border is mirrored there. flip: half the views are mirror images; those of color
    images unless given."""

    most: int | None = None
    flip: bool | None = None

    words: ClassVar[str] = (
        "shifted by up to an eighth of the shorter side, mirrored at the border; in color, half of them flipped"
    )
    stage: ClassVar[int] = 0

    @property
    def reach(self) -> int:
        return max(1, min(self.shape[:2]) // 8) if self.most is None else self.most

    def draws(self, words: UInt64[np.ndarray, "b v 1"]) -> Int32[np.ndarray, "b v 3"]:
        own, span = words[..., 0], 2 * self.reach + 1
        flips = mirrored(own, self.colored if self.flip is None else self.flip)
        return np.stack(
            [below(own, span) - self.reach, below_too(own, span) - self.reach, flips], -1
        )

    def view(self, image: Image, draws: Int32[Array, " 3"]) -> Image:
        down, right, flipped = draws
        rows, columns = (
            _folded(at, size)
            for at, size in zip(
                (jnp.arange(self.shape[0]) + down, along(self.shape[1], flipped) + right),
                self.shape,
                strict=False,
            )
        )
        return picked(image, rows, columns)


def _folded(position: Int32[Array, " n"], size: int) -> Int32[Array, " n"]:
    """Positions outside 0 .. size-1 are mirrored at the border pixels."""
    period = max(2 * (size - 1), 1)
    position = lax.rem(jnp.abs(position), jnp.int32(period))
    return jnp.where(position >= size, period - position, position)
