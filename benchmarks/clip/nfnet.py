"""NFNet-F0 for ONE example (Brock et al. 2021, "High-performance large-scale image recognition
without normalization").

Scaled weight standardization, squeeze-and-excitation, SkipInit; no stochastic depth and no dropout,
which do not change the cost of a gradient.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree
from models import Keys, Model, dense, new_dense, new_keys

from sfumato.networks.layers.basic import fan_in_normal

STEM = ((16, 2), (32, 1), (64, 1), (128, 2))
STAGES = ((256, 1, 1), (512, 2, 2), (1536, 6, 2), (1536, 3, 2))
"""Channels, blocks, stride of the first block."""
GROUP = 128
"""Channels in a group of the 3 x 3 convolutions."""
ALPHA = 0.2
GELU_GAIN = 1.7015043497085571
"""1 / standard deviation of GELU of a standard normal, so that activations keep variance 1 (the
paper's Sec. 2)."""


def nfnet_f0(classes: int) -> Model:
    keys = new_keys()
    params = {"stem": [], "blocks": []}
    inputs = 3
    for channels, _ in STEM:
        params["stem"].append(_conv(keys, 3, inputs, channels))
        inputs = channels
    for channels, count, _ in STAGES:
        for index in range(count):
            params["blocks"].append(_block(keys, inputs, channels, index == 0))
            inputs = channels
    params |= {
        "last": _conv(keys, 1, inputs, 2 * inputs),
        "head": new_dense(keys, 2 * inputs, classes),
    }
    return params, apply


def apply(params: PyTree, image: Array) -> Array:
    maps = (image - 0.5) / 0.25
    for index, (p, (_, stride)) in enumerate(zip(params["stem"], STEM, strict=True)):
        maps = conv(p, maps if index == 0 else activation(maps), stride)
    blocks = iter(params["blocks"])
    for _, count, stride in STAGES:
        variance = 1.0  # of the maps, at the start of training; a stage's first block resets it
        for index in range(count):
            maps = block(next(blocks), maps, stride if index == 0 else 1, variance**-0.5)
            variance = (1.0 if index == 0 else variance) + ALPHA**2
    return dense(params["head"], activation(conv(params["last"], maps)).mean((0, 1)))


def block(p: PyTree, maps: Array, stride: int, beta: float) -> Array:
    """1 x 1, two grouped 3 x 3, 1 x 1; gated by squeeze-and-excitation; added to the skip with a
    gain that starts at 0."""
    inner = activation(maps) * beta
    if "skip" in p:
        pooled = inner.reshape(
            maps.shape[0] // stride, stride, maps.shape[1] // stride, stride, -1
        ).mean((1, 3))
        maps = conv(p["skip"], pooled)
    inner = activation(conv(p["in"], inner))
    inner = activation(conv(p["mid1"], inner, stride))
    inner = conv(p["out"], activation(conv(p["mid2"], inner)))
    gate = dense(p["excite"], jax.nn.relu(dense(p["squeeze"], inner.mean((0, 1)))))
    return maps + ALPHA * p["gain"] * 2 * jax.nn.sigmoid(gate) * inner


def activation(maps: Array) -> Array:
    return jax.nn.gelu(maps) * GELU_GAIN


def conv(p: PyTree, maps: Array, stride: int = 1) -> Array:
    """Convolution with scaled weight standardization; groups follow from the kernel's and the maps'
    channels."""
    kernel = p["kernel"]
    fan_in = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    scale = p["gain"] * lax.rsqrt(jnp.maximum(fan_in * kernel.var((0, 1, 2)), 1e-4))
    maps = lax.conv_general_dilated(
        maps[None],
        (kernel - kernel.mean((0, 1, 2))) * scale,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=maps.shape[-1] // kernel.shape[2],
    )[0]
    return maps + p["bias"]


def _block(keys: Keys, inputs: int, channels: int, opens_stage: bool) -> PyTree:
    middle = channels // 2
    params = {
        "in": _conv(keys, 1, inputs, middle),
        "mid1": _conv(keys, 3, GROUP, middle),
        "mid2": _conv(keys, 3, GROUP, middle),
        "out": _conv(keys, 1, middle, channels),
        "squeeze": new_dense(keys, channels, middle),
        "excite": new_dense(keys, middle, channels),
        "gain": jnp.zeros(()),
    }
    return params | ({"skip": _conv(keys, 1, inputs, channels)} if opens_stage else {})


def _conv(keys: Keys, size: int, inputs: int, outputs: int) -> PyTree:
    kernel = fan_in_normal(next(keys), (size, size, inputs, outputs), size * size * inputs)
    return {"kernel": kernel, "gain": jnp.ones(outputs), "bias": jnp.zeros(outputs)}
