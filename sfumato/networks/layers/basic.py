"""Dense layers, norms and attention over channels, for ONE image or row. Nothing here can see a
second example."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray


def fan_in_normal(
    key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, gain: float = 1.0
) -> Float[Array, "..."]:
    """Normal truncated at two standard deviations, variance gain / fan_in (0.8796 is the truncated
    standard deviation)."""
    std = (gain / fan_in) ** 0.5 / 0.87962566
    return std * jax.random.truncated_normal(key, -2, 2, shape)


def like(array: Array | np.ndarray, data: Array) -> Array:
    """A parameter as layers take it: in bfloat16 where what they are given is, else as it is."""
    return jnp.asarray(array, jnp.bfloat16 if data.dtype == jnp.bfloat16 else None)


class Linear(eqx.Module):
    """x @ weight + bias."""

    weight: Float[Array, "d p"]
    bias: Float[Array, " p"]

    @classmethod
    def zeros(cls, inputs: int, outputs: int) -> "Linear":
        """Predicts all classes alike: the start for a linear model."""
        return cls(jnp.zeros((inputs, outputs)), jnp.zeros(outputs))

    @classmethod
    def random(cls, inputs: int, outputs: int, key: PRNGKeyArray) -> "Linear":
        return cls(fan_in_normal(key, (inputs, outputs), inputs), jnp.zeros(outputs))

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " p"]:
        return row @ like(self.weight, row) + like(self.bias, row)


class Dense(eqx.Module):
    """x @ weight + bias over the last axis: a 1 x 1 convolution of an image, a linear map of every
    token."""

    weight: Float[Array, "d p"]
    bias: Float[Array, " p"]

    @classmethod
    def random(cls, inputs: int, outputs: int, key: PRNGKeyArray, gain: float = 1.0) -> "Dense":
        return cls(fan_in_normal(key, (inputs, outputs), inputs, gain), jnp.zeros(outputs))

    def __call__(self, array: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
        return array @ like(self.weight, array) + like(self.bias, array)


class GroupNorm(eqx.Module):
    """Group normalization (Wu & He 2018) of one image: statistics over all pixels and the channels
    of a group, in float32 whatever the image is in."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int = 16):
        self.groups = min(groups, channels)
        while channels % self.groups:
            self.groups -= 1
        self.scale = jnp.ones(channels)
        self.shift = jnp.zeros(channels)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        height, width, channels = image.shape
        grouped = _full(image).reshape(height, width, self.groups, channels // self.groups)
        mean = grouped.mean((0, 1, 3), keepdims=True)
        variance = grouped.var((0, 1, 3), keepdims=True)
        normal = (grouped - mean) * lax.rsqrt(variance + 1e-5)
        return like(normal.reshape(image.shape) * self.scale + self.shift, image)


class LayerNorm(eqx.Module):
    """Layer normalization (Ba et al. 2016) over the last axis: of every token, or of the channels
    of every pixel; statistics in float32."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels: int, epsilon: float = 1e-6):
        self.scale = jnp.ones(channels)
        self.shift = jnp.zeros(channels)
        self.epsilon = epsilon

    def __call__(self, array: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        full = _full(array)
        centered = full - full.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        normal = centered * lax.rsqrt(variance + self.epsilon)
        return like(normal * self.scale + self.shift, array)


def _full(array: Array) -> Array:
    return array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array


class Affine(eqx.Module):
    """scale * x + shift per channel: a BatchNorm with public statistics that no convolution can
    take up."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]

    def __init__(self, channels: int):
        self.scale = jnp.ones(channels)
        self.shift = jnp.zeros(channels)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        return like(image * self.scale + self.shift, image)


class SqueezeExcite(eqx.Module):
    """Each channel times a factor in (0, 1) that two dense layers find from the channels' means (Hu
    et al. 2018)."""

    squeeze: Linear
    excite: Linear

    def __init__(self, channels: int, hidden: int, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.squeeze = Linear.random(channels, hidden, keys[0])
        self.excite = Linear.random(hidden, channels, keys[1])

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        return image * jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(image.mean((0, 1))))))
