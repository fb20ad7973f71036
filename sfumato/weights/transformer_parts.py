"""What the layouts of vision transformers share: stacked layers, patches, position embeddings of
another grid."""

from collections.abc import Callable, Iterable, Mapping
from math import isqrt
from typing import Any

import jax
import numpy as np

from sfumato.core.errors import WeightsError
from sfumato.networks.vit import VisionTransformer, length
from sfumato.weights.layout import Entry

Parts = Mapping[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]]
"""A leaf of one layer -> (the names of the arrays it is made of, {} for the layer's number; how).
"""


def layers(network: VisionTransformer, parts: Parts) -> Iterable[Entry]:
    """The entries of all stacks, given those of a layer."""
    first = 0
    for number, stack in enumerate(network.stacks):
        indices = range(first, first + length(stack))
        for leaf, (names, convert) in parts.items():
            theirs = tuple(name.format(index) for index in indices for name in names)
            yield Entry(f"stacks/{number}/{leaf}", theirs, _per_layer(convert, len(names)))
        first += length(stack)


def _per_layer(convert: Callable[..., np.ndarray], count: int) -> Callable[..., np.ndarray]:
    """`count` arrays for each layer -> one array with a leading axis of layers."""
    return lambda *arrays: np.stack(
        [convert(*arrays[at : at + count]) for at in range(0, len(arrays), count)]
    )


def patches(kernel: np.ndarray) -> np.ndarray:
    """OIHW -> (H W I, O), for patches whose pixels are in a row."""
    return kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0])


def flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def beside(*matrices: np.ndarray) -> np.ndarray:
    """(out, in) each -> (in, all outs)."""
    return np.concatenate([matrix.T for matrix in matrices], axis=1)


def joined(*vectors: np.ndarray) -> np.ndarray:
    return np.concatenate([vector.reshape(-1) for vector in vectors])


def positions(network: VisionTransformer) -> Callable[..., Any]:
    """(1, t, d) -> (t, d) for the network's grid: of another number of patches, resized (bicubic,
    antialiased).

    The class token's own is kept. Raises WeightsError where the file's positions are no square
    grid.
    """
    kept, grid = 0 if network.token is None else 1, network.grid

    def convert(table: np.ndarray) -> np.ndarray:
        own, moved = table[0, :kept], table[0, kept:]
        if len(moved) != grid[0] * grid[1]:
            side = isqrt(len(moved))
            if side * side != len(moved):
                raise WeightsError(
                    f"weights do not fit: {len(moved)} position embeddings are not a square grid that could be resized to "
                    f"{grid[0]} x {grid[1]}; choose the model they were made for"
                )
            square = np.asarray(moved, np.float32).reshape(side, side, -1)
            moved = np.asarray(jax.image.resize(square, (*grid, square.shape[2]), "cubic")).reshape(
                -1, square.shape[2]
            )
        return np.concatenate([own, moved])

    return convert
