"""Wide residual networks for private training: De et al. 2022, Sec. 3 and App. A (after Zagoruyko &
Komodakis 2016).

BatchNorm would mix examples; in its place GroupNorm with 16 groups and weight-standardized
convolutions. Every convolution but the first is preceded by ReLU, then GroupNorm (in that order; `norm_first`: the other one,
which Sander et al. 2023, "TAN without a burn", compared with it).
In the first block of each of the three stages the skip path is a 1 x 1 convolution with its own
ReLU and norm.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Chain, stages
from sfumato.networks.layers.basic import GroupNorm, Linear
from sfumato.networks.layers.convolutions import StandardizedConv


class NormConv(eqx.Module):
    """ReLU -> GroupNorm(16) -> weight-standardized convolution."""

    norm: GroupNorm
    conv: StandardizedConv
    norm_first: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        key: PRNGKeyArray,
        stride: int = 1,
        norm_first: bool = False,
    ):
        self.norm, self.norm_first = GroupNorm(inputs), norm_first
        self.conv = StandardizedConv(inputs, outputs, size, key, stride)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return self.conv(_normed(self.norm, image, self.norm_first))


def _normed(
    norm: GroupNorm, maps: Float[Array, "h w d"], norm_first: bool
) -> Float[Array, "h w d"]:
    return jax.nn.relu(norm(maps)) if norm_first else norm(jax.nn.relu(maps))


class Block(eqx.Module):
    """Two 3 x 3 convolutions and a skip, which is the identity unless the block widens or shrinks."""

    first: NormConv
    second: NormConv
    skip: NormConv | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        key: PRNGKeyArray,
        stride: int,
        opens_stage: bool,
        norm_first: bool = False,
    ):
        keys, order = jax.random.split(key, 3), {"norm_first": norm_first}
        self.first = NormConv(inputs, outputs, 3, keys[0], stride, **order)
        self.second = NormConv(outputs, outputs, 3, keys[1], **order)
        self.skip = NormConv(inputs, outputs, 1, keys[2], stride, **order) if opens_stage else None

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        skipped = image if self.skip is None else self.skip(image)
        return self.second(self.first(image)) + skipped


class WideResNet(Chain):
    """WRN-depth-width for one image; depth = 6k + 4."""

    stem: StandardizedConv
    blocks: list[Block]
    norm: GroupNorm
    head: Linear
    norm_first: bool = eqx.field(static=True)

    def __init__(
        self,
        colors: int,
        classes: int,
        key: PRNGKeyArray,
        depth: int = 16,
        width: int = 4,
        norm_first: bool = False,
    ):
        if depth < 10 or (depth - 4) % 6:
            raise ArgumentError(
                "depth", depth, "a wide residual network has depth 10, 16, 22, 28, 34, 40, ..."
            )
        per_stage = (depth - 4) // 6
        keys = iter(jax.random.split(key, 3 * per_stage + 2))
        self.stem = StandardizedConv(colors, 16, 3, next(keys))
        self.blocks, inputs, self.norm_first = [], 16, norm_first
        widths = tuple(16 * width * 2**stage for stage in range(3))
        for outputs, stride, opens in stages((per_stage,) * 3, widths):
            self.blocks.append(Block(inputs, outputs, next(keys), stride, opens, norm_first))
            inputs = outputs
        self.norm = GroupNorm(inputs)
        self.head = Linear.random(inputs, classes, next(keys))

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = self.through(self.stem(image))
        return _normed(self.norm, maps, self.norm_first).mean((0, 1), dtype=jnp.float32)

    def ending(self) -> list[Any]:
        return [self.norm, self.head]


NORM_FIRST = "-norm-first"


def architecture(depth: int, width: int, norm_first: bool = False) -> Architecture:
    """wrn-DEPTH-WIDTH, with NORM_FIRST behind it if norms come before ReLU."""
    return Architecture(
        f"wrn-{depth}-{width}{NORM_FIRST if norm_first else ''}",
        "wrn",
        lambda shape, classes, key: WideResNet(shape[2], classes, key, depth, width, norm_first),
        rectified=norm_first,
    )


ARCHITECTURES = tuple(architecture(*size) for size in ((16, 4), (40, 4), (28, 10)))
