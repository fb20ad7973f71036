"""Units of several images: all images of one person (patient, camera, ...) taken for one example.

The promise then covers a person with all their images, not one image: a unit is sampled as a whole, its images are averaged
before the clip, and it contributes once. How many images a unit has must not show either, so at most `most` of them are
used, in the order of their names, and every unit is padded to that many.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Shaped

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError, DataError


@dataclass(frozen=True, eq=False)
class Units:
    """names: of the units, sorted. images: positions of each unit's images, padded with its first. present: which are real."""

    names: tuple[str, ...]
    images: Int64[np.ndarray, "n most"]
    present: Bool[np.ndarray, "n most"]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, owners: Sequence[str], most: int) -> "Units":
        """owners: to which unit each image belongs. Raises ArgumentError, DataError."""
        whole("most", most)
        if len(owners) == 0:
            raise DataError("unit: there are no images to group")
        names, owner = np.unique(np.asarray(owners, str), return_inverse=True)
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        place = np.arange(most)
        present = place < counts[:, None]
        images = order[first[:, None] + np.where(present, place, 0)]
        return cls(tuple(str(name) for name in names), images.astype(np.int64), present)

    def fetch(self, read: Callable[[np.ndarray], Any]) -> Callable[[Int64[np.ndarray, "b"], int], Any]:
        """For DP-SGD, with units in place of examples: (units, step) -> (what `read` makes of their images, which are present).

        read: positions of images (k,) -> a tree of arrays with leading axis k; given back with leading axes (b, most).
        """
        import jax

        def units(indices: np.ndarray, step: int) -> Any:
            at = self.images[indices]
            each = read(at.ravel())
            return jax.tree.map(lambda leaf: np.asarray(leaf).reshape(*at.shape, *leaf.shape[1:]), each), self.present[indices]

        return units

    def mean_rows(
        self, rows: Float[np.ndarray, "m d"], labels: Int[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]:
        """For solvers on features: the mean of each unit's rows (norm at most 1 if theirs is) and its most frequent class."""
        weights = self.present / self.present.sum(1, keepdims=True)
        mean = np.stack([weight @ rows[at] for weight, at in zip(weights, self.images, strict=True)])
        return mean.astype(rows.dtype), np.array([
            np.bincount(labels[at[here]]).argmax() for at, here in zip(self.images, self.present, strict=True)
        ], labels.dtype)


def owners_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """The unit of each file: what the regular expression's first group (or all of it) matches in the file's own name.

    Raises ArgumentError for an expression that is none, or that a name does not match: nobody may be left without a unit.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ArgumentError("unit", pattern, f"is no regular expression ({error})") from None
    found = []
    for name in names:
        match = compiled.search(PurePosixPath(name).name)
        if match is None:
            raise ArgumentError("unit", pattern, f"matches nothing in {name!r}; give one that matches every file name")
        found.append(match.group(1) if compiled.groups else match.group())
    return found


def column(values: Shaped[np.ndarray, " m"]) -> list[str]:
    """The unit of each image from a column of numbers or strings. Raises DataError where one is missing."""
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise DataError("unit: the column has empty places; give every image a unit")
    return [str(value) for value in values]
