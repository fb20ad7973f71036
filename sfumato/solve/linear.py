"""Private linear classifiers of feature rows: least squares, Newton, feature covariance, class
means, first-order heads.

After Mehta et al. 2022 (arXiv 2211.13403, Alg. 1 to 3), with their releases joined
(solve/quadratic.py), features centered by a private mean and brought to norm 1 before everything
else, eigenvalues cleaned of the noise they carry (solve/spectrum.py), and the ridge set by the
known noise of the gradient, so that nothing is left to tune.

All of them start with the release of the mean. Then, with G the curvature at W = 0 (the Gram
matrix) and g a gradient,

    ls       one release of (G, g):                   W = -L (G + ridge)^-1 g     (or a matrix per class, see mixed_moments)
    newton   T releases of (H, g) at the current W:   W <- W - r (H + ridge)^-1 g
    fc       one release of (G, g), T - 1 of g:       W <- W - r (G + ridge)^-1 g
    means    one release of the label sums:           W = the class means
    sgd, adam, lamb   T releases of g:                W <- optimizer(W, g / n), from W = 0 (Mehta et al. 2022, arXiv 2205.02973)

Least squares is the first Newton step: at W = 0 the softmax loss has Hessian G / L and gradient
minus the label sums; the loss of findings G / 4 in each column.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree, Shaped

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError
from sfumato.core.settings import flags_of
from sfumato.features.heads import Sphere, SphereLinear
from sfumato.networks.layers.basic import Linear
from sfumato.privacy.releases import Release
from sfumato.solve.labeled_rows import Rows, mean_of, mean_sum
from sfumato.solve.linear_settings import LinearSettings, head_of
from sfumato.solve.optimizers import OPTIMIZERS
from sfumato.solve.quadratic import Balance, Kind, gradient, least_clip, moment_scales, quadratic
from sfumato.solve.sequence import Stage, Stages, State
from sfumato.solve.spectrum import Spectrum
from sfumato.solve.symmetric import unpack_host

CLASS_MIX = 0.1
"""Weight of a class's own second moments against those of all rows, where least squares uses both.
"""

FLAT = 90.0
"""Effective rank from which on the ridge of fc is that of the rule; with fewer directions it is
smaller."""


def solver(
    rows: Rows, sphere: Sphere, settings: LinearSettings, releases: tuple[Release, ...]
) -> Stages:
    """The procedure that makes `releases` (from `linear_settings.releases_for`). sphere: the public part of
    the row map.

    Its state: mean, weight and, for ls and fc, the inverse of the ridged Gram matrix, else the
    optimizer's own. Raises ArgumentError for settings that are for classes, where labels are findings.
    """
    settings.check_task(rows.task)
    problem = _Problem(rows, sphere, settings)
    makers = [_Problem.mean, *(STAGES[name] for name in settings.stages)]
    stages = tuple(make(problem, release) for make, release in zip(makers, releases, strict=False))
    return Stages(
        f"dp-{settings.method}",
        rows,
        problem.start(),
        stages,
        problem.classifier,
        lambda noise: solver(rows, sphere, settings, settings.releases(1 / noise)),
        lambda: solver(
            rows, sphere, settings.unclipped(), tuple(each.unprotected() for each in releases)
        ),
        {"settings": asdict(settings), "sphere": sphere.kind},
    )


def linear_head(
    matrix: Shaped[np.ndarray, "n d"],
    labels: Any,
    method: str = "auto",
    *,
    classes: int | None = None,
    sphere: Sphere | None = None,
    **flags: Any,
) -> Stages:
    """A linear classifier of feature rows, to be calibrated and run:

        method = sf.calibrate(sf.linear_head(rows, labels, "newton"), epsilon=3.0, delta=1e-5)
        state = sf.run(method, out="runs/rows")
        scores = jax.vmap(method.classifier(state))(other_rows)

    matrix: n x d, float16, float32 or float64, also memory-mapped. labels: whole numbers from 0, or a
    matrix n x L of findings, each 0, 1, or -1 where it is unknown.
    method: of `sfumato fit`; its settings follow its rule for the budget, but for `flags`, those of
    the command line (steps=10, batch=500). classes: their number; None takes the largest label,
    which is then public. sphere: the public part of the row map. Raises ArgumentError.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or not len(labels):
        raise ArgumentError(
            "labels", f"{len(labels)} of {labels.dtype}", "give whole numbers from 0"
        )
    found = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    rows = Rows(matrix, labels, found if classes is None else classes)
    own = Sphere.plain(rows.features) if sphere is None else sphere
    kind = head_of(method, own.size - 1)
    for name, value in flags.items():
        if name not in flags_of(kind) or name in LinearSettings.also:
            raise ArgumentError(
                name, value, f"method {kind.method} has no such setting; leave it out"
            )

    def at(noise: float) -> Stages:
        rule = kind.rule(len(rows), own.size, rows.classes, 1 / noise, rows.task)
        ruled = rule.given(flags, len(rows))
        return replace(solver(rows, own, ruled, ruled.releases(1 / noise)), again=at)

    return replace(at(1.0), noisy=False)


