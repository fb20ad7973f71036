"""Layers for ONE image, height x width x channels. Nothing here can see a second example."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

STANDARDISATION_FLOOR = 1e-4
_NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(
    image: Float[Array, "h w d"], kernel: Float[Array, "kh kw d p"], stride: int = 1
) -> Float[Array, "a b p"]:
    """Cross-correlation with "SAME" padding."""
    return lax.conv_general_dilated(image[None], kernel, (stride, stride), "SAME", dimension_numbers=_NHWC)[0]


def fan_in_normal(key: PRNGKeyArray, shape: tuple[int, ...], fan_in: int, gain: float = 1.0) -> Float[Array, "..."]:
    """Normal truncated at two standard deviations, variance gain / fan_in (0.8796 is the truncated standard deviation)."""
    std = (gain / fan_in) ** 0.5 / 0.87962566
    return std * jax.random.truncated_normal(key, -2, 2, shape)


class Conv(eqx.Module):
    """Convolution with bias."""

    kernel: Float[Array, "kh kw d p"]
    bias: Float[Array, " p"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1):
        self.kernel = fan_in_normal(key, (size, size, inputs, outputs), size * size * inputs)
        self.bias = jnp.zeros(outputs)
        self.stride = stride

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return convolve(image, self.kernel, self.stride) + self.bias


@jax.jit
def standardise(kernel: Float[Array, "kh kw d p"], gain: Float[Array, " p"]) -> Float[Array, "kh kw d p"]:
    """gain (w - mean) / sqrt(max(fan_in * var, 1e-4)), mean and variance over each output's inputs.

    Qiao et al. 2019; with gain, as Brock et al. 2021. It is one equation (jit) of whatever uses it, by which
    `clip/standardised.py` knows it.
    """
    centred = kernel - kernel.mean((0, 1, 2))
    return centred * (gain * lax.rsqrt(jnp.maximum(jnp.square(centred).sum((0, 1, 2)), STANDARDISATION_FLOOR)))


class StandardisedConv(eqx.Module):
    """Weight-standardised convolution with gain and bias."""

    kernel: Float[Array, "kh kw d p"]
    gain: Float[Array, " p"]
    bias: Float[Array, " p"]
    stride: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1):
        self.kernel = fan_in_normal(key, (size, size, inputs, outputs), size * size * inputs)
        self.gain = jnp.ones(outputs)
        self.bias = jnp.zeros(outputs)
        self.stride = stride

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return convolve(image, standardise(self.kernel, self.gain), self.stride) + self.bias


class GroupNorm(eqx.Module):
    """Group normalisation (Wu & He 2018) of one image: statistics over all pixels and the channels of a group."""

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
        grouped = image.reshape(height, width, self.groups, channels // self.groups)
        mean = grouped.mean((0, 1, 3), keepdims=True)
        variance = grouped.var((0, 1, 3), keepdims=True)
        normal = (grouped - mean) * lax.rsqrt(variance + 1e-5)
        return normal.reshape(image.shape) * self.scale + self.shift


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
        return row @ self.weight + self.bias


def max_pool(image: Float[Array, "h w d"], size: int, stride: int) -> Float[Array, "a b d"]:
    return lax.reduce_window(image, -jnp.inf, lax.max, (size, size, 1), (stride, stride, 1), "VALID")


# -- layers of residual networks, padded as in PyTorch

Padding = Literal["same", "symmetric"]
"""Where a convolution of stride 2 puts its zeros: TensorFlow's "SAME" (fewer before than after) or PyTorch's (alike)."""


def convolve_padded(
    image: Float[Array, "h w d"], kernel: Float[Array, "kh kw e p"], stride: int = 1, groups: int = 1,
    padding: Padding = "symmetric",
) -> Float[Array, "a b p"]:  # fmt: skip
    """Cross-correlation; d = groups * e. "symmetric": (size - 1) / 2 zeros on every side; "same" may put fewer before."""
    sides = [(size // 2, size // 2) for size in kernel.shape[:2]] if padding == "symmetric" else "SAME"
    return lax.conv_general_dilated(
        image[None], kernel, (stride, stride), sides, dimension_numbers=_NHWC, feature_group_count=groups
    )[0]


def unit_kernel(kernel: Float[Array, "kh kw d p"], epsilon: float) -> Float[Array, "kh kw d p"]:
    """(w - mean) / sqrt(var + epsilon), mean and variance over each output's inputs (Qiao et al. 2019).

    `standardise` has a floor in place of epsilon and divides by sqrt(fan_in); public weights want this one.
    """
    centred = kernel - kernel.mean((0, 1, 2))
    return centred * lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + epsilon)


class BareConv(eqx.Module):
    """Convolution without bias, for a norm that shifts. With standardised=epsilon its kernel is `unit_kernel`'s."""

    kernel: Float[Array, "kh kw d p"]
    stride: int = eqx.field(static=True)
    standardised: float | None = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1,
                 standardised: float | None = None):  # fmt: skip
        self.kernel = fan_in_normal(key, (size, size, inputs, outputs), size * size * inputs, gain=2)
        self.stride = stride
        self.standardised = standardised

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        kernel = self.kernel if self.standardised is None else unit_kernel(self.kernel, self.standardised)
        return convolve_padded(image, kernel, self.stride)


class AffineConv(eqx.Module):
    """Convolution with bias, into which a BatchNorm of public statistics can be folded. groups=inputs: depthwise."""

    kernel: Float[Array, "kh kw e p"]
    bias: Float[Array, " p"]
    stride: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1, groups: int = 1):
        each = inputs // groups
        self.kernel = fan_in_normal(key, (size, size, each, outputs), size * size * each, gain=2)
        self.bias = jnp.zeros(outputs)
        self.stride = stride
        self.groups = groups

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return convolve_padded(image, self.kernel, self.stride, self.groups) + self.bias


