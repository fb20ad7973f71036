"""A mechanism from outside: half of the variance from each of two streams."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import PyTree

from sfumato.noise import Bound, Mechanism
from sfumato.noise.gaussian import add, unit_noise


@dataclass(frozen=True)
class Halves(Mechanism):
    """N(0, (multiplier * sensitivity)^2) as the sum of two independent parts of half the variance."""

    where: ClassVar[str] = ", in two halves"
    limits: ClassVar[tuple[str, ...]] = ("Both halves at once, where one {unit} is concerned.",)

    multiplier: float

    def release(self, bound: Bound) -> PyTree:
        total = bound.total
        scale = self.multiplier * total.sensitivity.add_or_remove / math.sqrt(2)
        half, other = (unit_noise(total.value, bound.key.at(name)) for name in ("one", "two"))
        return add(total.value, [a + b for a, b in zip(half, other, strict=True)], scale)


def nothing() -> None:
    """No mechanism."""
