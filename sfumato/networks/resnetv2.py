"""Residual networks with pre-activation: norm -> ReLU -> convolution (He et al. 2016, arXiv
1603.05027), as timm has them.

Three kinds, none of which mixes examples. `resnetv2_50`: BatchNorm with the statistics of public
data, an affine map per channel, since the ReLU behind it keeps it out of the convolutions.
`resnetv2_50x1_bit`: GroupNorm and standardized convolutions (Big Transfer, arXiv 1912.11370).
`resnetv2_18_gn`: GroupNorm and plain convolutions, as Kurakin et al. 2022 (arXiv 2201.12328)
trained privately; their code halves the image in the last block of a stage, we, like timm, in the
first.
"""

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Chain, stages
from sfumato.networks.input import HALVES
from sfumato.networks.layers.basic import Affine, GroupNorm, Linear
from sfumato.networks.layers.convolutions import BareConv
from sfumato.networks.layers.pooling import max_pool, max_pool_padded
from sfumato.networks.resnet import DEPTHS, EXPANSION, convolutions

GROUPS = 32
BIT_EPSILON = 1e-8


@dataclass(frozen=True)
class ResNetV2Design:
    """depths: blocks per stage. widths: of the 3 x 3 convolutions of each stage. bottleneck: three
    convolutions per block instead of two. norm: "affine", "group", or "bit" for GroupNorm with
    standardized convolutions and the stem's max pool padded with zeros. stem: width of the first
    convolution.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    norm: Literal["affine", "group", "bit"]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 64

    def conv(
        self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1
    ) -> BareConv:
        epsilon = BIT_EPSILON if self.norm == "bit" else None
        return BareConv(inputs, outputs, size, key, stride, standardized=epsilon)

    def normalizer(self, channels: int) -> GroupNorm | Affine:
        return Affine(channels) if self.norm == "affine" else GroupNorm(channels, GROUPS)

    def pool(self, image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
        return (
            max_pool(jnp.pad(image, ((1, 1), (1, 1), (0, 0))), 3, 2)
            if self.norm == "bit"
            else max_pool_padded(image)
        )


class Block(eqx.Module):
    """norm -> ReLU -> convolution, two or three times; a skip, which in a stage's first block may
    be a 1 x 1 convolution that starts behind the first ReLU.
    """

    norms: list[GroupNorm | Affine]
    convs: list[BareConv]
    skip: BareConv | None

    def __init__(
        self,
        design: ResNetV2Design,
        inputs: int,
        width: int,
        key: PRNGKeyArray,
        stride: int,
        opens_stage: bool,
    ):
        *keys, last = jax.random.split(key, 4)
        rows = convolutions(design.bottleneck, inputs, width, stride)
        self.convs = [
            design.conv(before, after, size, each, its)
            for (before, after, size, its), each in zip(rows, keys, strict=False)
        ]
        outputs = rows[-1][1]
        self.norms = [design.normalizer(conv.kernel.shape[2]) for conv in self.convs]
        projects = opens_stage and (design.bottleneck or stride != 1 or inputs != outputs)
        self.skip = design.conv(inputs, outputs, 1, last, stride) if projects else None

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        active = jax.nn.relu(self.norms[0](image))
        skipped = image if self.skip is None else self.skip(active)
        maps = self.convs[0](active)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            maps = conv(jax.nn.relu(norm(maps)))
        return maps + skipped


class ResNetV2(Chain):
    """7 x 7 convolution, max pool, stages of blocks of which all but the first halve the image,
    norm, ReLU, mean."""

    stem: BareConv
    blocks: list[Block]
    norm: GroupNorm | Affine
    head: Linear
    design: ResNetV2Design = eqx.field(static=True)

    def __init__(self, colors: int, classes: int, key: PRNGKeyArray, design: ResNetV2Design):
        keys = iter(jax.random.split(key, sum(design.depths) + 2))
        self.design = design
        self.stem = design.conv(colors, design.stem, 7, next(keys), stride=2)
        self.blocks, inputs = [], design.stem
        for width, stride, opens in stages(design.depths, design.widths):
            self.blocks.append(Block(design, inputs, width, next(keys), stride, opens))
            inputs = width * EXPANSION if design.bottleneck else width
        self.norm = design.normalizer(inputs)
        self.head = Linear.random(inputs, classes, next(keys))

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = self.through(self.design.pool(self.stem(image)))
        return jax.nn.relu(self.norm(maps)).mean((0, 1), dtype=jnp.float32)

    def ending(self) -> list[Any]:
        return [self.norm, self.head]


def _architecture(
    name: str, depth: int, norm: Literal["affine", "group", "bit"], *weights: str
) -> Architecture:
    design = ResNetV2Design(DEPTHS[depth], depth >= 50, norm)
    return Architecture(
        name,
        "resnetv2",
        lambda shape, classes, key: ResNetV2(shape[2], classes, key, design),
        HALVES,
        weights,
        rectified=True,
    )


_BIT = tuple(
    f"timm/resnetv2_50x1_bit.goog_{tag}" for tag in ("distilled_in1k", "in21k", "in21k_ft_in1k")
)
ARCHITECTURES = (
    _architecture("resnetv2_18", 18, "affine", "timm/resnetv2_18.ra4_e3600_r224_in1k"),
    _architecture("resnetv2_50", 50, "affine", "timm/resnetv2_50.a1h_in1k"),
    _architecture("resnetv2_101", 101, "affine", "timm/resnetv2_101.a1h_in1k"),
    _architecture("resnetv2_50x1_bit", 50, "bit", *_BIT),
    _architecture("resnetv2_18_gn", 18, "group"),
    _architecture("resnetv2_50_gn", 50, "group"),
)
