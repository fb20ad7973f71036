"""Random crops and mirror images of pictures that are stored larger than the network sees them, as in
De et al. 2022 on ImageNet (random crops and flips, 4 views)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt64

from sfumato.augment.base import (
    Augmentation,
    Image,
    View,
    along,
    below,
    below_too,
    mirrored,
    picked,
)
from sfumato.networks.input import Input


@dataclass(frozen=True)
class Crop(Augmentation):
    """A window of 1/1.2 of each side, at a place of its own; half of those of color images are
    flipped. At evaluation it stands in the center."""

    words: ClassVar[str] = "cropped to 1/1.2 of each side; in color, half of them flipped"
    stage: ClassVar[int] = 0
    kept: ClassVar[float | None] = 1 / 1.2

    @classmethod
    def for_network(cls, shape: tuple[int, int, int], own: Input) -> "Crop":
        return cls(shape, own.window(shape[:2]))

    def draws(self, words: UInt64[np.ndarray, "b v 1"]) -> Int32[np.ndarray, "b v 3"]:
        own, (down, right) = (
            words[..., 0],
            (side - seen + 1 for side, seen in zip(self.shape, self.out, strict=False)),
        )
        return np.stack([below(own, down), below_too(own, right), mirrored(own, self.colored)], -1)

    def view(self, image: Image, draws: Int32[Array, " 3"]) -> View:
        top, left, flipped = draws
        tall, wide = self.out
        return picked(image, top + jnp.arange(tall), left + along(wide, flipped))
