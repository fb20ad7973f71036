"""The Gaussian mechanism.

Noise is drawn on the host from the secret key's streams, in float64, one stream per leaf: the same
noise on every device and for any number of devices, and never a 32- or 64-bit seed. It waits for
the sum, to which it is bound (`binding.py`).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sfumato.clip import BoundedSum
from sfumato.core.checks import positive
from sfumato.core.keys import SecretKey
from sfumato.core.trees import leaf_names
from sfumato.noise.binding import Bound, bind
from sfumato.privacy.events import GaussianEvent


@dataclass(frozen=True)
class Gaussian:
    """Adds N(0, (multiplier * sensitivity)^2) to every number of a BoundedSum (add-or-remove-one
    sensitivity)."""

    multiplier: float

    def __post_init__(self) -> None:
        positive("multiplier", self.multiplier)

    @property
    def event(self) -> GaussianEvent:
        return GaussianEvent(self.multiplier)

    def bind(self, total: BoundedSum, key: SecretKey) -> Bound:
        """key: this release's own, as `key.at("dp-sgd/17")`."""
        return bind(total, key, "gaussian", self.multiplier)

    def release(self, bound: Bound) -> PyTree:
        """The released value, float32."""
        total = bound.total
        scale = self.multiplier * total.sensitivity.add_or_remove
        return add(total.value, unit_noise(total.value, bound.key), scale)

    def __call__(self, total: BoundedSum, key: SecretKey) -> PyTree:
        return self.release(self.bind(total, key))


def unit_noise(value: PyTree, key: SecretKey) -> list[np.ndarray]:
    """Independent N(0, 1) numbers, float64, one array per leaf of `value`."""
    return [
        key.stream("noise", name).standard_normal(leaf.shape)
        for name, leaf in zip(leaf_names(value), jax.tree.leaves(value), strict=True)
    ]


def add(value: PyTree, noise: list[np.ndarray], scale: float) -> PyTree:
    """value + scale * noise, summed in float64 and released in float32. noise: one array per leaf."""
    leaves, structure = jax.tree.flatten(value)
    return jax.tree.unflatten(
        structure,
        [
            jnp.asarray((np.asarray(leaf, np.float64) + scale * draw).astype(np.float32))
            for leaf, draw in zip(leaves, noise, strict=True)
        ],
    )
