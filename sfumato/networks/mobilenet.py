"""Chains of inverted residual blocks, of which MobileNetV2 (Sandler et al. 2018, Table 2) is one,
with every BatchNorm folded into the convolution before it.

A folded norm is frozen statistics and so no longer mixes examples; what was its scale and shift is
trained, if at all, as kernel and bias.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Backbone
from sfumato.networks.input import Input
from sfumato.networks.layers.basic import Dense, Linear, fan_in_normal, like
from sfumato.networks.layers.convolutions import Depthwise, Padding, convolve_padded


class BlockRow(NamedTuple):
    """expansion: of the channels inside of a block. stride: of the first block. size: of the depthwise
    kernels."""

    expansion: int
    outputs: int
    blocks: int
    stride: int
    size: int = 3


_STAGES = (
    BlockRow(1, 16, 1, 1),
    BlockRow(6, 24, 2, 2),
    BlockRow(6, 32, 3, 2),
    BlockRow(6, 64, 4, 2),
    BlockRow(6, 96, 3, 1),
    BlockRow(6, 160, 3, 2),
    BlockRow(6, 320, 1, 1),
)
_STEM, _SIZE = 32, 1280


class Stem(eqx.Module):
    """The first convolution, 3 x 3 of stride 2."""

    kernel: Float[Array, "3 3 d p"]
    bias: Float[Array, " p"]
    padding: Padding = eqx.field(static=True)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return convolve_padded(image, self.kernel, 2, padding=self.padding) + like(self.bias, image)


class Block(eqx.Module):
    """Widen - depthwise - narrow, ReLU6 after the first two; added to its input where the
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
        size: int = 3,
    ):
        keys, wide = jax.random.split(key, 3), expansion * inputs
        self.expand = None if expansion == 1 else Dense.random(inputs, wide, keys[0], gain=2.0)
        self.depthwise = Depthwise(wide, size, keys[1], stride, padding, gain=2.0)
        self.project = Dense.random(wide, outputs, keys[2])

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        maps = image if self.expand is None else jax.nn.relu6(self.expand(image))
        maps = self.project(jax.nn.relu6(self.depthwise(maps)))
        return image + maps if maps.shape == image.shape else maps


class InvertedResiduals(Backbone):
    """A stem of 32 channels, the stages, a last 1 x 1 convolution of 1,280 channels, the mean over all
    pixels. Without norms to set the scale, random weights have the variance of He et al. 2015 where
    ReLU6 follows. depths: blocks of each stage."""

    stem: Stem
    blocks: list[Block]
    last: Dense
    head: Linear
    depths: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        stages: tuple[BlockRow, ...],
        shape: tuple[int, int, int],
        classes: int,
        key: PRNGKeyArray,
        padding: Padding,
    ):
        colors, self.depths = shape[2], tuple(stage.blocks for stage in stages)
        keys = iter(jax.random.split(key, 3 + sum(self.depths)))
        kernel = fan_in_normal(next(keys), (3, 3, colors, _STEM), 9 * colors, gain=2.0)
        self.stem = Stem(kernel, jnp.zeros(_STEM), padding)
        self.blocks, inputs = [], _STEM
        for expansion, outputs, count, first, size in stages:
            for stride in (first, *[1] * (count - 1)):
                self.blocks.append(
                    Block(inputs, outputs, expansion, stride, padding, next(keys), size)
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


class MobileNetV2(InvertedResiduals):
    """Width 1.0."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        key: PRNGKeyArray,
        padding: Padding = "symmetric",
    ):
        super().__init__(_STAGES, shape, classes, key, padding)


def _same(shape: tuple[int, int, int], classes: int, key: PRNGKeyArray) -> MobileNetV2:
    return MobileNetV2(shape, classes, key, "SAME")


IMAGENET = Input(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 3)
ARCHITECTURES = (
    Architecture(
        "mobilenetv2_100",
        "mobilenet",
        MobileNetV2,
        IMAGENET,
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