@dataclass(frozen=True, eq=False)
class _Problem:
    rows: Rows
    sphere: Sphere
    settings: Any

    def start(self) -> State:
        state: State = {
            "mean": self.sphere.mean,
            "weight": jnp.zeros((self.sphere.size, self.rows.classes)),
        }
        if "moments" in self.settings.stages:
            state["inverse"] = jnp.eye(self.sphere.size)
        if "first order" in self.settings.stages:
            state["optimizer"] = self.optimizer().init(state["weight"])
        return state

    def optimizer(self) -> optax.GradientTransformation:
        make = OPTIMIZERS[self.settings.method].make
        return make(self.settings.learning_rate, self.settings.momentum)

    def centered(self, state: State) -> Sphere:
        return Sphere(self.sphere.shift, self.sphere.projection, state["mean"], self.sphere.rooted)

    def classifier(self, state: State) -> SphereLinear:
        return SphereLinear(
            self.centered(state), Linear(state["weight"], jnp.zeros(self.rows.classes))
        )

    def mean(self, release: Release) -> Stage:
        return Stage(
            release,
            lambda state, indices: mean_sum(self.rows, self.sphere),
            lambda state, released: {**state, "mean": mean_of(released, len(self.rows))},
        )

    def first(self, release: Release) -> Stage:
        """(G, g) at W = 0."""
        share = self.settings.curvature_share / (
            self.settings.curvature_share + self.settings.gradient_share / self.settings.steps
        )
        balance = Balance(share, least_clip(self.rows.classes, self.rows.task))
        kind: Kind = "moments" if self.settings.per_class else "shared"

        def measure(state: State, indices: np.ndarray | None) -> BoundedSum:
            return quadratic(self.rows, self.centered(state), state["weight"], balance, kind)

        def absorb(state: State, released: PyTree) -> State:
            inverses, slope = self._solved(released, balance, release.noise_multiplier)
            return {
                **state,
                "inverse": inverses[0],
                "weight": -self.settings.learning_rate * steps_of(inverses, slope),
            }

        return Stage(release, measure, absorb)

    def descent(self, release: Release) -> Stage:
        def absorb(state: State, released: PyTree) -> State:
            step = state["inverse"] @ self.rows.task.centered(released) / self.settings.sampling
            return {**state, "weight": state["weight"] - self.settings.learning_rate * step}

        return Stage(release, self._gradient, absorb)

    def newton(self, release: Release) -> Stage:
        balance = Balance(self.settings.curvature_share, self.settings.clip_norm)
        kind: Kind = "hessians" if self.settings.per_class else "shared"

        def measure(state: State, indices: np.ndarray | None) -> BoundedSum:
            return quadratic(self.rows, self.centered(state), state["weight"], balance, kind)

        def absorb(state: State, released: PyTree) -> State:
            step = steps_of(*self._solved(released, balance, release.noise_multiplier))
            return {**state, "weight": state["weight"] - self.settings.learning_rate * step}

        return Stage(release, measure, absorb)

    def class_means(self, release: Release) -> Stage:
        """The label sums are minus the gradient at W = 0. W points from the mean of all to the mean
        of each class."""
        task, classes = self.rows.task, self.rows.classes
        bound, share = least_clip(classes, task), len(self.rows) / task.newton_rate(classes)
        return Stage(
            release,
            lambda state, indices: gradient(
                self.rows, self.centered(state), state["weight"], bound
            ),
            lambda state, released: {**state, "weight": -task.centered(released) / share},
        )

    def first_order(self, release: Release) -> Stage:
        optimizer, expected = self.optimizer(), len(self.rows) * self.settings.sampling

        def absorb(state: State, released: PyTree) -> State:
            updates, inner = optimizer.update(
                self.rows.task.centered(released) / expected, state["optimizer"], state["weight"]
            )
            return {
                **state,
                "weight": optax.apply_updates(state["weight"], updates),
                "optimizer": inner,
            }

        return Stage(release, self._gradient, absorb)

    def _gradient(self, state: State, indices: np.ndarray | None) -> BoundedSum:
        return gradient(
            self.rows, self.centered(state), state["weight"], self.settings.clip_norm, indices
        )

    def _solved(
        self, released: PyTree, balance: Balance, noise: float
    ) -> tuple[list[Float[Array, "d d"]], Float[Array, "d c"]]:
        """Inverses of the released curvature matrices (one, or one per class), ridge included, and
        the released gradient."""
        matrices = unpack_host(
            np.asarray(released["curvature"]) / np.float32(balance.alpha), self.sphere.size
        )
        deviation = noise / balance.alpha
        if len(matrices) > self.rows.classes:
            matrices, deviation = mixed_moments(matrices, deviation)
        spectra = [Spectrum.of(each, deviation) for each in matrices]
        factor = self.settings.ridge * (flatness(spectra[0]) if self.settings.flattened else 1)
        ridge = noise_ridge(noise / balance.beta, self.sphere.size, self.rows.classes, factor)
        slope = self.rows.task.centered(released["gradient"] / balance.beta)
        return [each.inverse(ridge) for each in spectra], slope


