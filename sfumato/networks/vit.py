"""Vision transformers: Dosovitskiy et al. 2021 (arXiv 2010.11929); Ti and S of Touvron et al. 2021,
G of Zhai et al. 2022.

A block is pre-norm attention and a pre-norm perceptron, each added to its input. All blocks have
the same shapes, so their arrays are stacked along a first axis and one scan runs them: one block to
compile, at any depth.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.networks.architecture import Architecture
from sfumato.networks.backbone import Backbone
from sfumato.networks.input import HALVES, IMAGENET, Input
from sfumato.networks.layers.basic import Dense, LayerNorm, Linear, fan_in_normal, like

Pool = Literal["token", "mean"]


def glorot(inputs: int, outputs: int, key: PRNGKeyArray, share: int = 1) -> Dense:
    """Glorot & Bengio 2010, uniform, for a weight of `share` matrices beside each other."""
    bound = (6 / (inputs + outputs // share)) ** 0.5
    return Dense(
        jax.random.uniform(key, (inputs, outputs), minval=-bound, maxval=bound), jnp.zeros(outputs)
    )


class Attention(eqx.Module):
    """Multi-head self-attention; `qkv` makes queries, keys and values, heads beside each other in
    each."""

    qkv: Dense
    out: Dense
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, key: PRNGKeyArray):
        first, second = jax.random.split(key)
        self.qkv = glorot(width, 3 * width, first, share=3)
        self.out = glorot(width, width, second)
        self.heads = heads

    def __call__(self, tokens: Float[Array, "t d"]) -> Float[Array, "t d"]:
        count, width = tokens.shape
        split = self.qkv(tokens).reshape(count, 3, self.heads, width // self.heads)
        mixed = jax.nn.dot_product_attention(split[:, 0], split[:, 1], split[:, 2])
        return self.out(mixed.reshape(count, width))


class Block(eqx.Module):
    """One layer. scales: Touvron et al. 2021 (b), a factor per channel for what each half adds;
    None for no such factors."""

    norm: LayerNorm
    attention: Attention
    second_norm: LayerNorm
    widen: Dense
    narrow: Dense
    scales: tuple[Float[Array, " d"], Float[Array, " d"]] | None

    def __init__(self, width: int, hidden: int, heads: int, scale: float | None, key: PRNGKeyArray):
        keys = jax.random.split(key, 3)
        self.norm, self.second_norm = LayerNorm(width), LayerNorm(width)
        self.attention = Attention(width, heads, keys[0])
        self.widen = glorot(width, hidden, keys[1])
        self.narrow = glorot(hidden, width, keys[2])
        self.scales = None if scale is None else (jnp.full(width, scale), jnp.full(width, scale))

    def __call__(self, tokens: Float[Array, "t d"]) -> Float[Array, "t d"]:
        scales = (1.0, 1.0) if self.scales is None else self.scales
        first, second = (each if isinstance(each, float) else like(each, tokens) for each in scales)
        tokens = tokens + first * self.attention(self.norm(tokens))
        return tokens + second * self.narrow(
            jax.nn.gelu(self.widen(self.second_norm(tokens)), approximate=False)
        )


def run(stack: Block, tokens: Float[Array, "t d"]) -> Float[Array, "t d"]:
    """The layers of a stack, one after the other."""
    arrays, static = eqx.partition(stack, eqx.is_array)
    return lax.scan(lambda state, layer: (eqx.combine(layer, static)(state), None), tokens, arrays)[
        0
    ]


class VisionTransformer(Backbone):
    """patch: side of the square patches. hidden: width of the perceptrons. pool: what the head
    sees, the class token or the mean of all tokens (which has no class token). scale: where the
    layer scales start, None for none.

    `stacks` is one stack of all layers, or two after `after`.
    """

    embedding: Dense
    token: Float[Array, " d"] | None
    positions: Float[Array, "t d"]
    stacks: list[Block]
    norm: LayerNorm
    head: Linear
    patch: int = eqx.field(static=True)
    grid: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        key: PRNGKeyArray,
        *,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        hidden: int | None = None,
        pool: Pool = "token",
        scale: float | None = None,
    ):
        height, breadth, colors = shape
        if height % patch or breadth % patch:
            fits = max(patch, height - height % patch)
            raise ArgumentError(
                "size",
                (height, breadth),
                f"the patches are {patch} x {patch} pixels; choose a multiple, "
                f"such as {fits} or {fits + patch}",
            )
        keys = jax.random.split(key, 3)
        self.patch, self.grid = patch, (height // patch, breadth // patch)
        fan_in = patch * patch * colors
        self.embedding = Dense(fan_in_normal(keys[0], (fan_in, width), fan_in), jnp.zeros(width))
        self.token = jnp.zeros(width) if pool == "token" else None
        count = self.grid[0] * self.grid[1] + (pool == "token")
        self.positions = 0.02 * jax.random.normal(keys[1], (count, width))
        make = eqx.filter_vmap(lambda key: Block(width, hidden or 4 * width, heads, scale, key))
        self.stacks = [make(jax.random.split(keys[2], depth))]
        self.norm = LayerNorm(width)
        self.head = Linear.zeros(width, classes)

    def _tokens(self, image: Float[Array, "h w c"]) -> Float[Array, "t d"]:
        rows, columns = self.grid
        patches = image.reshape(rows, self.patch, columns, self.patch, -1).transpose(0, 2, 1, 3, 4)
        tokens = self.embedding(patches.reshape(rows * columns, -1))
        if self.token is not None:
            tokens = jnp.concatenate([like(self.token[None], tokens), tokens])
        return tokens + like(self.positions, tokens)

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        tokens = self._tokens(image)
        for stack in self.stacks:
            tokens = run(stack, tokens)
        return (
            self.norm(tokens).mean(0, dtype=jnp.float32)
            if self.token is None
            else self.norm(tokens[0])
        )

    def trunk(self) -> list[Any]:
        return self.stacks

    def ending(self) -> list[Any]:
        return [self.norm, self.head]

    @property
    def depth(self) -> int:
        return sum(length(stack) for stack in self.stacks)

    def after(self, last: int) -> tuple["Backbone", Callable[[Backbone], list[Any]]]:
        super().after(last)  # for its refusals
        whole = self.joined()
        if last == 0:
            return whole, lambda network: network.ending()
        cut = whole.depth - last
        halves = [
            jax.tree.map(part, whole.stacks[0])
            for part in (lambda leaf: leaf[:cut], lambda leaf: leaf[cut:])
        ]
        split = eqx.tree_at(lambda network: network.stacks, whole, halves if cut else whole.stacks)
        return split, lambda network: [network.trunk()[-1], *network.ending()]

    def joined(self) -> "VisionTransformer":
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *self.stacks)
        return eqx.tree_at(lambda network: network.stacks, self, [joined])


def length(stack: Block) -> int:
    """The number of layers in a stack."""
    return stack.norm.scale.shape[0]


# -- the catalog

_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
"""Width, depth, heads."""


def _architecture(
    name: str,
    size: tuple[int, int, int],
    patch: int,
    weights: tuple[str, ...] = (),
    wants: Input = HALVES,
    **options: Any,
) -> Architecture:
    width, depth, heads = size
    make = partial(VisionTransformer, width=width, depth=depth, heads=heads, patch=patch, **options)
    return Architecture(name, "vit", make, wants, tuple(f"timm/{name}.{tag}" for tag in weights))


def _augreg() -> tuple[Architecture, ...]:
    """The names of Steiner et al. 2022 (ImageNet-21k, then ImageNet at two resolutions), and H/14
    of the first paper."""
    rows = []
    for size, patch in (
        ("tiny", 16),
        ("small", 32),
        ("small", 16),
        ("base", 32),
        ("base", 16),
        ("large", 16),
    ):
        for side, tags in (
            (224, ("augreg_in21k", "augreg_in21k_ft_in1k")),
            (384, ("augreg_in21k_ft_in1k",)),
        ):
            name = f"vit_{size}_patch{patch}_{side}"
            rows.append(_architecture(name, _SIZES[size], patch, tags, replace(HALVES, size=side)))
    return (*rows, _architecture("vit_huge_patch14_224", _SIZES["huge"], 14, ("orig_in21k",)))


def _dinov2() -> tuple[Architecture, ...]:
    """Oquab et al. 2023: features without labels, layer scale."""
    return tuple(
        _architecture(
            f"vit_{size}_patch14_dinov2",
            _SIZES[size],
            14,
            ("lvd142m",),
            replace(IMAGENET, size=518),
            scale=1e-5,
        )
        for size in ("small", "base", "large")
    )


ARCHITECTURES = (
    *_augreg(),
    _architecture("vit_gigantic_patch14_224", (1664, 48, 16), 14, hidden=8192),
    _architecture("vit_base_patch16_gap_224", (768, 12, 16), 16, pool="mean"),
    *_dinov2(),
)
