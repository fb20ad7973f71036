"""The Gaussian mechanism.

Noise is drawn on the host from the secret key's streams, in float64, one stream per leaf: the same noise on every device
and for any number of devices, and never a 32- or 64-bit seed. It is drawn before the sum is asked for, so it overlaps
with the device's work.
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
from sfumato.privacy.events import GaussianEvent


@dataclass(frozen=True)
class Gaussian:
    """Adds N(0, (multiplier * sensitivity)^2) to every number of a BoundedSum (add-or-remove-one sensitivity)."""

    multiplier: float

    def __post_init__(self) -> None:
        positive("multiplier", self.multiplier)

    @property
    def event(self) -> GaussianEvent:
        return GaussianEvent(self.multiplier)

    def __call__(self, total: BoundedSum, key: SecretKey) -> PyTree:
        """The released value, float32. `key` must be this release's own, as `key.at("dp-sgd/17")`: noise used twice cancels."""
        leaves, structure = jax.tree.flatten(total.value)
        scale = self.multiplier * total.sensitivity.add_or_remove
        noise = [
            scale * key.stream("noise", name).standard_normal(leaf.shape)
            for name, leaf in zip(leaf_names(total.value), leaves, strict=True)
        ]
        released = [
            jnp.asarray((np.asarray(leaf, np.float64) + draw).astype(np.float32))
            for leaf, draw in zip(leaves, noise, strict=True)
        ]
        return jax.tree.unflatten(structure, released)
