"""`BoundedSum` -> a value that may be released: one file a mechanism, and this list of them.

A new one is a file with a subclass of `Mechanism` and a line in `NOISES`. From outside of the
package it is a class alone, named `package.module:Class` wherever a flag takes a name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sfumato.core.named_classes import Named, Registry

if TYPE_CHECKING:
    from sfumato.noise.banded import BandedGaussian, BandedStep
    from sfumato.noise.base import Mechanism
    from sfumato.noise.binding import Bound
    from sfumato.noise.gaussian import Gaussian
    from sfumato.noise.lattice import LatticeGaussian

__all__ = [
    "NOISES",
    "BandedGaussian",
    "BandedStep",
    "Bound",
    "Gaussian",
    "LatticeGaussian",
    "Mechanism",
]

NOISES = Registry(
    "noise",
    "sfumato.noise.base:Mechanism",
    {
        "gaussian": Named("sfumato.noise.gaussian:Gaussian", "machine numbers"),
        "lattice": Named(
            "sfumato.noise.lattice:LatticeGaussian",
            "whole multiples of a public step, so that the last bits of a release tell nothing; slower",
        ),
    },
)
"""By the names of `--noise`: what keeps the promise of a procedure (`Mechanism.keeping`)."""

DEFAULT = "gaussian"

STREAMS = "by pieces"
"""How noise is drawn and sums are sealed on the host (`on_host.py`). A run that began in another way is not
resumed: its earlier noise could not be drawn again."""

_HOMES = {
    "Mechanism": "base",
    "Bound": "binding",
    "Gaussian": "gaussian",
    "LatticeGaussian": "lattice",
    "BandedGaussian": "banded",
    "BandedStep": "banded",
}


def __getattr__(name: str) -> Any:
    """The classes are imported when they are asked for, as `--help` needs the names of flags alone,
    without JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
