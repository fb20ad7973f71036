"""Brightness, contrast and saturation."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt64

from sfumato.augment.base import Augmentation, Image, below, below_too
from sfumato.networks.input import pixels

AMOUNT = 0.4
"""Factors are uniform in 1 - AMOUNT to 1 + AMOUNT."""
_STEPS = 2**15
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue: ITU-R BT.601."""


@dataclass(frozen=True)
class Jitter(Augmentation):
    """First brightness (all times a factor), then contrast (the distance to the image's own mean
    gray), then, in color, saturation (the distance to each pixel's own gray); cut off at 0 and 1
    after each."""

    words: ClassVar[str] = (
        "brightness, contrast and (in color) saturation times 0.6 to 1.4, each for itself"
    )
    random: ClassVar[int] = 2

    def draws(self, words: UInt64[np.ndarray, "b v 2"]) -> Int32[np.ndarray, "b v 3"]:
        span = 2 * _STEPS + 1
        one, other = words[..., 0], words[..., 1]
        return np.stack([below(one, span), below_too(one, span), below(other, span)], -1) - _STEPS

    def view(self, image: Image, draws: Int32[Array, " 3"]) -> Float[Array, "h w c"]:
        brightness, contrast, saturation = 1 + AMOUNT / _STEPS * draws.astype(jnp.float32)
        found = jnp.clip(pixels(image) * brightness, 0, 1)
        mean = _gray(found).mean()
        found = jnp.clip(mean + (found - mean) * contrast, 0, 1)
        if not self.colored:
            return found
        gray = _gray(found)
        return jnp.clip(gray + (found - gray) * saturation, 0, 1)


def _gray(image: Float[Array, "h w c"]) -> Float[Array, "h w 1"]:
    if image.shape[2] != 3:
        return image.mean(2, keepdims=True)
    return jnp.sum(image * _LUMA, 2, keepdims=True)
