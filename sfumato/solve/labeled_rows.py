"""Labeled rows of features as the solvers take them: any matrix, streamed in chunks, each row
brought to norm 1.

The matrix may be a memory map of float16: nothing is copied but one chunk, so memory is O(statistic
+ chunk) at any n.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError
from sfumato.core.tasks import Task, task_of
from sfumato.features.extraction import bounded
from sfumato.features.heads import Sphere, SphereLinear

CHUNK = 2048
FORGET = 64
"""Chunks after which the pages of a mapped file are given back; else a file of any size would come
to lie in memory."""

Chunk = tuple[Shaped[np.ndarray, "b d"], Int[np.ndarray, "b ..."], Float32[np.ndarray, " b"]]


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of d features (float16, float32 or float64), their classes 0 .. classes - 1 (or n x
    classes findings: 1, 0, or -1 where that is unknown), and how much each one counts.

    weights: from 0 to 1, None for all 1. An example's contribution to every sum is multiplied by
    its weight, so no weight gives it more influence than the proofs grant to an example of weight
    1.
    """

    matrix: Shaped[np.ndarray, "n d"]
    labels: Int[np.ndarray, "n ..."]
    classes: int
    weights: Float[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        shape: tuple[int, ...] | None = getattr(self.matrix, "shape", None)
        if shape is None or len(shape) != 2 or not hasattr(self.matrix, "dtype"):
            told = f"shape {shape}" if hasattr(self.matrix, "dtype") else type(self.matrix).__name__
            raise ArgumentError("matrix", told, "give an array of n rows and d features")
        if self.matrix.dtype.kind != "f":
            raise ArgumentError(
                "matrix", f"dtype {self.matrix.dtype}", "give float16, float32 or float64 features"
            )
        if self.labels.dtype.kind not in "iu":
            raise ArgumentError("labels", f"dtype {self.labels.dtype}", "give whole numbers")
        if len(self.labels) != len(self.matrix):
            raise ArgumentError(
                "labels",
                len(self.labels),
                f"give one label for each of the {len(self.matrix)} rows",
            )
        if not self.task.fits(self.labels, self.classes):
            wanted = (
                f"classes from 0 to {self.classes - 1}"
                if self.task.exclusive
                else f"{self.classes} columns of 0, 1 and -1 for unknown"
            )
            told = f"{self.labels.min()} to {self.labels.max()}" if len(self.labels) else "none"
            raise ArgumentError("labels", told, f"give {wanted}")
        if self.weights is not None and not (
            np.all(self.weights >= 0) and np.all(self.weights <= 1)
        ):
            raise ArgumentError(
                "weights", "outside [0, 1]", "divide the weights by the largest possible one"
            )

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def features(self) -> int:
        return self.matrix.shape[1]

    @property
    def task(self) -> Task:
        return task_of(self.labels)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that is private, by name."""
        own = {"matrix": self.matrix, "labels": self.labels}
        return own if self.weights is None else own | {"weights": self.weights}

    def chunks(
        self, indices: Int[np.ndarray, " m"] | None = None, size: int = CHUNK
    ) -> Iterator[Chunk]:
        """(rows, labels, weights) of one fixed length, of all rows or those at `indices`; padding
        has weight 0."""
        for start in range(0, len(self) if indices is None else len(indices), size):
            where = slice(start, start + size) if indices is None else indices[start : start + size]
            part, labels = self.matrix[where], self.labels[where]
            weights = (
                np.ones(len(part), np.float32)
                if self.weights is None
                else self.weights[where].astype(np.float32)
            )
            if part.dtype == np.float64:
                with np.errstate(over="ignore"):  # an infinite row counts as nothing
                    part = part.astype(np.float32)
            missing = size - len(part)
            if missing:
                part, labels, weights = (
                    np.concatenate([each, np.zeros((missing, *each.shape[1:]), each.dtype)])
                    for each in (part, labels, weights)
                )
            yield np.asarray(part), labels.astype(np.int32), weights
            if (start // size) % FORGET == FORGET - 1:
                _forget_pages(self.matrix)


def _forget_pages(matrix: np.ndarray) -> None:
    """Tell the system that a mapped file's pages need not stay; reading them again is all it costs.

    Only where the map is read-only: the changed pages of a copy-on-write map are in no file, so
    they would be lost.
    """
    base: object = matrix
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") and memoryview(base).readonly:
        base.madvise(mmap.MADV_DONTNEED)


def on_sphere(
    sphere: Sphere, rows: Shaped[Array, "b d"], weights: Float[Array, " b"]
) -> tuple[Float[Array, "b k1"], Float[Array, " b"]]:
    """Rows of norm at most 1, whatever is given; and their weights, 0 for a row that is not finite."""
    finite = jnp.all(jnp.isfinite(rows), axis=1)
    return jax.vmap(lambda row: bounded(sphere(row)))(rows), jnp.where(finite, weights, 0.0)


def mean_sum(rows: Rows, sphere: Sphere) -> BoundedSum:
    """{"rows": the sum of w u, "weight": a tenth of the sum of w} for rows u of norm 1 before
    centering.

    An example contributes w (u, 0.1) of norm at most sqrt(1.01), the sensitivity.
    """
    total = np.zeros(sphere.size)
    for part, _, weights in rows.chunks():
        total += np.asarray(_mean_sum(sphere, part, weights))
    return BoundedSum(
        {"rows": total[:-1], "weight": total[-1]}, Sensitivity.of_contribution(1.01**0.5)
    )


@jax.jit
def _mean_sum(
    sphere: Sphere, rows: Shaped[Array, "b d"], weights: Float[Array, " b"]
) -> Float[Array, " k1"]:
    weights = jnp.where(jnp.all(jnp.isfinite(rows), axis=1), weights, 0.0)
    turned = jax.vmap(lambda row: bounded(sphere.turned(row)))(rows)
    return jnp.append((turned * weights[:, None]).sum(0), 0.1 * weights.sum())


def mean_of(released: dict[str, Array], n: int) -> Float[Array, " k"]:
    """The mean that a released `mean_sum` stands for; the weight is at most n and, where noise
    drowns it, at least n / 20."""
    return released["rows"] / jnp.clip(10 * released["weight"], n / 20, n)


def scores_of(head: SphereLinear, matrix: Shaped[np.ndarray, "n d"]) -> Float32[np.ndarray, "n c"]:
    """Class scores of every row, in chunks."""
    rows = Rows(matrix, np.zeros(len(matrix), np.int32), 1)
    parts = [np.asarray(_scores(head, part)) for part, _, _ in rows.chunks()]
    return (
        np.concatenate(parts)[: len(matrix)]
        if parts
        else np.zeros((0, head.linear.bias.shape[0]), np.float32)
    )


@jax.jit
def _scores(head: SphereLinear, rows: Shaped[Array, "b d"]) -> Float[Array, "b c"]:
    return jax.vmap(head)(rows)
