"""Examples that lie in memory (or are mapped from files), as a method takes them."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Shaped

from sfumato.core.errors import ArgumentError


@runtime_checkable
class Data(Protocol):
    """What a method trains on: a number of examples, and those at a vector of indices, a tree of
    arrays that all have the axis of examples in front. The same indices give the same examples."""

    def __len__(self) -> int: ...
    def __getitem__(self, indices: Int64[np.ndarray, " b"]) -> Any: ...


class Arrays:
    """Arrays of n examples each, by name: `Arrays(image=images, label=labels)`. One example is then
    `{"image": ..., "label": ...}`.

    Raises ArgumentError for none, or for arrays of different lengths.
    """

    def __init__(self, **arrays: Shaped[np.ndarray, "n ..."]):
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        lengths = {name: len(array) if array.ndim else 0 for name, array in self.arrays.items()}
        if not lengths or len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise ArgumentError(
                "arrays", lengths, "give at least one array, all with the same number of examples"
            )

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, indices: Int64[np.ndarray, " b"]) -> dict[str, np.ndarray]:
        return {name: array[indices] for name, array in self.arrays.items()}

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={each.dtype}{list(each.shape)}" for name, each in self.arrays.items()
        )
        return f"Arrays({shown})"
