"""The slow twin: one gradient per example, held in full. Every other method must equal it.

For example i with gradient g_i the contribution is c_i g_i with c_i = C / max(C, |g_i|), so |c_i g_i| <= C. An example
that is masked, or whose gradient is not finite or whose squared norm overflows, contributes exactly zero: it can no more
move the sum than any other example can.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from sfumato.core.trees import squared_norm

SLACK = 1e-5
"""Norms summed in float32 are off by some 1e-6; contributions are scaled down by this much so that none exceeds C."""


EXACT = jax.lax.Precision.HIGHEST
"""For every product after the clip: accelerators round the factors of an ordinary one to 10 or 7 bits, past any slack."""


def clip_factors(
    squared_norms: Float[Array, "b"], mask: Bool[Array, "b"], clip_norm: float
) -> Float[Array, "b"]:
    """c_i for squared gradient norms; 0 where masked or not finite."""
    norms = jnp.sqrt(squared_norms) * (1 + SLACK)
    return jnp.where(mask & jnp.isfinite(squared_norms), clip_norm / jnp.maximum(norms, clip_norm), 0.0)


def clipped_sum(
    loss: Callable[[PyTree, PyTree], Float[Array, ""]],
    clip_norm: float,
    params: PyTree,
    batch: PyTree[Shaped[Array, "b ..."]],
    mask: Bool[Array, "b"],
) -> PyTree:
    """Sum over the batch of c_i times the gradient of `loss(params, example_i)`, in float32. Memory O(b * params)."""
    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, batch)
    factors = clip_factors(jax.vmap(squared_norm)(gradients), mask, clip_norm)

    def combine(leaf: Array) -> Array:
        kept = jnp.where(_per_example(factors > 0, leaf), leaf.astype(jnp.float32), 0.0)  # 0 * NaN would be NaN
        return jnp.tensordot(factors, kept, axes=1, precision=EXACT)

    return jax.tree.map(combine, gradients)


def _per_example(vector: Array, leaf: Array) -> Array:
    return vector.reshape((-1,) + (1,) * (leaf.ndim - 1))
