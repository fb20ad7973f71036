"""The Gaussian mechanism.

Noise is drawn from secret keys of 128 bits or more, never from a 32- or 64-bit seed, as the key's
generator says (`--noise-rng`): on the host in float64 (`on_host.py`), or where the sum lies
(`on_device.py`). It waits for the sum, to which it is bound (`binding.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sfumato.core.checks import noisy
from sfumato.core.keys import SecretKey
from sfumato.noise.base import ROUNDING, Mechanism
from sfumato.noise.binding import Bound, bind
from sfumato.noise.drawing import drawing_of
from sfumato.privacy.events import Event

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from sfumato.clip import BoundedSum
else:  # JAX is imported where noise is drawn, so that words can be had without it
    BoundedSum = PyTree = Any


@dataclass(frozen=True)
class Gaussian(Mechanism):
    """Adds N(0, (multiplier * sensitivity)^2) to every number of a BoundedSum (add-or-remove-one
    sensitivity).

    On the lowest bits of such noise: Mironov 2012; Jin, McMurtry, Rubinstein & Ohrimenko 2022 (arXiv
    2112.05307), who also read discrete noise from the time that it took.
    """

    limits: ClassVar[tuple[str, ...]] = (
        "Floating point. The noise approximates a Gaussian law with machine numbers; attacks on their lowest bits are known "
        "and were not defended against in this run (--noise lattice does).",
        ROUNDING,
    )
    keeps_bands: ClassVar[bool] = True

    multiplier: float

    def __post_init__(self) -> None:
        noisy("multiplier", self.multiplier)

    @classmethod
    def words(cls, events: Iterable[Event]) -> str:
        return "correlated Gaussian" if any(each.bands > 1 for each in events) else cls.name

    def bind(self, total: BoundedSum, key: SecretKey) -> Bound:
        """key: this release's own, as `key.at("dp-sgd/17")`."""
        return bind(total, key, "gaussian", self.multiplier)

    def release(self, bound: Bound) -> PyTree:
        """The released value, float32."""
        import jax

        from sfumato.core.trees import leaf_names

        total = bound.total
        leaves, structure = jax.tree.flatten(total.value)
        names, scale = leaf_names(total.value), (self.multiplier, total.sensitivity.add_or_remove)
        drawn = drawing_of(bound.key).gaussian(leaves, names, bound.key, *scale)
        return jax.tree.unflatten(structure, drawn)


def unit_noise(value: PyTree, key: SecretKey) -> list[np.ndarray]:
    """Independent N(0, 1) numbers, float64, one array per leaf of `value`."""
    import jax

    from sfumato.core.trees import leaf_names

    shapes = [leaf.shape for leaf in jax.tree.leaves(value)]
    return drawing_of(key).normals(shapes, leaf_names(value), key)


def add(value: PyTree, noise: list[np.ndarray], scale: float) -> PyTree:
    """value + scale * noise, summed in float64 and released in float32. noise: one array per leaf."""
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree.flatten(value)
    return jax.tree.unflatten(
        structure,
        [
            jnp.asarray((np.asarray(leaf, np.float64) + scale * draw).astype(np.float32))
            for leaf, draw in zip(leaves, noise, strict=True)
        ],
    )
