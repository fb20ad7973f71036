"""What is known of a symmetric matrix released with noise: its eigenvalues, cleaned, and inverses
of it.

A packed release with noise s on every number (`solve/symmetric.py`) is A + E with E symmetric, s on
the diagonal and s / sqrt(2) off it. For large d the eigenvalues of E fill a semicircle of radius s
sqrt(2 d), they push those of A apart and make many of them negative. No eigenvectors but those of A
+ E are known, so the best that can be done is to change the eigenvalues: the estimate V diag(xi)
V^T with the least expected squared error has

    xi(l) = l - d s^2 h(l),     h(l) = (1 / d) sum_j (l - l_j) / ((l - l_j)^2 + eta^2),

which needs nothing but the observed l_j (Bun, Allez, Bouchaud & Potters 2016, arXiv 1502.06736,
Sec. 4.2, for noise of variance sigma^2 = d s^2 / 2). What remains below zero is set to zero: A is a
sum of squares.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def noise_edge(d: int, noise: float) -> float:
    """The largest eigenvalue of the noise alone, s sqrt(2 d)."""
    return noise * math.sqrt(2 * d)


def cleaned(values: Float[np.ndarray, " d"], noise: float) -> Float[np.ndarray, " d"]:
    """xi for the eigenvalues `values` of a d x d release with noise s; in the same order, not
    negative, not growing where `values` do not.

    eta is the size of the noise's own gaps times sqrt(d), as the theory asks (eta >> gap, eta <<
    edge).
    """
    d = len(values)
    if noise <= 0:
        return np.maximum(values, 0)
    eta = noise_edge(d, noise) / math.sqrt(d)
    distance = values[:, None] - values[None, :]
    h = (distance / (distance**2 + eta**2)).mean(1)
    order = np.argsort(values)
    shrunk = np.empty(d)
    shrunk[order] = np.maximum.accumulate((values - d * noise**2 * h)[order])
    return np.maximum(shrunk, 0)


@dataclass(frozen=True)
class Spectrum:
    """V diag(values) V^T: a noisy symmetric matrix with its eigenvalues cleaned."""

    values: Float[np.ndarray, " d"]
    vectors: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, noisy: Float[np.ndarray, "d d"], noise: float) -> "Spectrum":
        """noise: s above. By LAPACK on the host."""
        values, vectors = np.linalg.eigh(noisy)
        return cls(cleaned(values.astype(np.float64), noise).astype(np.float32), vectors)

    @property
    def effective_rank(self) -> float:
        """(sum of l)^2 / sum of l^2: how many directions the data fill; d for a matrix of nothing."""
        largest = max(float(self.values.max()), 1e-30)
        shares = self.values.astype(np.float64) / largest
        return float(shares.sum() ** 2 / (shares**2).sum()) if shares.any() else float(len(shares))

    def inverse(self, ridge: float) -> Float[Array, "d d"]:
        """(A + ridge)^-1, for ridge > 0."""
        return jnp.asarray((self.vectors / (self.values + ridge)) @ self.vectors.T, jnp.float32)
