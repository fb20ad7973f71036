"""Residual networks: He et al. 2015 (arXiv 1512.03385); as in timm, a bottleneck has its stride on
the 3 x 3 convolution.

Two norms, neither of which mixes examples: BatchNorm with the statistics of public data, folded
into the convolutions (`resnet50`), or GroupNorm (`resnet50_gn`).
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Backbone
from sfumato.networks.input import Input
from sfumato.networks.layers.basic import GroupNorm, Linear
from sfumato.networks.layers.convolutions import AffineConv, BareConv
from sfumato.networks.layers.pooling import max_pool_padded

IMAGENET = Input(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), colors=3)
EXPANSION = 4
"""Width of a bottleneck block's output over that of its 3 x 3 convolution."""


@dataclass(frozen=True)
class ResNetDesign:
    """depths: blocks per stage. widths: of the 3 x 3 convolutions of each stage. bottleneck: three
    convolutions per block instead of two. groups: of GroupNorm; 0 for convolutions with a folded
    norm. stem: width of the first convolution.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    groups: int = 0
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 64


class GroupNormConv(eqx.Module):
    """Convolution -> GroupNorm."""

    conv: BareConv
    norm: GroupNorm

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return self.norm(self.conv(image))


NormedConv = AffineConv | GroupNormConv


def _conv(
    groups: int, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1
) -> NormedConv:
    if groups == 0:
        return AffineConv(inputs, outputs, size, key, stride)
    return GroupNormConv(BareConv(inputs, outputs, size, key, stride), GroupNorm(outputs, groups))


def _silent(conv: NormedConv) -> NormedConv:
    """Its output 0, so that a block starts as its skip path (Goyal et al. 2017, Sec. 5.1)."""
    if isinstance(conv, AffineConv):
        return eqx.tree_at(lambda each: each.kernel, conv, jnp.zeros_like(conv.kernel))
    return eqx.tree_at(lambda each: each.norm.scale, conv, jnp.zeros_like(conv.norm.scale))


class Block(eqx.Module):
    """Convolutions with ReLU between them, a skip, ReLU. The skip is a 1 x 1 convolution where
    shapes differ."""

    convs: list[NormedConv]
    skip: NormedConv | None

    def __init__(
        self, design: ResNetDesign, inputs: int, width: int, key: PRNGKeyArray, stride: int
    ):
        keys = jax.random.split(key, 4)
        outputs = width * EXPANSION if design.bottleneck else width
        if design.bottleneck:
            self.convs = [
                _conv(design.groups, inputs, width, 1, keys[0]),
                _conv(design.groups, width, width, 3, keys[1], stride),
                _silent(_conv(design.groups, width, outputs, 1, keys[2])),
            ]
        else:
            self.convs = [
                _conv(design.groups, inputs, width, 3, keys[0], stride),
                _silent(_conv(design.groups, width, outputs, 3, keys[1])),
            ]
        fits = stride == 1 and inputs == outputs
        self.skip = None if fits else _conv(design.groups, inputs, outputs, 1, keys[3], stride)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        maps = image
        for conv in self.convs[:-1]:
            maps = jax.nn.relu(conv(maps))
        skipped = image if self.skip is None else self.skip(image)
        return jax.nn.relu(self.convs[-1](maps) + skipped)


class ResNet(Backbone):
    """7 x 7 convolution, max pool, stages of blocks of which all but the first halve the image,
    mean."""

    stem: NormedConv
    blocks: list[Block]
    head: Linear
    design: ResNetDesign = eqx.field(static=True)

    def __init__(self, colors: int, classes: int, key: PRNGKeyArray, design: ResNetDesign):
        keys = iter(jax.random.split(key, sum(design.depths) + 2))
        self.design = design
        self.stem = _conv(design.groups, colors, design.stem, 7, next(keys), stride=2)
        self.blocks, inputs = [], design.stem
        for stage, (depth, width) in enumerate(zip(design.depths, design.widths, strict=True)):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                self.blocks.append(Block(design, inputs, width, next(keys), stride))
                inputs = width * EXPANSION if design.bottleneck else width
        self.head = Linear.random(inputs, classes, next(keys))

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = max_pool_padded(jax.nn.relu(self.stem(image)))
        for block in self.blocks:
            maps = block(maps)
        return maps.mean((0, 1), dtype=jnp.float32)

    def trunk(self) -> list[Any]:
        return self.blocks


def _architecture(name: str, design: ResNetDesign, *weights: str) -> Architecture:
    return Architecture(
        name,
        "resnet",
        lambda shape, classes, key: ResNet(shape[2], classes, key, design),
        IMAGENET,
        weights,
        rectified=True,
    )


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_RECIPES = {
    18: "a1",
    34: "a1",
    50: "a1",
    101: "a1h",
}  # timm's default weights, "ResNet strikes back" (arXiv 2110.00476)
ARCHITECTURES = (
    *(
        _architecture(
            f"resnet{depth}",
            ResNetDesign(DEPTHS[depth], depth >= 50),
            f"timm/resnet{depth}.{recipe}_in1k",
            f"microsoft/resnet-{depth}",
        )
        for depth, recipe in _RECIPES.items()
    ),
    *(
        _architecture(
            f"resnet{depth}_gn",
            ResNetDesign(DEPTHS[depth], depth >= 50, groups=32),
            *(("timm/resnet50_gn.a1h_in1k",) if depth == 50 else ()),
        )
        for depth in DEPTHS
    ),
)
