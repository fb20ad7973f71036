"""DP-FC in blocks: center by a private mean, whiten by private second moments, then noisy
full-batch gradient descent.

After Mehta et al. 2022 (arXiv 2211.13403), Alg. 3, with these differences: the d x d covariance is
released as its diagonal blocks, one K x K matrix per group and spatial frequency (noise energy K^2
per block instead of d^2), its inverse power acts on the *features* before the softmax instead of on
the gradient, and all is accounted exactly as one Gaussian: of mu^2, the total budget, the mean
takes the share a_m, the moments a_0 and the T gradient steps the rest,

    1 / s_m^2 = a_m mu^2,    1 / s_0^2 = a_0 mu^2,    T / s^2 = (1 - a_m - a_0) mu^2.

Step 0 releases the sum of the rows (sensitivity 1). Its n-th part m is shrunk in each block of K
numbers to max(1 - (K - 2) (s_m / n)^2 / |m_b|^2, 0) m_b, the positive part of James & Stein 1961: noise
of deviation s_m / n has energy K (s_m / n)^2 there, and most blocks' means are small, as what images
share lies in the lowest frequencies. It is subtracted and each group brought back to norm
sqrt(weight): what all images share would otherwise fill most of the norm that clipping grants to an
example, and so would noise that is subtracted from all of them.

Step 1 releases M = sum_i blocks(x_i x_i^T) + noise. With eigenvalues l and eigenvectors V of a
noisy block, noise of deviation s alone would have eigenvalues up to about s sqrt(2 K) (semicircle
law, off-diagonal variance s^2 / 2), so l is floored at a fraction of that, the features are
multiplied by V l^(-p) V^T and the whole row is brought back to norm 1.

Steps 2 .. T + 1 release the clipped softmax gradient on those features (sensitivity C); each is
divided by n, which is public, its mean over classes removed (it is zero without noise), and applied
with heavy-ball momentum from W = 0. Where labels are findings (n x L, -1 for unknown) the loss is their
sigmoids' (`core/tasks.py`), and nothing is removed. Columns that are doubted are zeros from the second
gradient on, unless the first showed that they tell classes apart (`solve/doubted.py`).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import Task, task_of
from sfumato.data.finite import Spoiled, of_rows
from sfumato.features.feature_map import Group
from sfumato.features.heads import Centering, Kept, WhitenedLinear, Whitening, blocks
from sfumato.noise import Mechanism
from sfumato.noise.banded import noise_of_run
from sfumato.privacy.events import Event
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.releases import Release
from sfumato.solve import doubted
from sfumato.solve.covariance_settings import CovarianceSettings, rule
from sfumato.solve.labeled_rows import Rows
from sfumato.solve.statistics import (
    chunks,
    linear_of,
    row_sum,
    second_moments,
    softmax_gradient,
    start_of,
)
from sfumato.solve.symmetric import unpack

MEAN, MOMENTS, FIRST_GRADIENT, LATER = 0, 1, 2, 3


@dataclass
class FeatureCovariance:
    """The procedure. rows: norm <= 1, float32. groups: of columns; None for one of all. mu: total
    budget, set by `sf.calibrate`. settings: None for those of the rule. See the module's text.

    bare: add no noise, which promises nothing; settings are those for `mu`, without a clip.
    overwrite: transform `rows` in place, which halves the memory; they are then of no other use.
    State: dict of `mean`, `matrices` (one f x k x k array per group), `weight`, `velocity`, and `kept`
    (1 or 0 for each column) where columns are doubted.
    """

    rows: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, "n ..."]
    classes: int
    groups: Sequence[Group] | None = None
    mu: float | None = None
    settings: CovarianceSettings | None = None
    overwrite: bool = False
    name: str = "dp-fc"
    guarantee: Guarantee | None = None
    bare: bool = False

    def __post_init__(self) -> None:
        _ = Rows(self.rows, self.labels, self.classes)  # raises for what does not fit together
        self._transformed = self.rows
        self._stage = MEAN
        self._groups = tuple(self.groups or (Group(1, self.rows.shape[1], 1.0),))
        n, d = self.rows.shape
        self._settings = self.settings or rule(n, d, self.mu or 1.0)
        if self.bare:
            self._settings = self._settings.unclipped()
        doubts = any(group.doubted for group in self._groups) and self._settings.proof > 0
        self._last_stage = LATER if doubts and not self.bare else FIRST_GRADIENT
        self._task = task_of(self.labels)
        self._gradient = jax.jit(softmax_gradient(self._settings.clip_norm, task=self._task))
        descent = partial(_descent, self._settings, self._task, len(self.rows))
        self._descend = jax.jit(descent)  # does not hold the rows

    @property
    def n(self) -> int:
        return len(self.labels)

    def with_noise(
        self, noise_multiplier: float, guarantee: Guarantee | None = None
    ) -> "FeatureCovariance":
        """The same, all its releases together as private as one with this noise multiplier."""
        return replace(self, mu=1 / noise_multiplier, guarantee=guarantee)

    def unprotected(self, guarantee: Guarantee | None = None) -> "FeatureCovariance":
        """The same without noise and clip, for `sf.calibrate`."""
        return replace(self, bare=True, guarantee=guarantee)

    def describe(self) -> dict[str, Any]:
        """Public facts, for `sf.run(out=)`."""
        found = {"mu": self.mu, "settings": asdict(self._settings)}
        return found | ({"bare": True} if self.bare else {})

    def spoiled(self) -> Spoiled:
        return of_rows(self.rows)

    def fingerprint(self, mac: Callable[[bytes], str]) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.labels).tobytes())
        digest.update(np.ascontiguousarray(self.rows).data)
        return mac(digest.digest())

    @property
    def steps(self) -> int:
        return FIRST_GRADIENT + self._settings.steps

    @property
    def releases(self) -> tuple[Release, ...]:
        if self.mu is None:
            raise ArgumentError("mu", None, "calibrate the method (sf.calibrate), or give it")
        found = self._settings.releases(self.mu)
        return tuple(each.unprotected() for each in found) if self.bare else found

    def mechanism(self, step: int) -> Mechanism:
        return noise_of_run(self.event(step), 0.0)

    def event(self, step: int) -> Event:
        return self.releases[min(step, FIRST_GRADIENT)].event

    def start(self) -> dict[str, Any]:
        head = WhitenedLinear.zeros(self._groups, self.classes)
        zeros = start_of(self.rows.shape[1], self.classes, self._task)
        found = {
            "mean": head.centering.mean,
            "matrices": head.whitening.matrices,
            "weight": zeros,
            "velocity": zeros,
        }
        all_kept = jnp.ones(self.rows.shape[1], jnp.float32)
        return found | ({"kept": all_kept} if self._last_stage == LATER else {})

    def measure(self, state: dict[str, Any], step: int, key: SecretKey) -> BoundedSum:
        rows = self._rows_at(min(step, self._last_stage), state)
        if step == MEAN:
            return row_sum(rows)
        if step == MOMENTS:
            return second_moments(rows, self._groups)
        return self._gradient_sum(rows, state["weight"])

    def absorb(self, state: dict[str, Any], step: int, released: PyTree) -> dict[str, Any]:
        if step == MEAN:
            mean, noise = released / len(self.rows), self.mechanism(MEAN).multiplier
            if self._settings.shrunk:
                mean = shrunk_mean(mean, noise / len(self.rows), self._groups)
            return {**state, "mean": mean}
        if step == MOMENTS:
            noise = self.mechanism(MOMENTS).multiplier * math.sqrt(
                sum(group.weight**2 for group in self._groups)
            )
            unpacked = [
                unpack(packed, group.channels)
                for packed, group in zip(released, self._groups, strict=True)
            ]
            return {
                **state,
                "matrices": [
                    whitening_matrices(moments, noise, self._settings, self.n)
                    for moments in unpacked
                ],
            }
        new = {**state, **self._descend(state["weight"], state["velocity"], released)}
        if step == FIRST_GRADIENT and "kept" in state:
            # Weights of what is not kept are multiplied by zeros.
            new["kept"] = jnp.asarray(self._kept(released))
        return new

    def _kept(self, released: Float[Array, "p c"]) -> Float[np.ndarray, " d"]:
        """Of the first gradient: see `solve/doubted.py`."""
        clip_norm = self._settings.clip_norm
        noise, chance = self.mechanism(FIRST_GRADIENT).multiplier * clip_norm, self.n * clip_norm**2
        free = 1 - 1 / self.classes if self._task.exclusive else 1.0
        gradient = self._task.centered(released)
        return doubted.kept(gradient, noise, chance, self._groups, self._settings.proof, free)

    def head(self, state: dict[str, Any]) -> WhitenedLinear:
        """The classifier of features that this state has reached."""
        linear = linear_of(state["weight"], self._task)
        whitening = self._whitening(state)
        if "kept" in state:
            matrices = doubted.without(whitening.matrices, state["kept"], self._groups)
            whitening = Whitening(matrices, tuple(self._groups))
        return WhitenedLinear(self._centering(state), whitening, linear)

    def transform(
        self, rows: Float[np.ndarray, "n d"], state: dict[str, Any]
    ) -> Float[np.ndarray, "n d"]:
        """Other rows as the gradient steps see theirs; in place."""
        for stage in range(self._last_stage):
            apply(self._module(stage, state), rows, rows)
        return rows

    def _module(self, stage: int, state: dict[str, Any]) -> Centering | Whitening | Kept:
        """What takes rows from a stage to the next."""
        if stage == MEAN:
            return self._centering(state)
        return self._whitening(state) if stage == MOMENTS else Kept(state["kept"])

    def _centering(self, state: dict[str, Any]) -> Centering:
        return Centering(state["mean"], tuple(self._groups))

    def _whitening(self, state: dict[str, Any]) -> Whitening:
        return Whitening(state["matrices"], tuple(self._groups))

    def _rows_at(self, stage: int, state: dict[str, Any]) -> Float[np.ndarray, "n d"]:
        """The rows as given (MEAN), centered (MOMENTS), whitened, or without what was doubted (LATER); a
        resumed run goes through several stages at once."""
        if stage < self._stage:  # run a second time
            if self.overwrite:
                raise ArgumentError(
                    "overwrite",
                    True,
                    "the rows were transformed in place; make a new procedure from fresh rows",
                )
            self._transformed, self._stage = self.rows, MEAN
        while self._stage < stage:
            if self._transformed is self.rows and not self.overwrite:
                self._transformed = np.empty_like(self.rows)
            source = self.rows if self._stage == MEAN else self._transformed
            apply(self._module(self._stage, state), source, self._transformed)
            self._stage += 1
        return self._transformed

    def _gradient_sum(
        self, rows: Float[np.ndarray, "n d"], weight: Float[Array, "p c"]
    ) -> BoundedSum:
        total = np.zeros(weight.shape)
        for where, part, mask in chunks(rows):
            labels = np.zeros((len(mask), *self.labels.shape[1:]), np.int32)
            labels[mask] = self.labels[where]
            total += np.asarray(
                self._gradient({"weight": weight}, (part, labels), mask).value["weight"]
            )
        return BoundedSum(total, Sensitivity.of_contribution(self._settings.clip_norm))


def _descent(
    settings: CovarianceSettings,
    task: Task,
    n: int,
    weight: Float[Array, "d c"],
    velocity: Float[Array, "d c"],
    released: Float[Array, "d c"],
) -> dict[str, Array]:
    """One heavy-ball step."""
    gradient = task.centered(released) / n
    velocity = settings.momentum * velocity + gradient
    return {"weight": weight - settings.learning_rate * velocity, "velocity": velocity}


def shrunk_mean(
    mean: Float[Array, " d"], noise: float, groups: Sequence[Group]
) -> Float[Array, " d"]:
    """Each block scaled to what stands out of noise of that deviation; see the module's text."""

    def shrunk(block: Float[Array, "f k"]) -> Float[Array, "f k"]:
        energy = jnp.sum(block * block, axis=1, keepdims=True)
        expected = max(block.shape[1] - 2, 0) * noise**2
        return block * jnp.maximum(1 - expected / jnp.maximum(energy, 1e-30), 0.0)

    return jnp.concatenate([shrunk(block).ravel() for block in blocks(mean, groups)])


