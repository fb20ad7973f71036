"""Networks for ONE example, as plain functions of a tree of parameters: what the clipping engine is
timed on.

Each maker returns (params, apply), where apply(params, image) -> scores. The wide residual network
is sfumato's own.
"""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from sfumato.networks.layers.basic import fan_in_normal
from sfumato.networks.layers.convolutions import convolve
from sfumato.networks.layers.pooling import max_pool
from sfumato.networks.wrn import WideResNet

Model = tuple[PyTree, Callable[[PyTree, Array], Array]]
Keys = Iterator[Array]


def wide_resnet(depth: int, width: int) -> Model:
    params, static = eqx.partition(
        WideResNet(3, 10, jax.random.key(0), depth, width), eqx.is_inexact_array
    )
    return params, lambda params, image: eqx.combine(params, static)(image)


def mlp(inputs: int, hidden: int, layers: int, classes: int) -> Model:
    """`layers` hidden layers with ReLU."""
    keys = new_keys()
    sizes = [inputs] + [hidden] * layers
    params = [new_dense(keys, *pair) for pair in zip(sizes, [*sizes[1:], classes], strict=True)]

    def apply(params: PyTree, row: Array) -> Array:
        for layer in params[:-1]:
            row = jax.nn.relu(dense(layer, row))
        return dense(params[-1], row)

    return params, apply


# Residual network, 18 layers (He et al. 2016, Table 1, first column), group normalization (Wu & He
# 2018) for batch's.

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and stride of the first block; every stage has two blocks."""


def resnet18(classes: int) -> Model:
    keys = new_keys()
    params = {
        "stem": new_conv_norm(keys, 7, 3, 64),
        "blocks": [],
        "head": new_dense(keys, 512, classes),
    }
    inputs = 64
    for channels, stride in STAGES:
        for first in (True, False):
            block = {
                "a": new_conv_norm(keys, 3, inputs, channels),
                "b": new_conv_norm(keys, 3, channels, channels),
            }
            if first and (stride > 1 or inputs != channels):
                block["skip"] = new_conv_norm(keys, 1, inputs, channels)
            params["blocks"].append(block)
            inputs = channels

    def apply(params: PyTree, image: Array) -> Array:
        maps = jax.nn.relu(conv_norm(params["stem"], ((image - 0.5) / 0.25), 2))
        maps = max_pool(jnp.pad(maps, ((1, 1), (1, 1), (0, 0))), 3, 2)
        strides = [stride if first else 1 for _, stride in STAGES for first in (True, False)]
        for block, stride in zip(params["blocks"], strides, strict=True):
            skipped = conv_norm(block["skip"], maps, stride) if "skip" in block else maps
            inner = jax.nn.relu(conv_norm(block["a"], maps, stride))
            maps = jax.nn.relu(conv_norm(block["b"], inner, 1) + skipped)
        return dense(params["head"], maps.mean((0, 1)))

    return params, apply


def new_conv_norm(keys: Keys, size: int, inputs: int, outputs: int) -> PyTree:
    kernel = fan_in_normal(next(keys), (size, size, inputs, outputs), size * size * inputs, 2.0)
    return {"kernel": kernel, "scale": jnp.ones(outputs), "shift": jnp.zeros(outputs)}


def conv_norm(p: PyTree, maps: Array, stride: int, groups: int = 32) -> Array:
    """Convolution without bias, then group normalization."""
    maps = convolve(maps, p["kernel"], stride)
    grouped = maps.reshape(*maps.shape[:2], groups, -1)
    mean, variance = grouped.mean((0, 1, 3), keepdims=True), grouped.var((0, 1, 3), keepdims=True)
    return ((grouped - mean) * lax.rsqrt(variance + 1e-5)).reshape(maps.shape) * p["scale"] + p[
        "shift"
    ]


# Vision transformer (Dosovitskiy et al. 2021, Table 1). The class token and its position are both
# learned and only ever used as a sum, so they are one row here.


def vit(
    width: int,
    heads: int,
    *,
    scan: bool,
    depth: int = 12,
    side: int = 224,
    patch: int = 16,
    classes: int = 1000,
) -> Model:
    """scan: one layer's code over stacked parameters; else a list of layers, each compiled for
    itself."""
    keys = new_keys()
    layers = [_vit_layer(keys, width) for _ in range(depth)]
    params = {
        "patches": new_dense(keys, patch * patch * 3, width),
        "positions": 0.02 * jax.random.normal(next(keys), ((side // patch) ** 2 + 1, width)),
        "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers) if scan else layers,
        "norm": new_norm(width),
        "head": new_dense(keys, width, classes),
    }

    def apply(params: PyTree, image: Array) -> Array:
        cells = (
            ((image - 0.5) / 0.25)
            .reshape(side // patch, patch, side // patch, patch, 3)
            .transpose(0, 2, 1, 3, 4)
        )
        tokens = dense(params["patches"], cells.reshape(-1, patch * patch * 3))
        tokens = jnp.pad(tokens, ((1, 0), (0, 0))) + params["positions"]
        if scan:
            tokens, _ = lax.scan(
                lambda tokens, layer: (vit_layer(layer, tokens, heads), None),
                tokens,
                params["layers"],
            )
        else:
            for layer in params["layers"]:
                tokens = vit_layer(layer, tokens, heads)
        return dense(params["head"], layer_norm(params["norm"], tokens[0]))

    return params, apply


def _vit_layer(keys: Keys, width: int) -> PyTree:
    return {
        "norm1": new_norm(width),
        "qkv": new_dense(keys, width, 3 * width),
        "out": new_dense(keys, width, width),
        "norm2": new_norm(width),
        "up": new_dense(keys, width, 4 * width),
        "down": new_dense(keys, 4 * width, width),
    }


def vit_layer(p: PyTree, tokens: Array, heads: int) -> Array:
    """Attention, then a two-layer perceptron, each after a norm and around a skip."""
    length, width = tokens.shape
    q, k, v = jnp.moveaxis(
        dense(p["qkv"], layer_norm(p["norm1"], tokens)).reshape(length, 3, heads, -1), 1, 0
    )
    logits = jnp.einsum("nhd,mhd->hnm", q, k) * (width // heads) ** -0.5
    weights = jax.nn.softmax(logits.astype(jnp.float32)).astype(tokens.dtype)
    tokens = tokens + dense(p["out"], jnp.einsum("hnm,mhd->nhd", weights, v).reshape(length, width))
    return tokens + dense(p["down"], jax.nn.gelu(dense(p["up"], layer_norm(p["norm2"], tokens))))


def layer_norm(p: PyTree, rows: Array) -> Array:
    """Statistics in float32."""
    full = rows.astype(jnp.float32)
    mean, variance = full.mean(-1, keepdims=True), full.var(-1, keepdims=True)
    return ((full - mean) * lax.rsqrt(variance + 1e-6)).astype(rows.dtype) * p["scale"] + p["shift"]


def dense(p: PyTree, rows: Array) -> Array:
    return rows @ p["weight"] + p["bias"]


def new_dense(keys: Keys, inputs: int, outputs: int) -> PyTree:
    return {
        "weight": fan_in_normal(next(keys), (inputs, outputs), inputs),
        "bias": jnp.zeros(outputs),
    }


def new_norm(width: int) -> PyTree:
    return {"scale": jnp.ones(width), "shift": jnp.zeros(width)}


def new_keys() -> Keys:
    """Endless independent keys; initial weights are the same in every run."""
    return (jax.random.fold_in(jax.random.key(0), i) for i in range(10**6))
