"""Does an example's contribution depend on the other examples? It cannot, unless a loss reaches out
of its trace."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Shaped

from sfumato.clip.engine import ClippedGrad
from sfumato.core.errors import ArgumentError


def check_isolation(
    clipped: ClippedGrad, params: PyTree, batch: PyTree[Shaped[Array, "b ..."]]
) -> None:
    """Change every example but one and see that the one's contribution stays the same, bit for bit,
    for each in turn.

    A loss is traced for one example, so mixing cannot be written in JAX, and what `vmap` would show
    several examples at once is refused (`trace.check_alone`). A call to Python, one example at a
    time, can still remember the others. Costs 2 b clipped gradients. Raises ArgumentError naming the
    first example that moved.
    """
    count = len(jax.tree.leaves(batch)[0])
    contribution = jax.jit(clipped.__call__)
    for one in range(count):
        alone = np.arange(count) == one
        others = _rolled(batch, alone)
        sums = [contribution(params, each, jnp.asarray(alone)).value for each in (batch, others)]
        if any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, sums), strict=True)):
            raise ArgumentError(
                "loss",
                f"example {one}",
                "its gradient changed when the other examples did; let the loss see "
                "one example only (no callbacks or vmap rules that mix the batch, no batch normalization)",
            )


def _rolled(batch: PyTree, alone: np.ndarray) -> PyTree:
    """The batch in which all examples but one have moved up."""
    return jax.tree.map(
        lambda leaf: jnp.where(_along(alone, leaf), leaf, jnp.roll(leaf, 1, 0)), batch
    )


def _along(vector: np.ndarray, like: Array) -> np.ndarray:
    return vector.reshape((-1,) + (1,) * (like.ndim - 1))
