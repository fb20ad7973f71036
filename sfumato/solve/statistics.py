"""Sums over feature rows whose sensitivity can be proven, computed in chunks: memory O(statistic + chunk) at any n.

Second moments. Let x be a row with |x| <= 1, cut into blocks x_1 ... x_m (one per group and frequency). One example adds
the matrices x_b x_b^T to the statistic. The squared distance it causes is

    sum_b |x_b x_b^T|_F^2 = sum_b |x_b|^4 <= (sum_b |x_b|^2)^2 = |x|^4 <= 1,

so all blocks together have L2 sensitivity 1 under add-or-remove-one, not one each.

Softmax gradient. For weights W (d x c) and label y the loss gradient of one example is x (p - e_y)^T with
p = softmax(W^T x), a matrix of rank one: its Frobenius norm is |x| |p - e_y|, so per-example clipping needs two vector
norms and no per-example gradient. Clipped at C the sum has sensitivity C.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.clip.materialise import clip_factors
from sfumato.features import bounded
from sfumato.models.feature_map import Group
from sfumato.models.heads import blocks
from sfumato.solve.symmetric import pack

CHUNK = 2048


def chunks(rows: Float[np.ndarray, "n d"], size: int = CHUNK) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(where, rows, mask) of one fixed length; the last chunk is padded with masked zeros, so code compiles once."""
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        part = rows[start:stop]
        if stop - start < size:
            part = np.concatenate([part, np.zeros((size - len(part), rows.shape[1]), rows.dtype)])
        yield slice(start, stop), part, np.arange(size) < stop - start


def second_moments(rows: Float[np.ndarray, "n d"], groups: Sequence[Group]) -> BoundedSum:
    """Per group, the packed second moments of its blocks (frequencies x packed_size(channels)); sensitivity 1 in all."""
    total = [jnp.zeros((group.frequencies, group.channels, group.channels), jnp.float32) for group in groups]
    for _, part, mask in chunks(rows, min(CHUNK, max(len(rows), 1))):
        total = _add_moments(total, part, mask, tuple(groups))
    return BoundedSum([pack(matrix) for matrix in total], Sensitivity.of_contribution(1.0))


@partial(jax.jit, static_argnums=3, donate_argnums=0)
def _add_moments(
    total: list[Array], rows: Float[Array, "b d"], mask: Bool[Array, "b"], groups: tuple[Group, ...]
) -> list[Array]:
    safe = jnp.where(mask[:, None], jax.vmap(bounded)(rows), 0.0)
    cut = jax.vmap(lambda row: blocks(row, groups))(safe)
    return [old + jnp.einsum("bfk,bfl->fkl", block, block) for old, block in zip(total, cut, strict=True)]


def softmax_gradient(clip_norm: float, normalised: bool = False) -> Callable[..., BoundedSum]:
    """`(params, (rows, labels), mask) -> BoundedSum`, equal to clipping the softmax cross entropy by any other method.

    params: {"weight": d x c}. rows that are not finite contribute nothing. normalised: as for `clipped_grad`.
    """
    sensitivity = Sensitivity.of_contribution(1.0 if normalised else clip_norm)

    def clipped(
        params: dict[str, Float[Array, "d c"]],
        batch: tuple[Float[Array, "b d"], Int[Array, "b"]],
        mask: Bool[Array, "b"],
    ) -> BoundedSum:
        rows, labels = batch
        length = jnp.sum(rows * rows, axis=1)
        finite = jnp.isfinite(length)
        rows = jnp.where(finite[:, None], rows, 0.0)
        error = jax.nn.softmax(rows @ params["weight"]) - jax.nn.one_hot(labels, params["weight"].shape[1])
        factors = clip_factors(length * jnp.sum(error * error, axis=1), mask & finite, clip_norm)
        scale = factors / clip_norm if normalised else factors
        return BoundedSum({"weight": rows.T @ (error * scale[:, None])}, sensitivity)

    return clipped
