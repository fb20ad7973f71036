"""How the arrays of a file become the leaves of a network.

A layout says, for one family and one convention of names, which of the file's arrays make each of our leaves, and how:
turned from OIHW to HWIO, several stacked for a scan over layers, a BatchNorm folded into the convolution before it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sfumato.core.errors import WeightsError
from sfumato.core.trees import leaf_names
from sfumato.models.backbone import Backbone

Arrays = Mapping[str, np.ndarray]
_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """ours: a leaf's name, as `core.trees.leaf_names` has it. theirs: the file's arrays it is made of, in the order in which
    `convert` takes them.
    """

    ours: str
    theirs: tuple[str, ...]
    convert: Callable[..., Any]


Layout = Callable[[Backbone], Iterable[Entry]]
"""The entries for all leaves of a network of the layout's family, head included. May leave out names that hold no
parameter (such as num_batches_tracked); `unused` of `fill` are those.
"""


def fill(network: Backbone, arrays: Arrays, layout: Layout, unused: Callable[[str], bool], keep_head: bool) -> Backbone:
    """The network with the file's arrays in it. keep_head=False leaves the network's own head and ignores the file's.

    Raises WeightsError, with their names, for arrays that are missing, left over or of another shape.
    """
    own, static = eqx.partition(network, eqx.is_inexact_array)
    leaves = dict(zip(leaf_names(own), jax.tree.leaves(own), strict=True))
    entries = {entry.ours: entry for entry in layout(network)}
    used = {name for entry in entries.values() for name in entry.theirs}
    heads = {name for name in leaves if name.startswith("head/")} if not keep_head else set()
    wanted = {ours: entry for ours, entry in entries.items() if ours not in heads}
    missing = sorted({name for entry in wanted.values() for name in entry.theirs if name not in arrays})
    left_over = sorted(name for name in arrays if name not in used and not unused(name))
    _refuse("the file lacks", missing)
    _refuse("the network has no place for", left_over)
    found = {ours: np.asarray(entry.convert(*(arrays[name] for name in entry.theirs))) for ours, entry in wanted.items()}
    wrong = [f"{ours} {array.shape} where the network has {leaves[ours].shape}" for ours, array in found.items()
             if array.shape != leaves[ours].shape]  # fmt: skip
    _refuse("of another shape:", wrong)
    filled = [jnp.asarray(found[name], leaf.dtype) if name in found else leaf for name, leaf in leaves.items()]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(own), filled), static)


def _refuse(problem: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise WeightsError(f"weights do not fit: {problem} {', '.join(names[:_SHOWN])}{more}; choose the model they were "
                           "made for")


# -- conversions


def same(array: np.ndarray) -> np.ndarray:
    return array


def kernel(array: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO."""
    return array.transpose(2, 3, 1, 0)


def pointwise(array: np.ndarray) -> np.ndarray:
    """OI11 -> IO."""
    return array[:, :, 0, 0].T


def depthwise(array: np.ndarray) -> np.ndarray:
    """O1HW -> HWO."""
    return array[:, 0].transpose(1, 2, 0)


def transposed(array: np.ndarray) -> np.ndarray:
    """(out, in) -> (in, out)."""
    return array.T


def stacked(convert: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """One array per layer -> one array with a leading axis of layers."""
    return lambda *layers: np.stack([convert(each) for each in layers])


def folded_kernel(epsilon: float, convert: Callable[[np.ndarray], np.ndarray] = kernel) -> Callable[..., np.ndarray]:
    """(kernel OIHW, BatchNorm's weight, variance) -> the kernel of convolution and norm together, in float64, converted."""

    def fold(array: np.ndarray, scale: np.ndarray, variance: np.ndarray) -> np.ndarray:
        factor = scale / np.sqrt(variance.astype(np.float64) + epsilon)
        return convert(array.astype(np.float64) * factor[:, None, None, None])

    return fold


def folded_bias(epsilon: float) -> Callable[..., np.ndarray]:
    """(BatchNorm's weight, bias, mean, variance) -> the bias of convolution and norm together."""

    def fold(scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return shift - mean.astype(np.float64) * scale / np.sqrt(variance.astype(np.float64) + epsilon)

    return fold
