"""MobileNetV2 (Sandler et al. 2018, Table 2) with every BatchNorm folded into the convolution
before it.

A folded norm is frozen statistics and so no longer mixes examples; what was its scale and shift is
trained, if at all, as kernel and bias.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Backbone
from sfumato.networks.input import Input
from sfumato.networks.layers.basic import Dense, Linear, fan_in_normal, like
from sfumato.networks.layers.convolutions import Depthwise, Padding, convolve_padded

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, output channels, blocks, stride of the first block)."""
_STEM, _SIZE = 32, 1280


class Stem(eqx.Module):
    """The first convolution, 3 x 3 of stride 2."""

    kernel: Float[Array, "3 3 d p"]
    bias: Float[Array, " p"]
    padding: Padding = eqx.field(static=True)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return convolve_padded(image, self.kernel, 2, padding=self.padding) + like(self.bias, image)


class Block(eqx.Module):
    """Widen - depthwise 3 x 3 - narrow, ReLU6 after the first two; added to its input where the
    shapes agree."""

    expand: Dense | None
    depthwise: Depthwise
    project: Dense

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int,
        padding: Padding,
        key: PRNGKeyArray,
    ):
        keys, wide = jax.random.split(key, 3), expansion * inputs
        self.expand = None if expansion == 1 else Dense.random(inputs, wide, keys[0], gain=2.0)
        self.depthwise = Depthwise(wide, 3, keys[1], stride, padding, gain=2.0)
        self.project = Dense.random(wide, outputs, keys[2])

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        maps = image if self.expand is None else jax.nn.relu6(self.expand(image))
        maps = self.project(jax.nn.relu6(self.depthwise(maps)))
        return image + maps if maps.shape == image.shape else maps


class MobileNetV2(Backbone):
    """Width 1.0. Without norms to set the scale, random weights have the variance of He et al. 2015
    where ReLU6 follows."""

    stem: Stem
    blocks: list[Block]
    last: Dense
    head: Linear

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        key: PRNGKeyArray,
        padding: Padding = "symmetric",
    ):
        colors = shape[2]
        keys = iter(jax.random.split(key, 3 + sum(count for _, _, count, _ in STAGES)))
        kernel = fan_in_normal(next(keys), (3, 3, colors, _STEM), 9 * colors, gain=2.0)
        self.stem = Stem(kernel, jnp.zeros(_STEM), padding)
        self.blocks, inputs = [], _STEM
        for expansion, outputs, count, stride in STAGES:
            for index in range(count):
                self.blocks.append(
                    Block(inputs, outputs, expansion, 1 if index else stride, padding, next(keys))
                )
                inputs = outputs
        self.last = Dense.random(inputs, _SIZE, next(keys), gain=2.0)
        self.head = Linear.random(_SIZE, classes, next(keys))

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = jax.nn.relu6(self.stem(image))
        for block in self.blocks:
            maps = block(maps)
        return jax.nn.relu6(self.last(maps)).mean((0, 1), dtype=jnp.float32)

    def trunk(self) -> list[Any]:
        return self.blocks

    def ending(self) -> list[Any]:
        return [self.last, self.head]


def _same(shape: tuple[int, int, int], classes: int, key: PRNGKeyArray) -> MobileNetV2:
    return MobileNetV2(shape, classes, key, "SAME")


_IMAGENET = Input(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 3)
ARCHITECTURES = (
    Architecture(
        "mobilenetv2_100",
        "mobilenet",
        MobileNetV2,
        _IMAGENET,
        ("timm/mobilenetv2_100.ra_in1k",),
        rectified=True,
    ),
    # Named as timm names networks with TensorFlow's padding.
    Architecture(
        "tf_mobilenetv2_100",
        "mobilenet",
        _same,
        Input(224, (0.5,), (0.5,), "bicubic", 3),
        rectified=True,
    ),
)
