"""The registry's convolutions and networks; see `clip_registry.py`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from clip_helpers import B, classes, entropy, random
from jax import lax

from sfumato.networks.cnn import SmallCNN
from sfumato.networks.wrn import Block, WideResNet

NETWORKS = {}


def entry(make):
    NETWORKS[make.__name__] = make
    return make


def of_module(module, batch):
    params, static = eqx.partition(module, eqx.is_inexact_array)
    return lambda p, e: entropy(eqx.combine(p, static)(e[0]), e[1]), params, batch


def images(*shape):
    return np.abs(random(B, *shape, seed=9)), classes()


# -- one convolution of every kind


def convolution(kernel, shape, layout, strides, padding, **rest):
    """Two uses of one kernel would be tied; here it is used once, and every position of the output
    counts."""

    def loss(p, e):
        maps = lax.conv_general_dilated(
            e[0][None], p["kernel"], strides, padding, dimension_numbers=layout, **rest
        )
        return jnp.mean(jnp.tanh(maps + p["bias"]) ** 2) * (1.0 + e[1])

    return loss, {"kernel": random(*kernel) / 2, "bias": np.float32(0.1)}, images(*shape)


NHWC = ("NHWC", "HWIO", "NHWC")


@entry
def conv_strided_and_dilated():
    return convolution((3, 2, 2, 4), (9, 7, 2), NHWC, (2, 1), [(1, 2), (0, 3)], rhs_dilation=(2, 3))


@entry
def conv_transposed():
    return convolution((3, 3, 2, 4), (4, 3, 2), NHWC, (1, 1), [(1, 2), (2, 1)], lhs_dilation=(2, 3))


@entry
def conv_cropped():
    """Negative padding cuts the image."""
    return convolution((2, 2, 2, 3), (6, 6, 2), NHWC, (1, 2), [(-1, 0), (0, -2)])


@entry
def conv_depthwise():
    return convolution((3, 3, 1, 8), (6, 6, 4), NHWC, (1, 1), "SAME", feature_group_count=4)


@entry
def conv_grouped():
    return convolution((3, 3, 2, 6), (5, 5, 4), NHWC, (2, 2), "SAME", feature_group_count=2)


@entry
def conv_channels_first():
    return convolution((4, 2, 3, 3), (2, 6, 5), ("NCHW", "OIHW", "NCHW"), (1, 1), "SAME")


@entry
def conv_1d():
    return convolution((3, 2, 4), (9, 2), ("NWC", "WIO", "NWC"), (2,), "VALID")


@entry
def conv_3d():
    return convolution(
        (2, 2, 2, 2, 3), (4, 3, 4, 2), ("NDHWC", "DHWIO", "NDHWC"), (1, 2, 1), "SAME"
    )


@entry
def conv_odd_layout():
    """Kernel and output axes in an order that nobody uses."""
    return convolution((3, 4, 2, 2), (5, 2, 6), ("NHCW", "HOWI", "CNWH"), (1, 1), "SAME")


@entry
def conv_of_views():
    """Three views of an image in the convolution's own batch axis."""

    def loss(p, e):
        maps = lax.conv_general_dilated(e[0], p, (1, 1), "SAME", dimension_numbers=NHWC)
        return entropy(jnp.tanh(maps).mean((0, 1, 2)), e[1])

    return loss, random(3, 3, 2, 3), images(3, 5, 5, 2)


@entry
def conv_of_views_by_vmap():
    """vmap folds views into the batch; vmap over kernels folds members into groups."""

    def loss(p, e):
        def one(x, kernel):
            return jnp.tanh(
                lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=NHWC)
            ).mean((0, 1, 2))

        return entropy(jax.vmap(jax.vmap(one, (0, None)), (None, 0))(e[0], p).mean((0, 1)), e[1])

    return loss, random(2, 3, 3, 2, 3), images(3, 5, 5, 2)


@entry
def conv_of_a_learned_image():
    """The parameter is the image, the example is the kernel."""

    def loss(p, e):
        maps = lax.conv_general_dilated(p[None], e[0], (1, 1), "SAME", dimension_numbers=NHWC)
        return entropy(jnp.tanh(maps).mean((0, 1, 2)), e[1])

    return loss, random(5, 5, 2), images(3, 3, 2, 3)


@entry
def conv_in_batch_groups():
    """Four images, two groups: each half of the images meets its own half of the kernels."""

    def loss(p, e):
        maps = lax.conv_general_dilated(
            e[0], p, (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2
        )
        return entropy(jnp.tanh(maps).mean((0, 1, 2))[:3], e[1])

    return loss, random(2, 2, 3, 4), images(4, 4, 4, 3)


# -- networks


@entry
def two_layers():
    """Small enough to be compiled for many settings."""

    def loss(p, e):
        return jnp.sum(jnp.tanh(e @ p["hidden"]["w"] + p["hidden"]["b"]) @ p["head"]["w"]) ** 2

    params = {
        "hidden": {"w": random(4, 5), "b": random(5, seed=1)},
        "head": {"w": random(5, 3, seed=2)},
    }
    return loss, params, random(B, 4, seed=3)


@entry
def residual_block():
    """Weight-standardized convolutions with gain, GroupNorm, a convolution in the skip path."""

    class Net(eqx.Module):
        block: Block
        head: jax.Array

        def __call__(self, image):
            return self.block(image).mean((0, 1)) @ self.head

    block = Block(4, 6, jax.random.key(0), 2, opens_stage=True)
    return of_module(Net(block, jnp.asarray(random(6, 3))), images(6, 6, 4))


@entry
def vit():
    """Patches, a class token, learned positions, one block of attention and MLP, a final norm."""
    width, heads, tokens = 8, 2, 5

    def normed(x, p):
        return jax.nn.standardize(x, epsilon=1e-5) * p["scale"] + p["shift"]

    def attention(x, p):
        q, k, v = jnp.moveaxis((x @ p["qkv"]).reshape(tokens, 3, heads, width // heads), 1, 0)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k)), v)
        return jnp.einsum("qhd,hdo->qo", mixed, p["out"])

    def loss(p, e):
        patches = e[0].reshape(2, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4).reshape(4, 12) @ p["patch"]
        x = jnp.concatenate([p["token"], patches]) + p["positions"]
        x = x + attention(normed(x, p["norm1"]), p)
        x = x + jax.nn.gelu(normed(x, p["norm2"]) @ p["up"] + p["up_bias"]) @ p["down"]
        return entropy(normed(x, p["norm3"])[0] @ p["head"], e[1])

    shapes = {
        "patch": (12, width),
        "token": (1, width),
        "positions": (tokens, width),
        "qkv": (width, 3 * width),
        "out": (heads, width // heads, width),
        "up": (width, 10),
        "up_bias": (10,),
        "down": (10, width),
        "head": (width, 3),
    }
    params = {name: random(*shape, seed=i) / 2 for i, (name, shape) in enumerate(shapes.items())}
    for i in (1, 2, 3):
        params[f"norm{i}"] = {
            "scale": 1 + random(width, seed=i) / 4,
            "shift": random(width, seed=i + 3) / 4,
        }
    return loss, params, images(4, 4, 3)


@entry
def cnn():
    return of_module(SmallCNN((8, 8, 1), 3, jax.random.key(0)), images(8, 8, 1))


@entry
def wrn():
    return of_module(WideResNet(1, 3, jax.random.key(0), depth=10, width=1), images(4, 4, 1))
