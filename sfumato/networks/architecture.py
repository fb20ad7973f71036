"""One row of the catalog of networks."""

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import PRNGKeyArray, PyTree

from sfumato.networks.input import Input

Shape = tuple[int, int, int]
Make = Callable[[Shape, int, PRNGKeyArray], PyTree]
"""(shape of the prepared image, classes, key) -> the network with random weights: a `Backbone`, or
somebody's own, which may do less (no features for a head, no last blocks to train)."""


@dataclass(frozen=True)
class Architecture:
    """name: as timm has it, where it does. family: the file it is in, and the layout of its
    weights. input: what it is given unless weights say otherwise. weights: public ones known to
    fit, as `sfumato.weights.load` takes them. rectified: its features are never negative.
    """

    name: str
    family: str
    make: Make
    input: Input = field(default_factory=Input)
    weights: tuple[str, ...] = ()
    rectified: bool = False
