"""Weight standardisation: kernel -> kernel, by mean and variance of each output's inputs."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

STANDARDISATION_FLOOR = 1e-4


@jax.jit
def standardise(kernel: Float[Array, "kh kw d p"], gain: Float[Array, " p"]) -> Float[Array, "kh kw d p"]:
    """gain (w - mean) / sqrt(max(fan_in * var, 1e-4)), mean and variance over each output's inputs.

    Qiao et al. 2019; with gain, as Brock et al. 2021. It is one equation (jit) of whatever uses it, by which
    `clip/standardised.py` knows it.
    """
    centred = kernel - kernel.mean((0, 1, 2))
    return centred * (gain * lax.rsqrt(jnp.maximum(jnp.square(centred).sum((0, 1, 2)), STANDARDISATION_FLOOR)))


def unit_kernel(kernel: Float[Array, "kh kw d p"], epsilon: float) -> Float[Array, "kh kw d p"]:
    """(w - mean) / sqrt(var + epsilon), mean and variance over each output's inputs (Qiao et al. 2019).

    `standardise` has a floor in place of epsilon and divides by sqrt(fan_in); public weights want this one.
    """
    centred = kernel - kernel.mean((0, 1, 2))
    return centred * lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + epsilon)
