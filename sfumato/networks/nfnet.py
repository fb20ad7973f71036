"""Residual networks without normalization: NF-ResNet-50 (Brock et al. 2021a, arXiv 2101.08692) and
NFNet-F0 to F6 (Brock et al. 2021b, arXiv 2102.06171), as timm has them; stochastic depth and
dropout, being off in private training, are left out.

Convolutions have standardized kernels, scaled so that a signal of variance 1 keeps it: a
nonlinearity g shrinks the variance of a normal signal by gamma(g)^2, which is multiplied back, in
the kernel or behind g. A block computes

    x + alpha f(g(x) beta),  beta = 1 / (standard deviation of x as predicted: 1, then + alpha^2 per block)

and the prediction starts anew in every stage's first block, whose skip path starts behind g(x)
beta.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Chain, stages
from sfumato.networks.input import IMAGENET
from sfumato.networks.layers.basic import Linear, SqueezeExcite, like
from sfumato.networks.layers.convolutions import ScaledConv
from sfumato.networks.layers.pooling import halve, max_pool_padded
from sfumato.networks.resnet import DEPTHS

ALPHA = 0.2
GAMMA = {"relu": 1.7139588594436646, "gelu": 1.7015043497085571}
"""1 / the standard deviation of g(normal), as in the public code of both papers."""
ATTENTION_GAIN = 2.0
"""Squeeze-and-excite starts near a factor of 1/2."""


@dataclass(frozen=True)
class NFNetDesign:
    """depths, widths: blocks per stage, channels they give out. stem: channels of the stem; one 7 x
    7 convolution and max pool, or with `deep` four 3 x 3. narrow: width inside a block over
    outside. extra: a second 3 x 3 convolution. group: the channels that a 3 x 3 convolution sees at
    once, 0 for all. excite: squeeze-and-excite at a block's end. final: channels of a last 1 x 1
    convolution, 0 for none. deepmind: as in the public NFNet weights, gamma stands behind the
    nonlinearity, padding is "SAME", and a learned scalar that starts at 0 ends each block
    (SkipInit); else the last gain starts at 0.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (256, 512, 1536, 1536)
    stem: int = 128
    deep: bool = True
    narrow: float = 0.5
    extra: bool = True
    group: int = 128
    excite: bool = True
    final: int = 3072
    nonlinearity: Literal["relu", "gelu"] = "gelu"
    deepmind: bool = False

    def conv(
        self,
        inputs: int,
        outputs: int,
        size: int,
        key: PRNGKeyArray,
        stride: int = 1,
        group: int = 0,
    ) -> ScaledConv:
        return ScaledConv(
            inputs,
            outputs,
            size,
            key,
            stride,
            inputs // group if group else 1,
            gamma=1.0 if self.deepmind else GAMMA[self.nonlinearity],
            padding="SAME" if self.deepmind else "symmetric",
        )

    def activate(self, maps: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        active = (
            jax.nn.relu(maps)
            if self.nonlinearity == "relu"
            else jax.nn.gelu(maps, approximate=False)
        )
        return active * GAMMA[self.nonlinearity] if self.deepmind else active


class Block(eqx.Module):
    """1 x 1, 3 x 3 once or twice, 1 x 1, squeeze-and-excite; the skip path may take means of 2 x 2
    pixels and a 1 x 1."""

    convs: list[ScaledConv]
    excite: SqueezeExcite | None
    skip_gain: Float[Array, ""] | None
    skip: ScaledConv | None
    beta: float = eqx.field(static=True)
    design: NFNetDesign = eqx.field(static=True)

    def __init__(
        self,
        design: NFNetDesign,
        inputs: int,
        outputs: int,
        key: PRNGKeyArray,
        stride: int,
        beta: float,
    ):
        keys = jax.random.split(key, 6)
        inside = int(outputs * design.narrow)
        self.convs = [
            design.conv(inputs, inside, 1, keys[0]),
            design.conv(inside, inside, 3, keys[1], stride, design.group),
        ]
        if design.extra:
            self.convs.append(design.conv(inside, inside, 3, keys[2], 1, design.group))
        last = design.conv(inside, outputs, 1, keys[3])
        self.convs.append(
            last
            if design.deepmind
            else eqx.tree_at(lambda conv: conv.gain, last, jnp.zeros(outputs))
        )
        self.excite = SqueezeExcite(outputs, outputs // 2, keys[4]) if design.excite else None
        self.skip_gain = jnp.zeros(()) if design.deepmind else None
        self.skip = (
            design.conv(inputs, outputs, 1, keys[5]) if stride != 1 or inputs != outputs else None
        )
        self.beta, self.design = beta, design

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        active = self.design.activate(image) * self.beta
        maps = self.convs[0](active)
        for conv in self.convs[1:]:
            maps = conv(self.design.activate(maps))
        if self.excite is not None:
            maps = ATTENTION_GAIN * self.excite(maps)
        if self.skip_gain is not None:
            maps = maps * like(self.skip_gain, maps)
        return ALPHA * maps + self._skipped(image, active)

    def _skipped(
        self, image: Float[Array, "h w d"], active: Float[Array, "h w d"]
    ) -> Float[Array, "a b p"]:
        if self.skip is None:
            return image
        shrinks = any(conv.stride == 2 for conv in self.convs)
        return self.skip(halve(active) if shrinks else active)


class NormFreeNet(Chain):
    """Stem (the image divided by 4), stages of blocks of which all but the first halve it, last
    convolution, g, mean."""

    stem: list[ScaledConv]
    blocks: list[Block]
    final: ScaledConv | None
    head: Linear
    design: NFNetDesign = eqx.field(static=True)

    def __init__(self, colors: int, classes: int, key: PRNGKeyArray, design: NFNetDesign):
        keys = iter(jax.random.split(key, sum(design.depths) + 6))
        self.design = design
        self.stem = _stem(design, colors, [next(keys) for _ in range(4)])
        self.blocks, inputs, variance = [], design.stem, 1.0
        for width, stride, opens in stages(design.depths, design.widths):
            self.blocks.append(Block(design, inputs, width, next(keys), stride, variance**-0.5))
            variance = ALPHA**2 + (1.0 if opens else variance)
            inputs = width
        self.final = design.conv(inputs, design.final, 1, next(keys)) if design.final else None
        head = Linear.zeros(design.final or inputs, classes)
        self.head = eqx.tree_at(
            lambda each: each.weight, head, 0.01 * jax.random.normal(next(keys), head.weight.shape)
        )

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = self.stem[0](image)
        for conv in self.stem[1:]:
            maps = conv(self.design.activate(maps))
        maps = self.through(maps if self.design.deep else max_pool_padded(maps))
        maps = maps if self.final is None else self.final(maps)
        return self.design.activate(maps).mean((0, 1), dtype=jnp.float32)

    def ending(self) -> list[Any]:
        return [self.head] if self.final is None else [self.final, self.head]


def _stem(design: NFNetDesign, colors: int, keys: list[PRNGKeyArray]) -> list[ScaledConv]:
    if not design.deep:
        return [design.conv(colors, design.stem, 7, keys[0], 2)]
    widths, strides = (
        (design.stem // 8, design.stem // 4, design.stem // 2, design.stem),
        (2, 1, 1, 2),
    )
    inputs = (colors, *widths[:-1])
    return [
        design.conv(*each[:2], 3, *each[2:])
        for each in zip(inputs, widths, keys, strides, strict=True)
    ]


def _architecture(name: str, size: int, design: NFNetDesign, *weights: str) -> Architecture:
    return Architecture(
        name,
        "nfnet",
        lambda shape, classes, key: NormFreeNet(shape[2], classes, key, design),
        replace(IMAGENET, size=size),
        weights,
        rectified=design.nonlinearity == "relu",
    )


_SIZES = (192, 224, 256, 320, 384, 416, 448)
"""Of the images that F0 to F6 are trained on; 2102.06171, Table 1."""
_NFNETS = tuple(
    (size, NFNetDesign(tuple(n * (f + 1) for n in (1, 2, 6, 3)))) for f, size in enumerate(_SIZES)
)
NF_RESNET50 = NFNetDesign(
    DEPTHS[50],
    (256, 512, 1024, 2048),
    stem=64,
    deep=False,
    narrow=0.25,
    extra=False,
    group=0,
    excite=False,
    final=0,
    nonlinearity="relu",
)
ARCHITECTURES = (
    _architecture("nf_resnet50", 256, NF_RESNET50, "timm/nf_resnet50.ra2_in1k"),
    *(
        _architecture(
            f"dm_nfnet_f{f}", size, replace(design, deepmind=True), f"timm/dm_nfnet_f{f}.dm_in1k"
        )
        for f, (size, design) in enumerate(_NFNETS)
    ),
    *(_architecture(f"nfnet_f{f}", size, design) for f, (size, design) in enumerate(_NFNETS)),
)
