"""The slow twin: one gradient per example, held in full. Every other method must equal it.

For example i with gradient g_i the contribution is c_i g_i, with c_i such that |c_i g_i| <= C
(`clip/factors.py`).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from sfumato.clip.factors import EXACT, SLACK, Clipper, clip_factors
from sfumato.clip.trace import Loss, Trace
from sfumato.core.trees import squared_norm

__all__ = ["EXACT", "SLACK", "clip_factors", "clipped_sum", "contract", "contract_finite"]


def clipped_sum(
    loss: Loss,
    trace: Trace,
    clipper: Clipper,
    params: PyTree,
    batch: PyTree[Shaped[Array, "b ..."]],
    mask: Bool[Array, " b"],
) -> PyTree:
    """Sum over the batch of c_i times the gradient of `loss(params, example_i)`, in float32. Memory
    O(b * params)."""
    gradient = jax.grad(loss)
    if trace.has_grouped_convolution:
        # On a CPU, vmap would turn it into a convolution whose kernel holds zeros in place of the
        # other examples, and zero times one example's NaN is NaN in all.
        each = lax.map(lambda example: gradient(params, example), batch)
    else:
        each = jax.vmap(gradient, in_axes=(None, 0))(params, batch)
    gradients, structure = jax.tree.flatten(each)
    factors = clipper([jax.vmap(squared_norm)(leaf) for leaf in gradients], mask)
    return jax.tree.unflatten(
        structure, [contract(*each) for each in zip(factors, gradients, strict=True)]
    )


def contract(factors: Float[Array, " b"], gradients: Float[Array, "b ..."]) -> Float[Array, "..."]:
    """sum_i c_i g_i, in float32."""
    chosen = (factors > 0).reshape((-1,) + (1,) * (gradients.ndim - 1))
    return contract_finite(
        factors, jnp.where(chosen, gradients.astype(jnp.float32), 0.0)
    )  # 0 * NaN would be NaN


def contract_finite(
    factors: Float[Array, " b"], gradients: Float[Array, "b ..."]
) -> Float[Array, "..."]:
    """The same, for gradients known to be finite."""
    return jnp.tensordot(factors, gradients, axes=1, precision=EXACT)
