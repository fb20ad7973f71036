"""The loss around given weights: its gradient and its curvature, as sums that one example can move by
little. Below for classes; what is different of findings stands in `core/tasks.py`.

Let z be a row of norm at most 1 (`solve/labeled_rows.py`), y its class out of L, w its weight in
[0, 1], p = softmax(W^T z).

Gradient. d loss / d W = z (p - e_y)^T, of norm |z| |p - e_y|, all classes together: clipping costs
two vector norms. At W = 0 it is z (1/L - e_y)^T, of norm at most sqrt(1 - 1/L), and minus the sum
is the label sum that least squares needs: the rows added up by class, so neither scores nor a
product over the classes are computed there. A sum of terms clipped at C has sensitivity C.

Curvature. The Hessian is (diag(p) - p p^T) (x) z z^T. Views of it, d x d per matrix, |z z^T|_F =
|z|^2 <= 1, so that numbers omega_m for matrices m move all of them together by at most the root of
sum_m omega_m^2:
* shared: one matrix, sum of omega z z^T, omega = (1 - |p|^2) / (1 - 1/L), the mean curvature over
  the L - 1 directions in which scores can differ, relative to that at W = 0. |p|^2 >= 1/L, so 0 <=
  omega <= 1: sensitivity 1. At W = 0 omega is 1 and the matrix is the Gram matrix.
* per class: L matrices, sum of omega_c z z^T with omega_c = p_c (1 - p_c) / B. p (1 - p)^2 <= 4/27
  (at p = 1/3), so sum_c p_c^2 (1 - p_c)^2 <= 4/27 sum_c p_c = 4/27; for two classes it is 2 (p (1 -
  p))^2 <= 1/8. With B the root of that, all L matrices together have sensitivity 1.
* moments, for least squares: the Gram matrix sqrt(1 - a) sum z z^T and that of each class, sqrt(a)
  sum_{y = c} z z^T. A row is in its own class alone, so 1 + L matrices have sensitivity sqrt((1 -
  a) + a) = 1.

Joint. (alpha curvature, beta gradient) moves by at most sqrt(alpha^2 + beta^2 C^2); alpha and beta
make that 1. One Gaussian release of the pair with noise s is exactly as private as two releases, of
the curvature with noise multiplier s / alpha and of the gradient with s / (beta C), and needs one
pass over the rows instead of two.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.clip.engine import check_clip_norm
from sfumato.clip.materialize import EXACT, clip_factors
from sfumato.core.tasks import SINGLE, Task
from sfumato.features.heads import Sphere
from sfumato.solve.labeled_rows import Rows, on_sphere
from sfumato.solve.symmetric import pack_host

PER_CLASS_BOUND = {True: math.sqrt(1 / 8), False: math.sqrt(4 / 27)}
"""B above, by whether there are just two classes."""

Kind = Literal["shared", "hessians", "moments"]
CLASS_MOMENTS = 0.5
"""a above."""


@dataclass(frozen=True)
class Balance:
    """How one release is shared by curvature and gradient: share of mu^2 for the curvature, and the
    clip norm C."""

    curvature_share: float
    clip_norm: float

    def __post_init__(self) -> None:
        check_clip_norm(self.clip_norm)

    @property
    def alpha(self) -> float:
        return math.sqrt(self.curvature_share)

    @property
    def beta(self) -> float:
        """Without a clip no noise is added, so that any scale will do."""
        clipped = self.clip_norm if self.clip_norm < math.inf else 1.0
        return math.sqrt(1 - self.curvature_share) / clipped

    @property
    def bound(self) -> float:
        """Of what one row adds to curvature and gradient together."""
        return 1.0 if self.clip_norm < math.inf else math.inf


def least_clip(classes: int, task: Task = SINGLE) -> float:
    """The largest norm of a gradient at W = 0 for a row of norm 1: sqrt(1 - 1/L) for classes."""
    return task.flat_norm(classes)


def gradient(
    rows: Rows,
    sphere: Sphere,
    weight: Float[Array, "k1 c"],
    clip_norm: float,
    indices: Int[np.ndarray, " m"] | None = None,
) -> BoundedSum:
    """The sum of the clipped gradients, of all rows or those at `indices`. Sensitivity C."""
    total, zero = np.zeros(weight.shape), not np.any(weight)
    for part in rows.chunks(indices):
        total += np.asarray(_gradient(sphere, weight, clip_norm, zero, rows.task, *part))
    return BoundedSum(total, Sensitivity.of_contribution(clip_norm))


def quadratic(
    rows: Rows,
    sphere: Sphere,
    weight: Float[Array, "k1 c"],
    balance: Balance,
    kind: Kind = "shared",
) -> BoundedSum:
    """{"curvature": matrices x packed, "gradient": k1 x c}, scaled by alpha and beta. Sensitivity
    1, together."""
    d, matrices = (
        sphere.size,
        {"shared": 1, "hessians": weight.shape[1], "moments": 1 + weight.shape[1]}[kind],
    )
    curvature, slope, zero = np.zeros((matrices, d, d)), np.zeros(weight.shape), not np.any(weight)
    for part in rows.chunks():
        rooted, part_slope = _quadratic(
            sphere, weight, balance.clip_norm, zero, kind, rows.task, *part
        )
        for matrix, each in zip(curvature, rooted, strict=True):
            matrix += _gram(each)
        slope += np.asarray(part_slope)
    value = {"curvature": balance.alpha * pack_host(curvature), "gradient": balance.beta * slope}
    return BoundedSum(value, Sensitivity.of_contribution(balance.bound))


Labels, Weights = Int[Array, "b ..."], Float[Array, " b"]


@partial(jax.jit, static_argnums=(2, 3, 4))
def _gradient(
    sphere: Sphere,
    weight: Float[Array, "k1 c"],
    clip_norm: float,
    zero: bool,
    task: Task,
    rows: Shaped[Array, "b d"],
    labels: Labels,
    weights: Weights,
) -> Float[Array, "k1 c"]:
    points, weights = on_sphere(sphere, rows, weights)
    chances = _chances(points, weight, zero, task)
    return _clipped(points, chances, clip_norm, zero, task, labels, weights)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _quadratic(
    sphere: Sphere,
    weight: Float[Array, "k1 c"],
    clip_norm: float,
    zero: bool,
    kind: Kind,
    task: Task,
    rows: Shaped[Array, "b d"],
    labels: Labels,
    weights: Weights,
) -> tuple[list[Float[Array, "b k1"]], Float[Array, "k1 c"]]:
    """For every matrix, the rows times sqrt(omega w), whose Gram matrix is the sum; and the
    gradient. zero: W is."""
    points, weights = on_sphere(sphere, rows, weights)
    chances = _chances(points, weight, zero, task)
    omega = curvatures(chances, labels, kind, task) * weights[:, None]
    omega = jnp.where(jnp.isfinite(omega), omega, 0.0)
    rooted = [points * jnp.sqrt(each)[:, None] for each in omega.T]
    return rooted, _clipped(points, chances, clip_norm, zero, task, labels, weights)


def _chances(
    points: Float[Array, "b k1"], weight: Float[Array, "k1 c"], zero: bool, task: Task
) -> Float[Array, "#b c"]:
    """p; at W = 0 one row, as all are alike."""
    if zero:
        return jnp.full((1, weight.shape[1]), task.flat_chance(weight.shape[1]))
    return task.chances(points @ weight)


def _gram(rows: Float[Array, "b k1"]) -> Float[np.ndarray, "k1 k1"]:
    """rows^T rows in float32. On a processor by BLAS, which computes one triangle only: half the
    work."""
    if jax.default_backend() == "cpu":
        host = np.asarray(rows)
        return host.T @ host
    return np.asarray(jnp.matmul(rows.T, rows, precision=EXACT))


def curvatures(
    chances: Float[Array, "#b c"], labels: Labels, kind: Kind, task: Task = SINGLE
) -> Float[Array, "#b m"]:
    """omega of every row, a number for each matrix; the squares of a row's numbers sum to at most
    1. Raises ArgumentError for a kind whose bound is one of classes, where labels are findings."""
    if kind != "shared":
        task.need_classes("per_class", True)
    if kind == "moments":
        own = jax.nn.one_hot(labels, chances.shape[1])
        return jnp.column_stack([jnp.full(len(labels), 1.0), own]) * moment_scales(chances.shape[1])
    if kind == "hessians":
        return chances * (1 - chances) / PER_CLASS_BOUND[chances.shape[1] == 2] * (1 - 1e-6)
    return task.curvature(chances, labels)


def moment_scales(classes: int) -> Float32[np.ndarray, " m"]:
    """sqrt(1 - a), and sqrt(a) for every class; a hair below, so that rounding does not pass the
    bound."""
    return np.sqrt([1 - CLASS_MOMENTS, *[CLASS_MOMENTS] * classes]).astype(np.float32) * np.float32(
        1 - 1e-6
    )


def _clipped(
    points: Float[Array, "b k1"],
    chances: Float[Array, "#b c"],
    clip_norm: float,
    zero: bool,
    task: Task,
    labels: Labels,
    weights: Weights,
) -> Float[Array, "k1 c"]:
    squared, classes = (points * points).sum(1), chances.shape[1]
    if zero and task.exclusive:
        scale = (
            clip_factors(squared * (1 - 1 / classes), jnp.ones(len(labels), bool), clip_norm)
            * weights
        )
        sums = _label_sums(points * scale[:, None], labels, classes)
        return sums.mean(1, keepdims=True) - sums
    error = task.error(chances, labels)
    scale = (
        clip_factors(squared * (error * error).sum(1), jnp.ones(len(labels), bool), clip_norm)
        * weights
    )
    error = jnp.where(
        scale[:, None] > 0, error * scale[:, None], 0.0
    )  # scores that overflow make NaN
    return jnp.matmul(points.T, error, precision=EXACT)


def _label_sums(points: Float[Array, "b k1"], labels: Labels, classes: int) -> Float[Array, "k1 c"]:
    """The sum of each class's points. Accelerators add up scattered rows in any order, so that no
    run could be repeated to the bit: there it is a product, which costs them little.
    """
    if jax.default_backend() == "cpu":
        return jax.ops.segment_sum(points, labels, classes).T
    return jnp.matmul(points.T, jax.nn.one_hot(labels, classes), precision=EXACT)