def whitening_matrices(
    noisy: Float[Array, "f k k"], noise: float, settings: CovarianceSettings, n: int = 1
) -> Float[Array, "f k k"]:
    """V max(l, floor)^(-p) V^T for every frequency; the scale does not matter, rows are normalized
    afterwards. Where there is no noise, the floor is what one of n examples adds to an eigenvalue on
    average.

    By LAPACK on the host: it runs once, and is faster there than compiled.
    """
    values, vectors = np.linalg.eigh(np.asarray(noisy))
    floor: Any = settings.floor * noise * math.sqrt(2 * noisy.shape[-1])
    if noise == 0:
        floor = np.maximum(values.mean(-1, keepdims=True) / n, np.finfo(np.float32).tiny)
    powers = np.maximum(values, floor) ** -settings.power
    return jnp.asarray(
        np.einsum("fij,fj,fkj->fik", vectors, powers, vectors, optimize=True), jnp.float32
    )


def apply(
    module: Centering | Whitening | Kept,
    rows: Float[np.ndarray, "n d"],
    target: Float[np.ndarray, "n d"],
) -> Float[np.ndarray, "n d"]:
    """Fill `target` (which may be `rows`) with the module's value for every row and return it."""
    for where, part, mask in chunks(rows):
        target[where] = np.asarray(_apply(module, jnp.asarray(part)))[mask]
    return target


@jax.jit
def _apply(module: Centering | Whitening | Kept, rows: Float[Array, "b d"]) -> Float[Array, "b d"]:
    return jax.vmap(module)(rows)
