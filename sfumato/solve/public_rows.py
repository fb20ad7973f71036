"""The part of the row map that costs no privacy: centering and directions learned from features of
public examples.

Rows are shifted by the public mean and expressed in the k leading principal directions of the
public rows, each divided by its standard deviation to the power 1/2: directions that vary little in
public say more about classes than their size tells, and full whitening would blow up those that
hold noise alone. k follows from the budget, as fewer directions carry less noise.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sfumato.core.errors import ArgumentError
from sfumato.data.source import not_finite
from sfumato.features.heads import Sphere


def directions(n: int, mu: float) -> int:
    """How many directions to keep for n private examples and a budget of mu: 8 sqrt(n mu), from 64
    to 512."""
    return round(min(max(8 * (n * mu) ** 0.5, 64), 512))


def public_sphere(public: Float[np.ndarray, "m d"], k: int, rooted: bool = False) -> Sphere:
    """The map with at most k directions of the public rows (at most m - 1 and d; rows that are not
    finite are left out).

    Raises ArgumentError if fewer than two rows are usable.
    """
    rows = np.asarray(public, np.float64)
    rows = rows[~not_finite(rows)]
    if len(rows) < 2:
        raise ArgumentError(
            "public", f"{len(rows)} usable rows", "give features of two public examples or more"
        )
    if rooted:
        rows = np.sign(rows) * np.sqrt(np.abs(rows))
    shift = rows.mean(0)
    values, vectors = np.linalg.eigh(np.cov(rows.T).reshape(rows.shape[1], -1))
    values, vectors = values[::-1], vectors[:, ::-1]
    usable = int(np.count_nonzero(values > 1e-9 * max(float(values[0]), 1e-30)))
    k = max(1, min(k, len(rows) - 1, usable))
    scale = np.maximum(values[:k], 1e-30) ** -0.25
    return Sphere(
        jnp.asarray(shift, jnp.float32),
        jnp.asarray(vectors[:, :k] * scale, jnp.float32),
        jnp.zeros(k),
        rooted,
    )
