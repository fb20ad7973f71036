"""A sum over examples together with a proof-carrying number: how far one example can move it."""

from dataclasses import astuple, dataclass

import equinox as eqx
import jax
from jaxtyping import PyTree

from sfumato.core.checks import positive_or_infinite
from sfumato.core.errors import ArgumentError


@dataclass(frozen=True)
class Sensitivity:
    """The largest L2 distance between the sums of two neighboring data sets, by relation of
    neighborhood.

    add_or_remove: one has an example that the other lacks. zero_out: one example's contribution is
    replaced by nothing. replace_one: one example is replaced by another.
    """

    add_or_remove: float
    zero_out: float
    replace_one: float

    @classmethod
    def of_contribution(cls, bound: float) -> "Sensitivity":
        """Of a sum in which every example contributes a vector of norm at most `bound`; infinite where
        nothing bounds it, and then no noise hides it (`noise/binding.py`)."""
        positive_or_infinite("bound", bound)
        return cls(add_or_remove=bound, zero_out=bound, replace_one=2 * bound)

    def wider(self, share: float) -> "Sensitivity":
        """By this share of itself."""
        return Sensitivity(*(each * (1 + share) for each in astuple(self)))


class BoundedSum(eqx.Module):
    """`value`: a tree of arrays, the sum of one bounded contribution per example. It is private
    until noise is added.

    `a + b` joins the sums of two *disjoint* sets of examples (microbatches of one batch). An
    example is in one of them only, so the sensitivity of the joined sum is that of each, not their
    total.
    """

    value: PyTree
    sensitivity: Sensitivity = eqx.field(static=True)

    def __add__(self, other: "BoundedSum") -> "BoundedSum":
        if self.sensitivity != other.sensitivity:
            raise ArgumentError(
                "sensitivity",
                other.sensitivity,
                f"join sums of equal sensitivity, here {self.sensitivity}",
            )
        return BoundedSum(
            jax.tree.map(lambda a, b: a + b, self.value, other.value), self.sensitivity
        )
