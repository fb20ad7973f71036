"""Sums over feature rows whose sensitivity can be proven, computed in chunks: memory O(statistic +
chunk) at any n.

Sums over a chunk are float32, sums of chunks float64: rounding that depends on the other examples
is not part of the proofs below, and this keeps it some 1e-6 of a contribution instead of growing
with n.

Sum of rows. A row has norm at most 1, so the sum has sensitivity 1.

Second moments. Let x be a row made of groups with |x_g|^2 <= w_g, and x_b, b in g, the blocks of
group g (one per frequency). One example adds the matrices x_b x_b^T to the statistic. The squared
distance it causes is

    sum_b |x_b x_b^T|_F^2 = sum_b |x_b|^4 <= sum_g (sum_{b in g} |x_b|^2)^2
                          = sum_g |x_g|^4 <= sum_g w_g^2,

so all blocks of all groups together have L2 sensitivity sqrt(sum_g w_g^2) <= 1 under
add-or-remove-one, not that each.

Softmax gradient. For weights W (d x c) and label y the loss gradient of one example is x (p -
e_y)^T with p = softmax(W^T x), a matrix of rank one: its Frobenius norm is |x| |p - e_y|, so
per-example clipping needs two vector norms and no per-example gradient. Clipped at C the sum has
sensitivity C. For findings the error is another (`core/tasks.py`), the rest the same: a row enters all
columns, which are clipped as one. Their head needs an intercept, as findings are rare: rows become
(sqrt(1 - a^2) x, a), of norm at most 1 if x is, and W has a row more (`linear_of`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.clip.engine import check_clip_norm
from sfumato.clip.factors import normalizer
from sfumato.clip.materialize import EXACT, clip_factors
from sfumato.core.tasks import SINGLE, Task
from sfumato.features.extraction import bounded
from sfumato.features.feature_map import Group
from sfumato.features.heads import blocks
from sfumato.networks.layers.basic import Linear
from sfumato.solve.symmetric import pack, packed_size

CHUNK = 2048


def chunks(
    rows: Float[np.ndarray, "n d"], size: int = CHUNK
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(where, rows, mask) of one fixed length; the last chunk is padded with masked zeros, so code
    compiles once."""
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        part = rows[start:stop]
        if stop - start < size:
            part = np.concatenate([part, np.zeros((size - len(part), rows.shape[1]), rows.dtype)])
        yield slice(start, stop), part, np.arange(size) < stop - start


def row_sum(rows: Float[np.ndarray, "n d"]) -> BoundedSum:
    """The sum of the rows; sensitivity 1."""
    total = np.zeros(rows.shape[1])
    for _, part, mask in chunks(rows):
        total += np.asarray(_row_sum(part, mask))
    return BoundedSum(total, Sensitivity.of_contribution(1.0))


@jax.jit
def _row_sum(rows: Float[Array, "b d"], mask: Bool[Array, " b"]) -> Float[Array, " d"]:
    return jnp.where(mask[:, None], jax.vmap(bounded)(rows), 0.0).sum(0)


def second_moments(rows: Float[np.ndarray, "n d"], groups: Sequence[Group]) -> BoundedSum:
    """Per group, the packed second moments of its blocks (frequencies x packed_size(channels)).

    A group longer than sqrt(weight) is scaled down to it. Sensitivity sqrt(sum of weight^2), for
    all of them together.
    """
    total = [np.zeros((group.frequencies, packed_size(group.channels))) for group in groups]
    for _, part, mask in chunks(rows):
        for old, new in zip(total, _moments(part, mask, tuple(groups)), strict=True):
            old += np.asarray(new)
    bound = math.sqrt(sum(group.weight**2 for group in groups))
    return BoundedSum(total, Sensitivity.of_contribution(bound))


@partial(jax.jit, static_argnums=2)
def _moments(
    rows: Float[Array, "b d"], mask: Bool[Array, " b"], groups: tuple[Group, ...]
) -> list[Float[Array, "_ _"]]:
    def safe(row: Float[Array, " d"], member: Bool[Array, ""]) -> list[Float[Array, "_ _"]]:
        cut = zip(blocks(jnp.where(member, row, 0.0), groups), groups, strict=True)
        return [
            bounded(block.ravel() / group.weight**0.5).reshape(block.shape) * group.weight**0.5
            for block, group in cut
        ]

    return [
        pack(jnp.einsum("bfk,bfl->fkl", block, block, precision=EXACT))
        for block in jax.vmap(safe)(rows, mask)
    ]


@cache
def softmax_gradient(
    clip_norm: float, normalized: bool = False, task: Task = SINGLE
) -> Callable[..., BoundedSum]:
    """`(params, (rows, labels), mask) -> BoundedSum`, equal to clipping the task's loss (softmax cross
    entropy, unless labels are findings) by any other method.

    params: {"weight": d x c, see `start_of`}. rows that are not finite contribute nothing. normalized:
    as for `clipped_grad`.
    """
    check_clip_norm(clip_norm)
    by = normalizer(clip_norm, normalized)
    sensitivity = Sensitivity.of_contribution(clip_norm / by)

    def clipped(
        params: dict[str, Float[Array, "p c"]],
        batch: tuple[Float[Array, "b d"], Int[Array, "b ..."]],
        mask: Bool[Array, " b"],
    ) -> BoundedSum:
        rows, labels = batch[0].astype(jnp.float32), batch[1]  # squares of halves underflow
        if task.intercept:
            behind = jnp.full((len(rows), 1), task.intercept)
            rows = jnp.concatenate([_beside(task) * rows, behind], axis=1)
        length = jnp.sum(rows * rows, axis=1)
        finite = jnp.isfinite(length)
        rows = jnp.where(finite[:, None], rows, 0.0)
        error = task.error(task.chances(rows @ params["weight"]), labels)
        factors = clip_factors(length * jnp.sum(error * error, axis=1), mask & finite, clip_norm)
        scale = factors / by if normalized else factors
        weighted = jnp.where(
            factors[:, None] > 0, error * scale[:, None], 0.0
        )  # scores that overflow make NaN errors
        return BoundedSum({"weight": jnp.matmul(rows.T, weighted, precision=EXACT)}, sensitivity)

    return clipped


def _beside(task: Task) -> float:
    """What is left for a row of norm 1 beside the intercept's constant."""
    return math.sqrt(1 - task.intercept**2)


def start_of(d: int, classes: int, task: Task) -> Float[Array, "d1 c"]:
    """Weights of zeros for rows of d features; with a row for the intercept, if the task has one."""
    return jnp.zeros((d + (task.intercept > 0), classes))


def linear_of(weight: Float[Array, "d1 c"], task: Task) -> Linear:
    """The layer that these weights stand for, of rows as they were given."""
    if not task.intercept:
        return Linear(weight, jnp.zeros(weight.shape[1]))
    return Linear(_beside(task) * weight[:-1], task.intercept * weight[-1])


def scores_by(
    rows: Float[np.ndarray, "n d"], weight: Float[Array, "d1 c"], task: Task
) -> Float[np.ndarray, "n c"]:
    """Scores of all rows."""
    linear = linear_of(weight, task)
    scores = np.asarray(rows @ np.asarray(linear.weight))
    return scores + np.asarray(linear.bias) if task.intercept else scores
