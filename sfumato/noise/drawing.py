"""Where and how the numbers of a release are drawn, and its sum is sealed: one module each, named by the
generator of secret randomness (`core/generators.py`).
"""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from sfumato.core import generators
from sfumato.core.keys import SecretKey

if TYPE_CHECKING:
    import jax


@runtime_checkable
class Drawing(Protocol):
    """What such a module does, for the leaves of a sum with their names. key: of the noise of this release
    and sum; of `sealed`, of the release."""

    MARK: tuple[str, ...]
    """Tells its seals from those of others."""

    def sealed(
        self, leaves: Sequence[Any], names: Sequence[str], key: SecretKey
    ) -> Sequence[bytes | memoryview]:
        """For each leaf what its seal is a keyed hash of."""

    def normals(
        self, shapes: Sequence[tuple[int, ...]], names: Sequence[str], key: SecretKey
    ) -> list[np.ndarray]:
        """Independent N(0, 1) numbers, float64, on the host."""

    def gaussian(
        self,
        leaves: Sequence[Any],
        names: Sequence[str],
        key: SecretKey,
        multiplier: float,
        sensitivity: float,
    ) -> "list[jax.Array]":
        """The leaves with noise of a deviation of multiplier * sensitivity, float32. Where the sum is rounded
        first, the noise is as much wider as that may move neighbors apart."""

    def lattice(
        self,
        leaves: Sequence[Any],
        names: Sequence[str],
        key: SecretKey,
        g: float,
        deviation: float,
    ) -> "list[jax.Array]":
        """The leaves as multiples of g, with discrete Gaussian noise of at least so many, float32."""


def drawing_of(key: SecretKey) -> Drawing:
    return cast(Drawing, import_module(generators.find(key.rng).drawing))
