"""Weight standardization: kernel -> kernel, by mean and variance of each output's inputs."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

STANDARDIZATION_FLOOR = 1e-4


@jax.jit
def standardize(
    kernel: Float[Array, "kh kw d p"], gain: Float[Array, " p"]
) -> Float[Array, "kh kw d p"]:
    """gain (w - mean) / sqrt(max(fan_in * var, 1e-4)), mean and variance over each output's inputs.

    Qiao et al. 2019; with gain, as Brock et al. 2021. It is one equation (jit) of whatever uses it,
    by which `clip/standardized.py` knows it.
    """
    centered = kernel - kernel.mean((0, 1, 2))
    return centered * (
        gain * lax.rsqrt(jnp.maximum(jnp.square(centered).sum((0, 1, 2)), STANDARDIZATION_FLOOR))
    )


@jax.jit
def unit_kernel(
    kernel: Float[Array, "kh kw d p"], epsilon: float | Float[Array, ""]
) -> Float[Array, "kh kw d p"]:
    """(w - mean) / sqrt(var + epsilon), mean and variance over each output's inputs (Qiao et al.
    2019).

    `standardize` has a floor in place of epsilon and divides by sqrt(fan_in); public weights want
    this one. It, too, is one equation, and known where epsilon is a Python number.
    """
    centered = kernel - kernel.mean((0, 1, 2))
    return centered * lax.rsqrt(jnp.square(centered).mean((0, 1, 2)) + epsilon)
