"""Wide residual networks for private training: De et al. 2022, Sec. 3 and App. A (after Zagoruyko &
Komodakis 2016).

BatchNorm would mix examples; in its place GroupNorm with 16 groups and weight-standardized
convolutions. Every convolution but the first is preceded by ReLU, then GroupNorm (in that order).
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

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1):
        self.norm = GroupNorm(inputs)
        self.conv = StandardizedConv(inputs, outputs, size, key, stride)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return self.conv(self.norm(jax.nn.relu(image)))


class Block(eqx.Module):
    """Two 3 x 3 convolutions and a skip, which is the identity unless the block widens or shrinks."""

    first: NormConv
    second: NormConv
    skip: NormConv | None

    def __init__(
        self, inputs: int, outputs: int, key: PRNGKeyArray, stride: int, opens_stage: bool
    ):
        keys = jax.random.split(key, 3)
        self.first = NormConv(inputs, outputs, 3, keys[0], stride)
        self.second = NormConv(outputs, outputs, 3, keys[1])
        self.skip = NormConv(inputs, outputs, 1, keys[2], stride) if opens_stage else None

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        skipped = image if self.skip is None else self.skip(image)
        return self.second(self.first(image)) + skipped


class WideResNet(Chain):
    """WRN-depth-width for one image; depth = 6k + 4."""

    stem: StandardizedConv
    blocks: list[Block]
    norm: GroupNorm
    head: Linear

    def __init__(
        self, colors: int, classes: int, key: PRNGKeyArray, depth: int = 16, width: int = 4
    ):
        if depth < 10 or (depth - 4) % 6:
            raise ArgumentError(
                "depth", depth, "a wide residual network has depth 10, 16, 22, 28, 34, 40, ..."
            )
        per_stage = (depth - 4) // 6
        keys = iter(jax.random.split(key, 3 * per_stage + 2))
        self.stem = StandardizedConv(colors, 16, 3, next(keys))
        self.blocks, inputs = [], 16
        widths = tuple(16 * width * 2**stage for stage in range(3))
        for outputs, stride, opens in stages((per_stage,) * 3, widths):
            self.blocks.append(Block(inputs, outputs, next(keys), stride, opens))
            inputs = outputs
        self.norm = GroupNorm(inputs)
        self.head = Linear.random(inputs, classes, next(keys))

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = self.through(self.stem(image))
        return self.norm(jax.nn.relu(maps)).mean((0, 1), dtype=jnp.float32)

    def ending(self) -> list[Any]:
        return [self.norm, self.head]


def architecture(depth: int, width: int) -> Architecture:
    """wrn-DEPTH-WIDTH."""
    return Architecture(
        f"wrn-{depth}-{width}",
        "wrn",
        lambda shape, classes, key: WideResNet(shape[2], classes, key, depth, width),
    )


ARCHITECTURES = tuple(architecture(*size) for size in ((16, 4), (40, 4), (28, 10)))
