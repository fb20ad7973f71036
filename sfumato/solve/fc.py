"""DP-FC in blocks: release the features' second moments once, whiten by them, then noisy full-batch gradient descent.

After Mehta et al. 2022 (arXiv 2211.13403), Alg. 3, with these differences: the d x d covariance is released as its
diagonal blocks, one K x K matrix per group and spatial frequency (noise energy K^2 per block instead of d^2), its
inverse power acts on the *features* before the softmax instead of on the gradient, and everything is accounted exactly
as one Gaussian: with mu the total budget, the moments take the share a of mu^2 and the T gradient steps the rest,

    1 / s_0^2 = a mu^2,    T / s^2 = (1 - a) mu^2.

Step 0 releases M = sum_i blocks(x_i x_i^T) + noise (sensitivity 1). With eigenvalues l and eigenvectors V of a noisy
block, noise alone would have eigenvalues up to about s_0 sqrt(2 K) (semicircle law, off-diagonal variance s_0^2 / 2), so
l is floored at a fraction of that, and the features are multiplied by V l^(-p) V^T and brought back to norm <= 1.
Steps 1 .. T release the clipped softmax gradient on those features (sensitivity C); each is averaged over n, which is
public, its mean over classes removed (it is zero without noise), and applied with heavy-ball momentum from W = 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.keys import SecretKey
from sfumato.models.feature_map import Group
from sfumato.models.heads import WhitenedLinear, Whitening
from sfumato.models.layers import Linear
from sfumato.noise import Gaussian
from sfumato.privacy.events import Event
from sfumato.solve.recipe import Recipe
from sfumato.solve.statistics import chunks, second_moments, softmax_gradient
from sfumato.solve.symmetric import unpack


@dataclass
class FeatureCovariance:
    """The procedure. rows: norm <= 1, float32. mu: total budget. See the module's text.

    overwrite: whiten `rows` in place, which halves the memory; they are then of no other use.

    State: dict of `matrices` (one f x k x k array per group; identities before step 1), `weight`, `velocity`, `average`.
    """

    rows: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, "n"]
    classes: int
    groups: Sequence[Group]
    mu: float
    recipe: Recipe
    overwrite: bool = False
    name: str = "dp-fc"

    def __post_init__(self) -> None:
        self._white: Float[np.ndarray, "n d"] | None = None
        self._gradient = jax.jit(_add_gradient, static_argnums=0, donate_argnums=1)
        self._descend = jax.jit(self._descent)

    @property
    def steps(self) -> int:
        return 1 + self.recipe.steps

    def mechanism(self, step: int) -> Gaussian:
        """s_0 for the moments, s for the gradients."""
        recipe = self.recipe
        return Gaussian(recipe.moments_noise(self.mu) if step == 0 else recipe.gradient_noise(self.mu))

    def event(self, step: int) -> Event:
        return self.mechanism(step).event

    def start(self) -> dict[str, Any]:
        zeros = jnp.zeros((sum(group.size for group in self.groups), self.classes), jnp.float32)
        matrices = Whitening.identity(self.groups).matrices
        return {"matrices": matrices, "weight": zeros, "velocity": zeros, "average": zeros}

    def measure(self, state: dict[str, Any], step: int, key: SecretKey) -> BoundedSum:
        if step == 0:
            return second_moments(self.rows, self.groups)
        if self._white is None:
            target = self.rows if self.overwrite else np.empty_like(self.rows)
            self._white = whiten(self.rows, self._whitening(state), target)
        total = jnp.zeros_like(state["weight"])
        clip_norm = self.recipe.clip_norm
        for where, rows, mask in chunks(self._white):
            labels = np.zeros(len(mask), np.int32)
            labels[mask] = self.labels[where]
            total = self._gradient(clip_norm, total, state["weight"], rows, labels, mask)
        return BoundedSum(total, Sensitivity.of_contribution(clip_norm))

    def absorb(self, state: dict[str, Any], step: int, released: PyTree) -> dict[str, Any]:
        if step == 0:
            noise = self.mechanism(0).multiplier
            matrices = [
                whitening_matrices(unpack(packed, group.channels), noise, self.recipe)
                for packed, group in zip(released, self.groups, strict=True)
            ]
            return {**state, "matrices": matrices}
        return {**state, **self._descend(state, np.float32(step), released)}

    def head(self, state: dict[str, Any]) -> WhitenedLinear:
        """The classifier of features that this state has reached."""
        linear = Linear(state["average"], jnp.zeros(self.classes))
        return WhitenedLinear(self._whitening(state), linear)

    def _whitening(self, state: dict[str, Any]) -> Whitening:
        return Whitening(state["matrices"], tuple(self.groups))

    def _descent(self, state: dict[str, Any], step: Array, released: Float[Array, "d c"]) -> dict[str, Array]:
        """One heavy-ball step, and the running mean over the last iterates (which one release after another improves)."""
        recipe = self.recipe
        gradient = (released - released.mean(1, keepdims=True)) / len(self.rows)
        velocity = recipe.momentum * state["velocity"] + gradient
        weight = state["weight"] - recipe.learning_rate * velocity
        averaged = jnp.maximum(step - recipe.first_averaged + 1, 1.0)
        return {"weight": weight, "velocity": velocity,
                "average": state["average"] + (weight - state["average"]) / averaged}


def _add_gradient(
    clip_norm: float, total: Array, weight: Array, rows: Array, labels: Array, mask: Array
) -> Float[Array, "d c"]:
    part = softmax_gradient(clip_norm)({"weight": weight}, (rows, labels), mask)
    return total + part.value["weight"]


def whitening_matrices(noisy: Float[Array, "f k k"], noise: float, recipe: Recipe) -> Float[Array, "f k k"]:
    """V max(l, floor)^(-p) V^T for every frequency; the scale does not matter, rows are normalised afterwards."""
    floor = recipe.floor * noise * math.sqrt(2 * noisy.shape[-1])

    def one(matrix: Float[Array, "k k"]) -> Float[Array, "k k"]:
        values, vectors = jnp.linalg.eigh(matrix)
        return (vectors * jnp.maximum(values, floor) ** -recipe.power) @ vectors.T

    return jax.jit(jax.vmap(one))(noisy)


def whiten(
    rows: Float[np.ndarray, "n d"], whitening: Whitening, target: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "n d"]:
    """Fill `target` (which may be `rows`) with the whitened rows and return it."""
    for where, part, mask in chunks(rows):
        target[where] = np.asarray(_apply_whitening(whitening, part))[mask]
    return target


@jax.jit
def _apply_whitening(whitening: Whitening, rows: Float[Array, "b d"]) -> Float[Array, "b d"]:
    return jax.vmap(whitening)(rows)
