"""Mixtures of the views of ONE example: DP-Mix_Self of Bao et al. 2023, "DP-Mix: Mixup-based data
augmentation for differentially private learning".

Ordinary mixup (Zhang et al. 2018) mixes two people's images. The gradient of such a mixture is a
function of both, so one person is in the clipped gradients of several examples and moves the sum by
more than one clip allows. Here both images are one example's own: it is all inside of its clip.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num, UInt64
from scipy.special import betaincinv

from sfumato.augment.base import LOW, Augmentation, below, below_too
from sfumato.networks.input import pixels

ALPHA = 0.2
"""The weight of the first is Beta(ALPHA, ALPHA): of Zhang et al. 2018, Sec. 3.1, on ImageNet."""
_STEPS = 2**16


@dataclass(frozen=True)
class Mix(Augmentation):
    """The last half of the views (fewer, if odd) are mixtures of two different ones of the first
    half, which stay as they are. The label is the same for all."""

    words: ClassVar[str] = (
        "half of the views mixtures of two of the other views of the same example"
    )
    random: ClassVar[int] = 2
    stage: ClassVar[int] = 2
    least_views: ClassVar[int] = 3

    def draws(self, words: UInt64[np.ndarray, "b v 2"]) -> Int32[np.ndarray, "b v 3"]:
        """Two views and the weight of the first, in 2^-16."""
        count = words.shape[1]
        plain = count - count // 2
        own = np.broadcast_to(np.arange(count, dtype=np.int32), words.shape[:2])
        one = below(words[..., 0], plain)
        other = (one + 1 + below_too(words[..., 0], plain - 1)) % plain
        level = (words[..., 1] // LOW).astype(np.float64) / 2**32
        weight = np.rint(_STEPS * betaincinv(ALPHA, ALPHA, level)).astype(np.int32)
        mixed = own >= plain
        return np.stack(
            [
                np.where(mixed, one, own),
                np.where(mixed, other, own),
                np.where(mixed, weight, _STEPS),
            ],
            -1,
        )

    def views(
        self, images: Num[Array, "v h w c"], draws: Int32[Array, "v 3"]
    ) -> Float[Array, "v h w c"]:
        one, other = (pixels(jnp.take(images, draws[:, k], axis=0, mode="clip")) for k in (0, 1))
        weight = draws[:, 2].astype(jnp.float32)[:, None, None, None] / _STEPS
        return other + (one - other) * weight
