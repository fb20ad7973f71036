"""Convolutions of ONE image, height x width x channels: plain, padded, standardized, depthwise."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.networks.layers.basic import fan_in_normal, like
from sfumato.networks.layers.standardization import standardize, unit_kernel

Padding = Literal["symmetric", "SAME"]
"""Where a convolution of stride 2 puts its zeros: PyTorch's way (alike on all sides) or
TensorFlow's (fewer before)."""

SCALED_EPSILON = 1e-5
_NHWC = ("NHWC", "HWIO", "NHWC")


def convolve(
    image: Float[Array, "h w d"], kernel: Float[Array, "kh kw d p"], stride: int = 1
) -> Float[Array, "a b p"]:
    """Cross-correlation with "SAME" padding."""
    return convolve_padded(image, kernel, stride, padding="SAME")


def convolve_padded(
    image: Float[Array, "h w d"],
    kernel: Float[Array, "kh kw e p"],
    stride: int = 1,
    groups: int = 1,
    padding: Padding = "symmetric",
) -> Float[Array, "a b p"]:
    """Cross-correlation; d = groups * e."""
    sides = (
        [(size // 2, size // 2) for size in kernel.shape[:2]] if padding == "symmetric" else padding
    )
    return lax.conv_general_dilated(
        image[None],
        like(kernel, image),
        (stride, stride),
        sides,
        dimension_numbers=_NHWC,
        feature_group_count=groups,
    )[0]


class BareConv(eqx.Module):
    """Convolution without bias, for a norm that shifts. With standardized=epsilon its kernel is
    `unit_kernel`'s. groups=inputs: depthwise. variance: of the random kernel, times its fan-in."""

    kernel: Float[Array, "kh kw e p"]
    stride: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    standardized: float | None = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        key: PRNGKeyArray,
        stride: int = 1,
        groups: int = 1,
        *,
        padding: Padding = "symmetric",
        standardized: float | None = None,
        variance: float = 2.0,
    ):
        shape = (size, size, inputs // groups, outputs)
        self.kernel = fan_in_normal(key, shape, size * size * shape[2], variance)
        self.stride, self.groups, self.padding = stride, groups, padding
        self.standardized = standardized

    def weight(self) -> Float[Array, "kh kw e p"]:
        """The kernel it convolves with."""
        if self.standardized is None:
            return self.kernel
        return unit_kernel(self.kernel, self.standardized)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return convolve_padded(image, self.weight(), self.stride, self.groups, self.padding)


class AffineConv(BareConv):
    """Convolution with bias, into which a BatchNorm of public statistics can be folded."""

    bias: Float[Array, " p"]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        key: PRNGKeyArray,
        stride: int = 1,
        *,
        padding: Padding = "symmetric",
        variance: float = 2.0,
    ):
        super().__init__(inputs, outputs, size, key, stride, padding=padding, variance=variance)
        self.bias = jnp.zeros(outputs)

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        return super().__call__(image) + like(self.bias, image)


class StandardizedConv(eqx.Module):
    """Weight-standardized convolution with gain and bias."""

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
        maps = convolve(image, standardize(self.kernel, self.gain), self.stride)
        return maps + like(self.bias, image)


class ScaledConv(BareConv):
    """Convolution with bias whose kernel is gain * gamma / sqrt(fan_in) * `unit_kernel`: scaled
    weight standardization (Brock et al. 2021, arXiv 2101.08692) with the epsilon of public weights.
    gamma undoes what the nonlinearity before it does to the variance. The gain multiplies the maps
    instead of the kernel, which is the same: so the kernel alone makes the weight, whose norms the
    clipping engine knows, also where a gain is 0.
    """

    gain: Float[Array, " p"]
    bias: Float[Array, " p"]
    gamma: float = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        key: PRNGKeyArray,
        stride: int = 1,
        groups: int = 1,
        *,
        gamma: float = 1.0,
        padding: Padding = "symmetric",
    ):
        super().__init__(
            inputs,
            outputs,
            size,
            key,
            stride,
            groups,
            padding=padding,
            standardized=SCALED_EPSILON,
            variance=1.0,
        )
        self.gain, self.bias, self.gamma = jnp.ones(outputs), jnp.zeros(outputs), gamma

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        scale = self.gamma * np.prod(self.kernel.shape[:3]) ** -0.5
        maps = super().__call__(image)
        return maps * like(self.gain * float(scale), image) + like(self.bias, image)


class Depthwise(eqx.Module):
    """Convolution of every channel with its own kernel, with bias.

    A sum of shifted, scaled images, which XLA makes one loop of: on a CPU eight times as fast as
    its grouped convolution.
    """

    kernel: Float[Array, "k k d"]
    bias: Float[Array, " d"]
    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        size: int,
        key: PRNGKeyArray,
        stride: int = 1,
        padding: Padding = "symmetric",
        gain: float = 1.0,
    ):
        self.kernel = fan_in_normal(key, (size, size, channels), size * size, gain)
        self.bias = jnp.zeros(channels)
        self.stride, self.padding = stride, padding

    def __call__(self, image: Float[Array, "h w d"]) -> Float[Array, "a b d"]:
        size, step, channels = self.kernel.shape[0], self.stride, image.shape[2]
        height, width = (-(-length // step) for length in image.shape[:2])
        sides = [(size // 2, size // 2)] * 2
        if self.padding == "SAME":
            sides = lax.padtype_to_pads(image.shape[:2], (size, size), (step, step), "SAME")
        image = jnp.pad(image, (*sides, (0, 0)))
        total = jnp.broadcast_to(like(self.bias, image), (height, width, channels))
        kernel = like(self.kernel, image)
        for i in range(size):
            for j in range(size):
                last = (i + step * (height - 1) + 1, j + step * (width - 1) + 1, channels)
                total = total + lax.slice(image, (i, j, 0), last, (step, step, 1)) * kernel[i, j]
        return total
