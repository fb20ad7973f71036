"""On which devices of which processes a run computes: performance, never result.

One mesh ("data", "fsdp") over all devices: a row for each process, whose devices stand side by side.
A batch is spread over both axes. Parameters are on every device while they are small; else their
large leaves are cut along the largest axis that "fsdp" divides (the rule of big_vision), and with them
the optimizer's state, the average and the sums. So every process has all of a state on its own
devices: it updates, saves and evaluates without the others, and what crosses processes is one sum a
step (`train/spread.py`).

Who works together is told by `--coordinator`, or by whatever started the processes, as far as JAX
knows it. Processes then compare what they are about to do before anything is paid (`agree`), and
again at each payment: there they wait for process 0, which alone writes.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree, UInt8

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError, RunError, few
from sfumato.core.processes import join

DATA, FSDP = "data", "fsdp"
BATCH = PartitionSpec((DATA, FSDP))
EVERYWHERE = PartitionSpec()

WHOLE, LEAF = 2**31, 2**22
"""Bytes: parameters of at most WHOLE are on every device; of larger ones, leaves of at least LEAF are
cut. Cut ones are gathered for every physical batch and summed after it, so this is for what would not
fit otherwise."""

MOST = 1000
"""Devices at most; the words of a sum have room for their carries (`clip/fixed_point.py`)."""


@dataclass(frozen=True)
class Layout:
    """devices: this process's. every: those of all processes, as many of each, in their order."""

    devices: tuple[Any, ...]
    process: int = 0
    processes: int = 1
    every: tuple[Any, ...] = ()
    whole: int = WHOLE
    leaf: int = LEAF

    @property
    def first(self) -> bool:
        """Is this the process that writes?"""
        return self.process == 0

    @property
    def local(self) -> int:
        return len(self.devices)

    @property
    def count(self) -> int:
        """Devices of all processes."""
        return self.local * self.processes

    @cached_property
    def own_mesh(self) -> Mesh:
        """Of this process's devices."""
        return _mesh(np.array(self.devices, object).reshape(1, -1))

    @cached_property
    def mesh(self) -> Mesh:
        """Of all devices."""
        every = self.every or self.devices
        return _mesh(np.array(every, object).reshape(self.processes, -1))

    @property
    def places(self) -> range:
        """Of this process's devices among all."""
        return range(self.process * self.local, (self.process + 1) * self.local)

    # -- where arrays are

    def specs(self, tree: PyTree, like: PyTree) -> PyTree:
        """How each leaf is spread. like: the parameters, whose size decides whether any is cut."""
        cut = self.local > 1 and sum(map(_bytes, jax.tree.leaves(like))) > self.whole
        return jax.tree.map(lambda leaf: self._spec(leaf) if cut else EVERYWHERE, tree)

    def _spec(self, leaf: Any) -> PartitionSpec:
        shape = np.shape(leaf)
        axes = [axis for axis in range(len(shape)) if shape[axis] % self.local == 0]
        if _bytes(leaf) < self.leaf or not axes:
            return EVERYWHERE
        axis = max(axes, key=lambda each: shape[each])
        return PartitionSpec(*([None] * axis), FSDP)

    def put(self, tree: PyTree, specs: PyTree) -> PyTree:
        """The tree on this process's devices; what is there already is not moved."""
        if self.local == 1:
            return tree
        return jax.tree.map(
            lambda leaf, spec: jax.device_put(leaf, NamedSharding(self.own_mesh, spec)), tree, specs
        )

    def kept(self, tree: PyTree, specs: PyTree) -> PyTree:
        """`put` of what a program computes."""
        if self.local == 1:
            return tree
        return jax.tree.map(
            lambda leaf, spec: jax.lax.with_sharding_constraint(
                leaf, NamedSharding(self.own_mesh, spec)
            ),
            tree,
            specs,
        )

    def put_everywhere(self, tree: PyTree) -> PyTree:
        return self.put(tree, jax.tree.map(lambda leaf: EVERYWHERE, tree))

    def put_batch(self, tree: PyTree) -> PyTree:
        """Examples, as many for each device of this process, on these."""
        if self.local == 1:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self.own_mesh, BATCH))

    def shaped(self, tree: PyTree, specs: PyTree) -> PyTree:
        """Shapes and types of what `put` gives."""
        if self.local == 1:
            return tree
        return jax.tree.map(
            lambda leaf, spec: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(self.own_mesh, spec)
            ),
            tree,
            specs,
        )

    def shared(self, leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
        """What each process has of an array that is spread over all, as one array. spec: its first
        axis is spread over "data"."""
        if self.processes == 1:
            return leaf
        shape = (leaf.shape[0] * self.processes, *leaf.shape[1:])
        return jax.make_array_from_single_device_arrays(
            shape, NamedSharding(self.mesh, spec), [each.data for each in leaf.addressable_shards]
        )

    def own(self, leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
        """This process's copy of an array that every process has."""
        if self.processes == 1:
            return leaf
        parts = [each.data for each in leaf.addressable_shards]
        if self.local == 1:
            return parts[0]
        return jax.make_array_from_single_device_arrays(
            leaf.shape, NamedSharding(self.own_mesh, spec), parts
        )

    # -- programs

    def each(
        self, body: Callable[..., Any], in_specs: Any, out_specs: Any, mesh: Mesh | None = None
    ) -> Callable[..., Any]:
        """`body` on every device, told its own part; on one device it is the body itself. So a device
        runs the same program of the same shapes, whatever stands beside it."""
        mesh = self.own_mesh if mesh is None else mesh
        if mesh.size == 1:
            return body
        return jax.shard_map(
            body, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def rows(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """(arrays, batch) -> rows: as many rows of the batch for every device."""
        return self.each(function, (EVERYWHERE, BATCH), BATCH)

    # -- with the other processes

    def least(self, number: int) -> int:
        """Of the numbers that the processes come with."""
        if self.processes == 1:
            return number
        return int(everyone(np.int64(number)).min())

    def agree(self, what: str, *parts: object) -> None:
        """Wait until all processes are here, and make sure that they mean the same. what: "train on
        other images", of one that does not. Raises RunError in each of them.
        """
        if self.processes == 1:
            return
        self._compare(what, everyone(_digest(*parts))[:, None], [""])

    def agree_on_each(self, what: str, facts: Mapping[str, object]) -> None:
        """`agree`, and the facts that differ are named."""
        if self.processes == 1:
            return
        names = sorted(facts)
        self.agree(what, *names)
        self._compare(what, everyone(np.stack([_digest(facts[name]) for name in names])), names)

    def _compare(
        self, what: str, every: UInt8[np.ndarray, "processes facts 32"], names: Sequence[str]
    ) -> None:
        differs = (every != every[:1]).any(2)
        if not differs.any():
            return
        others, named = (
            few([each for each, other in zip(of, differs.any(axis), strict=True) if other])
            for of, axis in ((range(self.processes), 1), (names, 0))
        )
        raise RunError(
            f"process {others} of {self.processes} would {what} than process 0{named and f' ({named})'}; start all of them "
            "with the same command, software and files, or give --processes 1 to run each alone"
        )


ALONE = Layout((None,))
"""JAX's default device."""


def everyone(own: np.generic | np.ndarray) -> np.ndarray:
    """What all processes come with, each with an array of the same shape, in their order."""
    from jax.experimental import multihost_utils

    found = np.asarray(multihost_utils.process_allgather(own))
    return found.reshape(-1, *np.shape(own))


def _digest(*parts: object) -> UInt8[np.ndarray, "32"]:
    own = hashlib.sha256()
    for part in map(str, parts):
        own.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    return np.frombuffer(own.digest(), np.uint8)


def _mesh(devices: np.ndarray) -> Mesh:
    return Mesh(devices, (DATA, FSDP), axis_types=(AxisType.Auto,) * 2)


def _bytes(leaf: Any) -> int:
    return int(np.prod(np.shape(leaf))) * getattr(leaf, "dtype", np.dtype(np.float32)).itemsize


# -- of this process

_here: list[Layout] = []


def here() -> Layout:
    """All devices of this process, or what `begin` was told."""
    if not _here:
        _here.append(Layout(tuple(jax.local_devices())))
    return _here[0]


def writes() -> bool:
    """Is this the process that tells how it went?"""
    return here().first


def together() -> bool:
    """Does this process work with others? Asking starts nothing."""
    return bool(_here) and _here[0].processes > 1


def used(devices: int | None) -> int:
    """How many devices of this process are used, where at most so many are asked for. Raises
    ArgumentError where there are fewer."""
    here = jax.local_device_count()
    if devices is not None and whole("devices", devices) > here:
        raise ArgumentError("devices", devices, f"there are {here} here; leave it out for all")
    return here if devices is None else devices


def begin(
    devices: int | None = None,
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
) -> Layout:
    """Find the devices and, if there are any, the other processes; before anything is computed.

    devices: of this process, at most. coordinator: HOST:PORT of process 0; with it, how many
    processes there are and which this one is. Without it, SLURM, Open MPI, Kubernetes and TPU pods
    tell JAX, where they started more than one process; processes=1 leaves the others alone. Raises
    ArgumentError, and RunError where processes do not find each other.
    """
    if devices is not None:  # before others are waited for; what there is here is known only then
        whole("devices", devices)
    join(coordinator, processes, process)
    number, index, per = jax.process_count(), jax.process_index(), used(devices)
    every: list[Any] = []
    for each in range(number):
        every += [one for one in jax.devices() if one.process_index == each][:per]
    made = Layout(tuple(jax.local_devices()[:per]), index, number, tuple(every))
    made.agree("use another number of devices", str(per))
    if made.count > MOST:
        raise ArgumentError("devices", made.count, f"at most {MOST} in all are summed over")
    _here[:] = [made]
    return made


def shapes_of(tree: PyTree) -> Sequence[tuple[int, ...]]:
    """The largest part of each leaf that a device holds."""
    return [
        max((part.data.shape for part in leaf.addressable_shards), key=lambda s: int(np.prod(s)))
        for leaf in jax.tree.leaves(tree)
    ]
