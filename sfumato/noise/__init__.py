"""`BoundedSum` -> a value that may be released."""

from collections.abc import Callable
from typing import Protocol

from jaxtyping import PyTree

from sfumato.clip import BoundedSum
from sfumato.core.keys import SecretKey
from sfumato.noise.gaussian import Gaussian
from sfumato.noise.lattice import LatticeGaussian
from sfumato.privacy.events import GaussianEvent

__all__ = ["NOISES", "Gaussian", "LatticeGaussian", "Mechanism"]

class Mechanism(Protocol):
    """What adds noise, and the event that may be claimed for it."""

    @property
    def event(self) -> GaussianEvent: ...
    def __call__(self, total: BoundedSum, key: SecretKey) -> PyTree: ...


NOISES: dict[str, Callable[[Gaussian], Mechanism]] = {
    "gaussian": lambda promised: promised,
    "lattice": lambda promised: LatticeGaussian(promised.multiplier),
}
"""By the names of `--noise`: the mechanism that keeps what a procedure's Gaussian promises."""
