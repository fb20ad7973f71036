"""The sum of a step over the devices of a layout: the same to the last bit on any number of them.

    total  <- nothing                                     on each device
    total  <- total + clipped sum of a physical batch     each device its own, as often as there are any
    value  <- sum of all totals                           once a step

Totals are integers (`clip/fixed_point.py`), so no order changes them, and each device runs the program
that one device alone would run. Leaves that are cut over the devices of a process (`core/devices.py`)
are gathered before the gradient and their sums scattered after it, for every physical batch; all else
crosses devices once a step, eight bytes a parameter.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, PyTree

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.clip.fixed_point import SHARE, Lattice, Words, plus, zeros
from sfumato.core.devices import BATCH, DATA, EVERYWHERE, FSDP, Layout
from sfumato.core.errors import ArgumentError

Total = list[Words]
"""Of each leaf of the parameters, with an axis in front: a place for each device that has a sum of its
own; of cut leaves, for each process."""


class SpreadSum:
    """(params, examples, mask, *constants) -> `BoundedSum` in parts, over a layout.

    params: their shapes. n: examples that may take part in a step. constants: shapes of what `clipped`
    takes after the mask.
    """

    def __init__(
        self,
        clipped: Callable[..., BoundedSum],
        layout: Layout,
        params: PyTree,
        constants: tuple[PyTree, ...],
        n: Callable[[], int],
    ):
        self._clipped, self._layout, self._n = clipped, layout, n
        self._structure = jax.tree.structure(params)
        self._shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
        self.specs = layout.specs(params, params)
        self.constant_specs = layout.specs(constants, constants)
        self._leaf_specs = jax.tree.leaves(self.specs, is_leaf=_is_spec)
        self._totals = [(_in_front(spec), _in_front(spec)) for spec in self._leaf_specs]
        self._sensitivity: Sensitivity | None = None
        inputs = (self._totals, self.specs, BATCH, BATCH, *self.constant_specs)

        def add(total: Total, *rest: PyTree) -> Total:
            return layout.each(self._added, inputs, self._totals)(total, *rest)

        self.add = jax.jit(add, donate_argnums=0)
        self._start = jax.jit(self._nothing, out_shardings=self._placed(self._totals))
        self._reduce = jax.jit(self._reduced)

    # -- the sum of a step

    def start(self) -> Total:
        return self._start()

    def value(self, total: Total, shapes: Callable[[], tuple[PyTree, ...]]) -> BoundedSum:
        """Over all devices of all processes. shapes: of `add`'s arguments, where nothing was added: the
        sensitivity of a sum over nobody is found without computing anything."""
        if self._sensitivity is None:
            jax.eval_shape(self.add, *shapes())
        assert self._sensitivity is not None
        layout = self._layout
        total = jax.tree.map(layout.shared, total, self._totals)
        leaves = self._reduce(total)
        own = [layout.own(*each) for each in zip(leaves, self._leaf_specs, strict=True)]
        return BoundedSum(jax.tree.unflatten(self._structure, own), self._stated(self._sensitivity))

    def _stated(self, own: Sensitivity) -> Sensitivity:
        """With what rounding to words adds beyond its share of the slack, which is nothing but for very
        many examples and parameters."""
        numbers = sum(int(np.prod(shape)) for shape in self._shapes)
        share = self._lattice.moved(numbers) / own.add_or_remove
        return own.wider(share - SHARE) if share > SHARE else own

    def total(self) -> PyTree:
        """Shapes and types of a total."""
        found = jax.eval_shape(self._nothing)
        return self._layout.shaped(found, self._totals)

    # -- the programs

    def _nothing(self) -> Total:
        layout = self._layout
        return [
            zeros((layout.local if spec == EVERYWHERE else 1, *shape))
            for shape, spec in zip(self._shapes, self._leaf_specs, strict=True)
        ]

    def _added(
        self, total: Total, params: PyTree, examples: PyTree, mask: Array, *constants: PyTree
    ) -> Total:
        """On one device."""
        params = jax.tree.map(_gathered, params, self.specs)
        constants = jax.tree.map(_gathered, constants, self.constant_specs)
        part = self._clipped(params, examples, mask, *constants)
        self._remember(part.sensitivity)
        found = []
        for own, leaf, spec in zip(
            total, jax.tree.leaves(part.value), self._leaf_specs, strict=True
        ):
            words = self._lattice.words(leaf)
            high, low = (_scattered(word, spec)[None] for word in words)
            found.append(plus(own, (high, low)))
        return found

    def _reduced(self, total: Total) -> list[Array]:
        def summed(total: Total) -> list[Array]:
            return [
                self._lattice.value((self._over(high[0], spec), self._over(low[0], spec)))
                for (high, low), spec in zip(total, self._leaf_specs, strict=True)
            ]

        mesh = self._layout.mesh
        return self._layout.each(summed, (self._totals,), self._leaf_specs, mesh)(total)

    def _over(self, word: Array, spec: PartitionSpec) -> Array:
        """The sum over all that have one of their own."""
        if self._layout.count == 1:
            return word
        return lax.psum(word, (DATA, FSDP) if spec == EVERYWHERE else DATA)

    @property
    def _lattice(self) -> Lattice:
        assert self._sensitivity is not None
        return Lattice(self._sensitivity.add_or_remove, self._n())

    def _remember(self, sensitivity: Sensitivity) -> None:
        if self._sensitivity not in (None, sensitivity):
            raise ArgumentError(
                "sensitivity",
                sensitivity,
                f"join sums of equal sensitivity, here {self._sensitivity}",
            )
        self._sensitivity = sensitivity

    def _placed(self, specs: PyTree) -> Any:
        layout = self._layout
        if layout.local == 1:
            return None
        return jax.tree.map(
            lambda spec: jax.sharding.NamedSharding(layout.own_mesh, spec), specs, is_leaf=_is_spec
        )


def _in_front(spec: PartitionSpec) -> PartitionSpec:
    """Of a total: every device has its own; of a cut leaf, every process."""
    return BATCH if spec == EVERYWHERE else PartitionSpec(DATA, *spec)


def _gathered(leaf: Array, spec: PartitionSpec) -> Array:
    if spec == EVERYWHERE:
        return leaf
    return lax.all_gather(leaf, FSDP, axis=len(spec) - 1, tiled=True)


def _scattered(word: Array, spec: PartitionSpec) -> Array:
    """Of a cut leaf: this device's share of the sum over its process's devices."""
    if spec == EVERYWHERE:
        return word
    return lax.psum_scatter(word, FSDP, scatter_dimension=len(spec) - 1, tiled=True)


def _is_spec(each: Any) -> bool:
    return isinstance(each, PartitionSpec)


def bytes_reduced(params: PyTree, layout: Layout, physical_batches: int) -> dict[str, int]:
    """What a device sends in a step, in bytes: once, between all devices, and for each of so many
    physical batches of its own, of cut leaves. A ring sends a sum twice, and gathers or scatters once.
    """
    specs = jax.tree.leaves(layout.specs(params, params), is_leaf=_is_spec)
    sizes = [int(np.size(leaf)) for leaf in jax.tree.leaves(params)]
    cut = [size for size, spec in zip(sizes, specs, strict=True) if spec != EVERYWHERE]
    rest, ring = sum(sizes) - sum(cut), 2 * (layout.count - 1) / layout.count
    across = 2 * (layout.processes - 1) / layout.processes
    share = (layout.local - 1) / layout.local
    return {
        "once a step": round(8 * rest * ring + 8 * sum(cut) / layout.local * across),
        "for each physical batch": round((4 + 8) * sum(cut) * share),
        "a step": round(
            8 * rest * ring
            + 8 * sum(cut) / layout.local * across
            + physical_batches * 12 * sum(cut) * share
        ),
    }
