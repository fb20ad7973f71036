"""`BoundedSum` -> a value that may be released."""

from collections.abc import Callable
from typing import Protocol

from jaxtyping import PyTree

from sfumato.clip import BoundedSum
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise.banded import BandedGaussian, BandedStep
from sfumato.noise.binding import Bound
from sfumato.noise.gaussian import Gaussian
from sfumato.noise.lattice import LatticeGaussian
from sfumato.privacy.events import Inner

__all__ = [
    "NOISES",
    "BandedGaussian",
    "BandedStep",
    "Bound",
    "Gaussian",
    "LatticeGaussian",
    "Mechanism",
    "Promised",
]


class Mechanism(Protocol):
    """What adds noise, and the event that may be claimed for it. Noise is for a sum that it was
    bound to (`binding.py`), so no two sums can be given the same; called, it does both:
    `release(bind(total, key))`.
    """

    @property
    def event(self) -> Inner: ...
    def bind(self, total: BoundedSum, key: SecretKey) -> Bound: ...
    def release(self, bound: Bound) -> PyTree: ...
    def __call__(self, total: BoundedSum, key: SecretKey) -> PyTree: ...


Promised = Gaussian | BandedStep
"""What a procedure may promise for a step."""


def _on_lattice(promised: Promised) -> LatticeGaussian:
    if not isinstance(promised, Gaussian):
        raise ArgumentError(
            "noise",
            "lattice",
            "correlated noise is not drawn on a lattice; take --noise gaussian or no bands",
        )
    return LatticeGaussian(promised.multiplier)


NOISES: dict[str, Callable[[Promised], Mechanism]] = {
    "gaussian": lambda promised: promised,
    "lattice": _on_lattice,
}
"""By the names of `--noise`: the mechanism that keeps what a procedure promises."""
