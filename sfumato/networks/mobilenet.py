"""Chains of inverted residual blocks, of which MobileNetV2 (Sandler et al. 2018, Table 2) is one,
with every BatchNorm folded into the convolution before it.

A folded norm is frozen statistics and so no longer mixes examples; what was its scale and shift is
trained, if at all, as kernel and bias.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Chain
from sfumato.networks.input import HALVES, IMAGENET, Input
from sfumato.networks.layers.basic import Dense, Linear
from sfumato.networks.layers.convolutions import AffineConv, Depthwise, Padding


class BlockStage(NamedTuple):
    """expansion: of the channels inside of a block. stride: of the first block. size: of the depthwise
    kernels."""

    expansion: int
    outputs: int
    blocks: int
    stride: int
    size: int = 3


_STAGES = (
    BlockStage(1, 16, 1, 1),
    BlockStage(6, 24, 2, 2),
    BlockStage(6, 32, 3, 2),
    BlockStage(6, 64, 4, 2),
    BlockStage(6, 96, 3, 1),
    BlockStage(6, 160, 3, 2),
    BlockStage(6, 320, 1, 1),
)
_STEM, _SIZE = 32, 1280


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


class InvertedResiduals(Chain):
    """A 3 x 3 convolution of stride 2 to 32 channels, the stages, a last 1 x 1 convolution of 1,280 channels, the mean over all
    pixels. Without norms to set the scale, random weights have the variance of He et al. 2015 where
    ReLU6 follows. depths: blocks of each stage."""

    stem: AffineConv
    blocks: list[Block]
    last: Dense
    head: Linear
    depths: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        stages: tuple[BlockStage, ...],
        shape: tuple[int, int, int],
        classes: int,
        key: PRNGKeyArray,
        padding: Padding,
    ):
        self.depths = tuple(stage.blocks for stage in stages)
        keys = iter(jax.random.split(key, 3 + sum(self.depths)))
        self.stem = AffineConv(shape[2], _STEM, 3, next(keys), 2, padding=padding)
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
        maps = self.through(jax.nn.relu6(self.stem(image)))
        return jax.nn.relu6(self.last(maps)).mean((0, 1), dtype=jnp.float32)

    def ending(self) -> list[Any]:
        return [self.last, self.head]


def architectures(
    name: str,
    family: str,
    stages: tuple[BlockStage, ...],
    side: int,
    weights: tuple[str, ...],
    ported: tuple[str, ...],
) -> tuple[Architecture, Architecture]:
    """The network with PyTorch's padding and with TensorFlow's, named as timm names them. side: of
    its image, in pixels. weights, ported: the public weights of each."""

    def architecture(
        name: str, padding: Padding, wants: Input, weights: tuple[str, ...]
    ) -> Architecture:
        make = partial(InvertedResiduals, stages, padding=padding)
        return Architecture(name, family, make, wants, weights, rectified=True)

    return (
        architecture(name, "symmetric", replace(IMAGENET, size=side), weights),
        architecture(f"tf_{name}", "SAME", replace(HALVES, size=side), ported),
    )


ARCHITECTURES = architectures(
    "mobilenetv2_100", "mobilenet", _STAGES, 224, ("timm/mobilenetv2_100.ra_in1k",), ()
)
