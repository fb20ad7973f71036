"""Residual networks: He et al. 2015 (arXiv 1512.03385); as in timm, a bottleneck has its stride on
the 3 x 3 convolution.

Two norms, neither of which mixes examples: BatchNorm with the statistics of public data, folded
into the convolutions (`resnet50`), or GroupNorm (`resnet50_gn`).
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Chain, stages
from sfumato.networks.input import IMAGENET
from sfumato.networks.layers.basic import GroupNorm, Linear
from sfumato.networks.layers.convolutions import AffineConv, BareConv
from sfumato.networks.layers.pooling import max_pool_padded

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


def convolutions(
    bottleneck: bool, inputs: int, width: int, stride: int
) -> list[tuple[int, int, int, int]]:
    """(inputs, outputs, size, stride) of a block's convolutions: 1 x 1, 3 x 3, 1 x 1 in a
    bottleneck, else 3 x 3 twice."""
    if bottleneck:
        return [(inputs, width, 1, 1), (width, width, 3, stride), (width, width * EXPANSION, 1, 1)]
    return [(inputs, width, 3, stride), (width, width, 3, 1)]


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
        *keys, last = jax.random.split(key, 4)
        rows = convolutions(design.bottleneck, inputs, width, stride)
        convs = [
            _conv(design.groups, before, after, size, each, its)
            for (before, after, size, its), each in zip(rows, keys, strict=False)
        ]
        self.convs = [*convs[:-1], _silent(convs[-1])]
        outputs = rows[-1][1]
        fits = stride == 1 and inputs == outputs
        self.skip = None if fits else _conv(design.groups, inputs, outputs, 1, last, stride)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        maps = image
        for conv in self.convs[:-1]:
            maps = jax.nn.relu(conv(maps))
        skipped = image if self.skip is None else self.skip(image)
        return jax.nn.relu(self.convs[-1](maps) + skipped)


class ResNet(Chain):
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
        for width, stride, _ in stages(design.depths, design.widths):
            self.blocks.append(Block(design, inputs, width, next(keys), stride))
            inputs = width * EXPANSION if design.bottleneck else width
        self.head = Linear.random(inputs, classes, next(keys))

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = self.through(max_pool_padded(jax.nn.relu(self.stem(image))))
        return maps.mean((0, 1), dtype=jnp.float32)


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
