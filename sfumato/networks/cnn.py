"""The small tanh network of Papernot et al. 2021 (arXiv 2007.14191), Table 1: bounded activations
suit clipped gradients.

The second convolution is padded here, so that images of 8 pixels pass.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Backbone
from sfumato.networks.layers.basic import Linear
from sfumato.networks.layers.convolutions import AffineConv
from sfumato.networks.layers.pooling import max_pool


class SmallCNN(Backbone):
    """conv 8x8/2 (16) - pool - conv 4x4/2 (32) - pool - 32 - classes, tanh throughout; images of at
    least 8 pixels."""

    first: AffineConv
    second: AffineConv
    hidden: Linear
    head: Linear

    def __init__(self, shape: tuple[int, int, int], classes: int, key: PRNGKeyArray):
        height, width, colors = shape
        keys = jax.random.split(key, 4)
        self.first = _conv(colors, 16, 8, keys[0])
        self.second = _conv(16, 32, 4, keys[1])
        self.hidden = Linear.random(
            32 * _after(_after(height)) * _after(_after(width)), 32, keys[2]
        )
        self.head = Linear.random(32, classes, keys[3])

    def _maps(self, image: Float[Array, "h w c"]) -> Float[Array, "a b 32"]:
        maps = max_pool(jnp.tanh(self.first(image)), 2, 1)
        return max_pool(jnp.tanh(self.second(maps)), 2, 1)

    def trunk(self) -> list[Any]:
        return [self.first, self.second, self.hidden]

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " 32"]:
        return jnp.tanh(self.hidden(self._maps(image).ravel()))


def _conv(inputs: int, outputs: int, size: int, key: PRNGKeyArray) -> AffineConv:
    return AffineConv(inputs, outputs, size, key, stride=2, padding="SAME", variance=1.0)


def _after(length: int) -> int:
    """Side length after one convolution of stride 2 and one 2 x 2 pool of stride 1."""
    return -(-length // 2) - 1


ARCHITECTURES = (Architecture("cnn", "cnn", SmallCNN),)
