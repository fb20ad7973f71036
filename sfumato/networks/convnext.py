"""ConvNeXt: Liu et al. 2022 (arXiv 2201.03545), Sec. 2 and Table 9. Its only norms are over the
channels of one pixel."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Backbone
from sfumato.networks.input import IMAGENET
from sfumato.networks.layers.basic import Dense, LayerNorm, Linear, like
from sfumato.networks.layers.convolutions import Depthwise

_SCALE, _STD = 1e-6, 0.02


def small(inputs: int, outputs: int, key: PRNGKeyArray) -> Dense:
    """The paper's start: normal, of deviation 0.02 whatever the width."""
    return Dense(_STD * jax.random.normal(key, (inputs, outputs)), jnp.zeros(outputs))


class Patchify(eqx.Module):
    """Squares of `side` pixels -> one pixel; what is left over at the lower and right edges is cut
    off."""

    dense: Dense
    side: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, side: int, key: PRNGKeyArray):
        self.dense = small(side * side * inputs, outputs, key)
        self.side = side

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        side, (rows, columns) = self.side, (length // self.side for length in image.shape[:2])
        image = image[: rows * side, : columns * side].reshape(rows, side, columns, side, -1)
        return self.dense(image.transpose(0, 2, 1, 3, 4).reshape(rows, columns, -1))


class Block(eqx.Module):
    """Depthwise 7 x 7 - norm - widen four times - GELU - narrow - layer scale, added to the input."""

    depthwise: Depthwise
    norm: LayerNorm
    widen: Dense
    narrow: Dense
    scale: Float[Array, " d"]

    def __init__(self, width: int, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        depthwise = Depthwise(width, 7, keys[0])
        self.depthwise = eqx.tree_at(
            lambda it: it.kernel, depthwise, _STD * jax.random.normal(keys[0], (7, 7, width))
        )
        self.norm = LayerNorm(width)
        self.widen = small(width, 4 * width, keys[1])
        self.narrow = small(4 * width, width, keys[2])
        self.scale = jnp.full(width, _SCALE)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        maps = self.widen(self.norm(self.depthwise(image)))
        return image + like(self.scale, image) * self.narrow(jax.nn.gelu(maps, approximate=False))


class Downsample(eqx.Module):
    """Norm, then half the resolution."""

    norm: LayerNorm
    patches: Patchify

    def __init__(self, inputs: int, outputs: int, key: PRNGKeyArray):
        self.norm = LayerNorm(inputs)
        self.patches = Patchify(inputs, outputs, 2, key)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return self.patches(self.norm(image))


class ConvNeXt(Backbone):
    """depths and widths of the four stages. The layers of `trunk` are blocks and, where a stage
    begins, a `Downsample`."""

    stem: Patchify
    stem_norm: LayerNorm
    layers: list[Block | Downsample]
    norm: LayerNorm
    head: Linear

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        key: PRNGKeyArray,
        *,
        depths: tuple[int, ...] = (3, 3, 9, 3),
        widths: tuple[int, ...] = (96, 192, 384, 768),
    ):
        least = 4 * 2 ** (len(widths) - 1)
        if min(shape[:2]) < least:
            raise ArgumentError(
                "size", shape[:2], f"this network needs images of at least {least} pixels"
            )
        keys = iter(jax.random.split(key, 1 + sum(depths) + len(depths)))
        self.stem = Patchify(shape[2], widths[0], 4, next(keys))
        self.stem_norm = LayerNorm(widths[0])
        self.layers = []
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if stage > 0:
                self.layers.append(Downsample(widths[stage - 1], width, next(keys)))
            self.layers += [Block(width, next(keys)) for _ in range(depth)]
        self.norm = LayerNorm(widths[-1])
        last = small(widths[-1], classes, next(keys))
        self.head = Linear(last.weight, last.bias)

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        maps = self.stem_norm(self.stem(image))
        for layer in self.layers:
            maps = layer(maps)
        return self.norm(maps.mean((0, 1), dtype=jnp.float32))

    def trunk(self) -> list[Any]:
        return self.layers

    def ending(self) -> list[Any]:
        return [self.norm, self.head]


def _architecture(size: str, depths: tuple[int, ...], width: int) -> Architecture:
    widths = tuple(width * 2**stage for stage in range(len(depths)))
    make = partial(ConvNeXt, depths=depths, widths=widths)
    name = f"convnext_{size}"
    tags = ("fb_in22k", "fb_in1k", "fb_in22k_ft_in1k")
    return Architecture(
        name, "convnext", make, IMAGENET, tuple(f"timm/{name}.{tag}" for tag in tags)
    )


ARCHITECTURES = (
    _architecture("tiny", (3, 3, 9, 3), 96),
    _architecture("small", (3, 3, 27, 3), 96),
    _architecture("base", (3, 3, 27, 3), 128),
)