class Affine(eqx.Module):
    """scale * x + shift per channel: a BatchNorm with public statistics that no convolution can take up."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]

    def __init__(self, channels: int):
        self.scale = jnp.ones(channels)
        self.shift = jnp.zeros(channels)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        return image * self.scale + self.shift


def max_pool_padded(image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
    """3 x 3 windows, stride 2, one pixel of padding that never wins."""
    return lax.reduce_window(image, -jnp.inf, lax.max, (3, 3, 1), (2, 2, 1), ((1, 1), (1, 1), (0, 0)))


def halve(image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
    """Means of 2 x 2 windows; of an odd side's last pixels, means of what is there."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((0, height % 2), (0, width % 2), (0, 0)))
    sums = padded.reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3))
    inside = [np.minimum(2, side - np.arange(0, side, 2)) for side in (height, width)]
    return sums / np.outer(*inside)[..., None].astype(np.float32).astype(image.dtype)


# -- layers of networks without normalisation

SCALED_EPSILON = 1e-5


class ScaledConv(eqx.Module):
    """Convolution with bias whose kernel is gain * gamma / sqrt(fan_in) * `unit_kernel`: scaled weight standardisation
    (Brock et al. 2021, arXiv 2101.08692) with the epsilon of public weights. gamma undoes what the nonlinearity before it
    does to the variance.
    """

    kernel: Float[Array, "kh kw e p"]
    gain: Float[Array, " p"]
    bias: Float[Array, " p"]
    stride: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    gamma: float = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, size: int, key: PRNGKeyArray, stride: int = 1, groups: int = 1,
                 gamma: float = 1.0, padding: Padding = "symmetric"):  # fmt: skip
        each = inputs // groups
        self.kernel = fan_in_normal(key, (size, size, each, outputs), size * size * each)
        self.gain = jnp.ones(outputs)
        self.bias = jnp.zeros(outputs)
        self.stride, self.groups, self.gamma, self.padding = stride, groups, gamma, padding

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        scale = self.gamma * np.prod(self.kernel.shape[:3]) ** -0.5
        kernel = unit_kernel(self.kernel, SCALED_EPSILON) * (self.gain * float(scale))
        return convolve_padded(image, kernel, self.stride, self.groups, self.padding) + self.bias


class SqueezeExcite(eqx.Module):
    """Each channel times a factor in (0, 1) that two dense layers find from the channels' means (Hu et al. 2018)."""

    squeeze: Linear
    excite: Linear

    def __init__(self, channels: int, hidden: int, key: PRNGKeyArray):
        keys = jax.random.split(key)
        self.squeeze = Linear.random(channels, hidden, keys[0])
        self.excite = Linear.random(hidden, channels, keys[1])

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "h w d"]:
        return image * jax.nn.sigmoid(self.excite(jax.nn.relu(self.squeeze(image.mean((0, 1))))))


class Dense(eqx.Module):
    """x @ weight + bias over the last axis: a 1 x 1 convolution of an image, a linear map of every token."""

    weight: Float[Array, "d p"]
    bias: Float[Array, " p"]

    @classmethod
    def random(cls, inputs: int, outputs: int, key: PRNGKeyArray, gain: float = 1.0) -> "Dense":
        return cls(fan_in_normal(key, (inputs, outputs), inputs, gain), jnp.zeros(outputs))

    def __call__(self, array: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
        return array @ self.weight + self.bias


def pads(length: int, size: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Zeros before and after an axis of `length` pixels for an odd kernel of `size`; the output has ceil(length / stride)."""
    if padding == "symmetric":
        return size // 2, size // 2
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


class Depthwise(eqx.Module):
    """Convolution of every channel with its own kernel, with bias.

    A sum of shifted, scaled images, which XLA makes one loop of: on a CPU eight times as fast as its grouped convolution.
    """

    kernel: Float[Array, "k k d"]
    bias: Float[Array, " d"]
    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __init__(self, channels: int, size: int, key: PRNGKeyArray, stride: int = 1, padding: Padding = "symmetric",
                 gain: float = 1.0):  # fmt: skip
        self.kernel = fan_in_normal(key, (size, size, channels), size * size, gain)
        self.bias = jnp.zeros(channels)
        self.stride, self.padding = stride, padding

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
        size, step, channels = self.kernel.shape[0], self.stride, image.shape[2]
        height, width = (-(-length // step) for length in image.shape[:2])
        rows, columns = (pads(length, size, step, self.padding) for length in image.shape[:2])
        image = jnp.pad(image, (rows, columns, (0, 0)))
        total = jnp.broadcast_to(self.bias, (height, width, channels))
        for i in range(size):
            for j in range(size):
                last = (i + step * (height - 1) + 1, j + step * (width - 1) + 1, channels)
                total = total + lax.slice(image, (i, j, 0), last, (step, step, 1)) * self.kernel[i, j]
        return total


class LayerNorm(eqx.Module):
    """Layer normalisation (Ba et al. 2016) over the last axis: of every token, or of the channels of every pixel."""

    scale: Float[Array, " d"]
    shift: Float[Array, " d"]
    epsilon: float = eqx.field(static=True)

    def __init__(self, channels: int, epsilon: float = 1e-6):
        self.scale = jnp.ones(channels)
        self.shift = jnp.zeros(channels)
        self.epsilon = epsilon

    def __call__(self, array: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        centred = array - array.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        return centred * lax.rsqrt(variance + self.epsilon) * self.scale + self.shift
