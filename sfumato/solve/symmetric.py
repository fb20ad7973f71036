"""Symmetric matrices as vectors, without changing distances.

pack(A) lists the diagonal and the upper triangle, the latter times sqrt(2). Then |pack(A)|_2 =
|A|_Frobenius, so a bound on the Frobenius norm of one example's matrix is the L2 sensitivity of the
packed sum, and independent noise of standard deviation s on the packed numbers is a symmetric noise
matrix with s on the diagonal and s / sqrt(2) off it: half the noise energy of perturbing every
entry.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def packed_size(k: int) -> int:
    return k * (k + 1) // 2


def pack(matrix: Float[Array, "*batch k k"]) -> Float[Array, "*batch m"]:
    """The isometric packing; only the upper triangle of the matrix is read."""
    rows, columns, weights = _layout(matrix.shape[-1])
    return matrix[..., rows, columns] * weights


def unpack(vector: Float[Array, "*batch m"], k: int) -> Float[Array, "*batch k k"]:
    """The symmetric matrix with this packing."""
    rows, columns, weights = _layout(k)
    values = vector / weights
    upper = jnp.zeros((*vector.shape[:-1], k, k), vector.dtype).at[..., rows, columns].set(values)
    return upper.at[..., columns, rows].set(values)


def _layout(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = np.triu_indices(k)
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2.0)).astype(np.float32)


def pack_host(matrix: Float[np.ndarray, "*batch k k"]) -> Float[np.ndarray, "*batch m"]:
    """`pack` in float64 on the host, for matrices too large to put their layout into compiled code."""
    rows, columns, weights = _layout(matrix.shape[-1])
    return matrix[..., rows, columns] * weights.astype(np.float64)


def unpack_host(vector: Float[np.ndarray, "*batch m"], k: int) -> Float[np.ndarray, "*batch k k"]:
    """`unpack` on the host."""
    rows, columns, weights = _layout(k)
    whole = np.zeros((*vector.shape[:-1], k, k), vector.dtype)
    whole[..., rows, columns] = vector / weights
    whole[..., columns, rows] = whole[..., rows, columns]
    return whole
