"""How the arrays of a file become the leaves of a network.

A layout says, for one family and one convention of names, which of the file's arrays make each of
our leaves, and how: turned from OIHW to HWIO, several stacked for a scan over layers, a BatchNorm
folded into the convolution before it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from sfumato.core.errors import WeightsError
from sfumato.core.trees import by_name
from sfumato.networks.backbone import Backbone

Arrays = Mapping[str, np.ndarray]
_SHOWN = 5
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Entry:
    """ours: a leaf's name, as `core.trees.leaf_names` has it. theirs: the file's arrays it is made
    of, in the order in which `convert` takes them.
    """

    ours: str
    theirs: tuple[str, ...]
    convert: Callable[..., Any]


Layout = Callable[[Any], Iterable[Entry]]
"""The entries for all leaves of a network (Backbone) of the layout's family, head included. May
leave out names that hold no parameter (such as num_batches_tracked); `unused` of `fill` are those.
"""


def is_parameter(leaf: Any) -> bool:
    """An array of floating-point numbers, or the description of one (jax.ShapeDtypeStruct)."""
    return eqx.is_inexact_array(leaf) or (
        isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    )


def outlined(network: Backbone) -> Backbone:
    """The parameters of a network, which may be described by `jax.ShapeDtypeStruct`s only; None for
    all else."""
    return eqx.filter(network, is_parameter)


def fill(
    network: Backbone,
    arrays: Arrays,
    layout: Layout,
    unused: Callable[[str], bool],
    keep_head: bool,
) -> Backbone:
    """The network with the file's arrays in it. keep_head=False leaves the network's own head and
    ignores the file's.

    The network may be abstract (`eqx.filter_eval_shape`), so that no random weights are drawn to be
    thrown away. Raises WeightsError, with their names, for arrays that are missing, left over, of
    another shape or not finite.
    """
    own, static = eqx.partition(network, is_parameter)
    found = _converted(own, arrays, layout(network), unused, keep_head)
    filled = [
        jnp.asarray(found[name], leaf.dtype) if name in found else leaf
        for name, leaf in by_name(own).items()
    ]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(own), filled), static)


def fits(network: Backbone, arrays: Arrays, layout: Layout, unused: Callable[[str], bool]) -> bool:
    """Would `fill` take arrays of these names and shapes, whatever their head?"""
    hollow = {name: np.broadcast_to(np.float32(1), array.shape) for name, array in arrays.items()}
    try:
        _converted(outlined(network), hollow, layout(network), unused, keep_head=False)
    except WeightsError:
        return False
    return True


def _converted(
    own: Backbone,
    arrays: Arrays,
    layout: Iterable[Entry],
    unused: Callable[[str], bool],
    keep_head: bool,
) -> dict[str, np.ndarray]:
    """Our leaf -> its array, for all leaves (but the head's)."""
    leaves = by_name(own)
    entries = {entry.ours: entry for entry in layout}
    used = {name for entry in entries.values() for name in entry.theirs}
    heads = set() if keep_head else {name for name in leaves if name.startswith("head/")}
    wanted = {ours: entry for ours, entry in entries.items() if ours not in heads}
    missing = sorted(
        {name for entry in wanted.values() for name in entry.theirs if name not in arrays}
    )
    left_over = sorted(name for name in arrays if name not in used and not unused(name))
    if any(name.endswith(_STATISTICS) for name in left_over):
        raise WeightsError(
            f"they have BatchNorm statistics ({_listed(left_over)}), for which the network "
            "has no place, unlike those that fold them (such as resnet50)"
        )
    _refuse("the file lacks", missing)
    _refuse("the network has no place for", left_over)
    _refuse(
        "nothing in the file makes",
        [name for name in leaves if name not in entries and name not in heads],
    )
    found, wrong = {}, []
    for ours, entry in wanted.items():
        given = [arrays[name] for name in entry.theirs]
        try:
            found[ours] = np.asarray(entry.convert(*given))
        except WeightsError:
            raise
        except (
            ValueError,
            TypeError,
            IndexError,
        ):  # of another number of dimensions than the conversion's
            wrong.append(f"{entry.theirs[0]} {given[0].shape} for {ours} {leaves[ours].shape}")
            continue
        if found[ours].shape != leaves[ours].shape:
            wrong.append(f"{ours} {found[ours].shape} where the network has {leaves[ours].shape}")
    _refuse("of another shape:", wrong)
    _refuse("not finite:", [name for name, array in found.items() if not np.isfinite(array).all()])
    return found


def _refuse(problem: str, names: list[str]) -> None:
    if names:
        raise WeightsError(f"{problem} {_listed(names)}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


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


def folded_kernel(
    epsilon: float, convert: Callable[[np.ndarray], np.ndarray] = kernel
) -> Callable[..., np.ndarray]:
    """(kernel OIHW, BatchNorm's weight, variance) -> the kernel of convolution and norm together,
    in float64, converted."""

    def fold(array: np.ndarray, scale: np.ndarray, variance: np.ndarray) -> np.ndarray:
        factor = scale / np.sqrt(variance.astype(np.float64) + epsilon)
        return convert(array.astype(np.float64) * factor[:, None, None, None])

    return fold


def folded_bias(epsilon: float) -> Callable[..., np.ndarray]:
    """(BatchNorm's weight, bias, mean, variance) -> the bias of convolution and norm together."""

    def fold(
        scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray
    ) -> np.ndarray:
        return shift - mean.astype(np.float64) * scale / np.sqrt(
            variance.astype(np.float64) + epsilon
        )

    return fold
