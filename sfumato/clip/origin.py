"""Where a parameter-only value comes from, and whether its gradient has the norm of the leaf's
gradient.

A value computed from parameters alone is a function J of some leaves. When J merely moves numbers
about (reshape, transpose, slice, cast) and uses none twice, the gradient with respect to the leaf
is that with respect to the value, moved back: the norms are equal, `isometric`. `region` is the
part of the leaf that the value may hold; two isometric values of disjoint regions have orthogonal
gradients.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax.numpy as jnp

from sfumato.clip import _jax as J
from sfumato.clip._jax import JaxprEqn

Region = tuple[tuple[int, int], ...]
STRUCTURAL = (J.CONVERT, J.RESHAPE, J.TRANSPOSE, J.SQUEEZE, J.SLICE, J.BROADCAST, J.COPY, J.REV)


class Standardization(NamedTuple):
    """kernel, gain: leaves; gain None where there is none. epsilon: of `unit_kernel`, else 0."""

    kernel: int
    gain: int | None
    epsilon: float


@dataclass(frozen=True)
class Origin:
    """sources: indices of leaves. region: start and stop per axis of the one source. aligned: axes
    are still the leaf's own. untouched: the leaf itself, perhaps cast, or slice by slice as a scan
    goes over it. standardized: what weight standardization (`standardized.py`) made of one or two
    leaves, perhaps cast. loops: depths of the scans whose iterations see different values.
    """

    sources: frozenset[int] = frozenset()
    region: Region = ()
    isometric: bool = False
    aligned: bool = False
    untouched: bool = False
    standardized: Standardization | None = None
    loops: frozenset[int] = frozenset()

    @classmethod
    def of_leaf(cls, index: int, shape: tuple[int, ...]) -> "Origin":
        return cls(
            frozenset({index}),
            tuple((0, size) for size in shape),
            isometric=True,
            aligned=True,
            untouched=True,
        )

    def scanned(self, depth: int) -> "Origin":
        """As seen by one iteration of a scan over the first axis."""
        return replace(self, aligned=False, loops=self.loops | {depth}) if self.sources else self

    def disjoint(self, other: "Origin") -> bool:
        apart = any(
            a[1] <= b[0] or b[1] <= a[0] for a, b in zip(self.region, other.region, strict=True)
        )
        return self.sources.isdisjoint(other.sources) or apart


def is_structural(eqn: JaxprEqn) -> bool:
    """Does the equation move numbers about, without arithmetic and without repeating any?"""
    if eqn.primitive not in STRUCTURAL:
        return False
    before, after = J.aval(eqn.invars[0]), J.aval(eqn.outvars[0])
    if eqn.primitive is J.CONVERT:
        return jnp.issubdtype(before.dtype, jnp.floating) and jnp.issubdtype(
            after.dtype, jnp.floating
        )
    return eqn.primitive is not J.BROADCAST or math.prod(before.shape) == math.prod(after.shape)


def after(eqn: JaxprEqn, inputs: list[Origin]) -> Origin:
    """The origin of the outputs of an equation."""
    if is_structural(eqn):
        return _moved(eqn, inputs[0])
    sources = frozenset[int]().union(*(each.sources for each in inputs))
    loops = frozenset[int]().union(*(each.loops for each in inputs))
    return Origin(sources, loops=loops)


def _moved(eqn: JaxprEqn, origin: Origin) -> Origin:
    if eqn.primitive in (J.CONVERT, J.COPY):
        return origin
    origin = replace(origin, untouched=False, standardized=None)
    if eqn.primitive is J.SLICE and origin.aligned and eqn.params["strides"] is None:
        limits = zip(
            eqn.params["start_indices"], eqn.params["limit_indices"], origin.region, strict=True
        )
        return replace(
            origin, region=tuple((low + start, low + stop) for start, stop, (low, _) in limits)
        )
    return replace(origin, aligned=False)