STAGES: dict[str, Callable[[_Problem, Release], Stage]] = {
    "moments": _Problem.first,
    "descent": _Problem.descent,
    "newton": _Problem.newton,
    "class means": _Problem.class_means,
    "first order": _Problem.first_order,
}
"""What may follow the mean; which of them do is up to the settings."""


def steps_of(
    inverses: Sequence[Float[Array, "d d"]], slope: Float[Array, "d c"]
) -> Float[Array, "d c"]:
    """Every class's slope by its own inverse, or all by the same."""
    columns = [slope] if len(inverses) == 1 else slope.T
    return jnp.column_stack(
        [inverse @ column for inverse, column in zip(inverses, columns, strict=True)]
    )


def mixed_moments(
    matrices: Float[np.ndarray, "m d d"], noise: float
) -> tuple[Float[np.ndarray, "c d d"], float]:
    """Released moments of all rows and of each class (see `quadratic.py`) -> for every class A_c +
    alpha G, scaled so that it is G where the classes are alike; and the deviation of its noise.
    Mehta et al. 2022, Alg. 1, with alpha = (1 - MIX) / L MIX.
    """
    classes = len(matrices) - 1
    common, own = (
        np.array([1 - CLASS_MIX, CLASS_MIX * classes], np.float32) / moment_scales(classes)[:2]
    )
    return common * matrices[:1] + own * matrices[1:], noise * math.hypot(common, own)


def noise_ridge(noise: float, d: int, classes: int, factor: float) -> float:
    """`factor` times the largest singular value of the gradient's noise, a d x L matrix of
    deviation `noise`; at least 1, the weight of one example. Where the data say less than that, the
    ridge keeps the weights small.
    """
    return factor * noise * (math.sqrt(d) + math.sqrt(classes)) + 1


def flatness(spectrum: Spectrum) -> float:
    """The root of effective rank / FLAT, between 1/4 and 1: a few strong directions, as in
    scattering features, hide classes in the weak ones, which a large ridge would leave unlearned;
    where all are alike, those of noise would be learned instead.

    It comes from what was released, so it costs nothing.
    """
    return min(max(math.sqrt(spectrum.effective_rank / FLAT), 0.25), 1.0)


def class_counts(rows: Rows, release: Release) -> Stages:
    """A procedure of one release: how many examples (weights added up) each class has. Its state:
    counts.

    An example adds its weight to one count, and nothing where its row is not finite: sensitivity 1.
    """

    def measure(state: State, indices: np.ndarray | None) -> BoundedSum:
        counts = np.zeros(rows.classes)
        for part, labels, weights in rows.chunks():
            counts += np.bincount(labels, weights * np.isfinite(part).all(1), rows.classes)
        return BoundedSum(counts, Sensitivity.of_contribution(1.0))

    stage = Stage(release, measure, lambda state, released: {"counts": released})
    plain = Sphere.plain(rows.features)
    nothing = SphereLinear(plain, Linear.zeros(plain.size, rows.classes))
    return Stages(
        "class-counts",
        rows,
        {"counts": jnp.zeros(rows.classes)},
        (stage,),
        lambda state: nothing,
        lambda noise: class_counts(rows, release.with_noise(noise)),
        lambda: class_counts(rows, release.unprotected()),
        published=("counts",),
    )
