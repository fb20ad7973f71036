"""The part of the row map that costs no privacy: centering and directions learned from features of
public examples.

Rows are shifted by the public mean and expressed in the k leading principal directions of the
public rows, each divided by its standard deviation to the power 1/2: directions that vary little in
public say more about classes than their size tells, and full whitening would blow up those that
hold noise alone. k follows from the budget, as fewer directions carry less noise.
"""

import hashlib
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from sfumato.core.errors import ArgumentError
from sfumato.data.source import CHUNK, not_finite
from sfumato.features.heads import Sphere


def directions(n: int, mu: float) -> int:
    """How many directions to keep for n private examples and a budget of mu: 8 sqrt(n mu), from 64
    to 512."""
    return round(min(max(8 * (n * mu) ** 0.5, 64), 512))


def check_public(public: Shaped[np.ndarray, "m d"], private: Shaped[np.ndarray, "n d"]) -> str:
    """What the owner should know of public rows that are private ones, too; "" where there are none.

    Raises ArgumentError where most are: mean and directions would be released of them without noise. As
    for `data/finite.py` the line is at half of them, where hardly any data set is one example away from it.
    Rows of which many are alike, as those of a few binary columns, agree by chance: then nothing is refused.
    """
    both, shown, own = _in_common(public, private)
    told = f"{both} of {shown} different rows are rows of the training set"
    if 2 * both > min(shown, own) and own > 0.9 * len(private):
        raise ArgumentError(
            "public",
            told,
            "the model would hold their mean and main directions without noise; give rows of other examples, which are "
            "public",
        )
    return (
        f"public: {told}; the model holds mean and main directions of the public rows without noise, and epsilon does "
        "not count them"
        if both
        else ""
    )


def _in_common(public: np.ndarray, private: np.ndarray) -> tuple[int, int, int]:
    """How many different rows are in both, and in each. One of them may be a copy in half precision, in
    which feature stores are kept; where that makes rows alike which are not, they are compared as they are.
    """
    halves, wholes = (
        tuple(set(_hashes(rows, kind)) for rows in (public, private))
        for kind in (np.float16, np.float32)
    )
    apart = all(len(half) == len(whole) for half, whole in zip(halves, wholes, strict=True))
    shown, own = halves if apart else wholes
    return len(shown & own), len(shown), len(own)


def _hashes(rows: np.ndarray, kind: type) -> Iterator[bytes]:
    with np.errstate(over="ignore"):
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK] + 0  # -0.0 is 0.0
            for row in np.ascontiguousarray(chunk, kind):
                yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()


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
