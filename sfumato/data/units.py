"""Units of several images: all images of one person (patient, camera, ...) are one example.

The promise then covers a person with all their images, not one image: a unit is held out or trained
on as a whole, sampled as a whole, its images are averaged before the clip, and it contributes once.
How many images a unit has must not show either, so at most `most` of them are used, spread evenly
over them in the order of the data set, and every unit is padded to that many.

Whatever is decided here for a unit (its side, its images, its place among them) depends on that
unit alone. So the data sets with and without a unit differ in one example, and all that is proven
of one example holds for the unit.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int64, Shaped

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.tasks import task_of

Fetch = Callable[[Int64[np.ndarray, " b"], int], Any]
"""(positions, step) -> a tree of arrays with leading axis b, as `train/feed.py` has it."""


@dataclass(frozen=True, eq=False)
class Units:
    """names: of the units, sorted. images: positions of each unit's images, padded with its first.
    present: which are real."""

    names: tuple[str, ...]
    images: Int64[np.ndarray, "n most"]
    present: Bool[np.ndarray, "n most"]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, owners: Sequence[str] | np.ndarray, most: int) -> "Units":
        """owners: to which unit each image belongs. Raises ArgumentError, DataError.

        Of c > most images, those at floor(j c / most), j < most, are used: where a unit's images
        lie class by class, the first ones would often be of one class.
        """
        whole("most", most)
        if len(owners) == 0:
            raise DataError("unit: there are no images to group")
        names, owner = np.unique(np.asarray(owners, str), return_inverse=True)
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        present = np.arange(most) < counts[:, None]
        place = np.arange(most) * np.maximum(counts, most)[:, None] // most
        images = order[first[:, None] + np.where(present, place, 0)]
        return cls(tuple(str(name) for name in names), images.astype(np.int64), present)

    def fetch(self, read: Fetch) -> Fetch:
        """For DP-SGD, with units in place of examples: (units, step) -> (what `read` makes of their
        images, which are present).

        read: as for images, by their positions; its leading axis becomes (b, most). Padding is not
        read twice.
        """
        import jax

        def units(indices: np.ndarray, step: int) -> Any:
            at = self.images[indices]
            distinct, places = np.unique(at, return_inverse=True)
            each = read(distinct, step)
            places = places.reshape(at.shape)
            return jax.tree.map(lambda leaf: np.asarray(leaf)[places], each), self.present[indices]

        return units

    def mean_rows(
        self, rows: Float[np.ndarray, "m d"], labels: Int[np.ndarray, "m ..."]
    ) -> tuple[Float[np.ndarray, "n d"], Int[np.ndarray, "n ..."]]:
        """For solvers on features: the mean of each unit's rows and its most frequent class (the
        first of equals), or each finding by `Task.of_group`.

        Sensitivity. A solver's sums are sums over rows of f(row, label), and it is proven there
        that |f| <= C for every row of norm at most 1 and every label. Here row u is m_u = (1/k)
        sum_{i <= k} x_i over the k <= most images used of unit u, and |m_u| <= (1/k) sum |x_i| <= 1
        if the x_i are. (m_u, label_u) is a function of unit u alone; without the unit this one row
        is gone and the others are bit for bit what they were. So the sums move by at most C,
        whatever k is: a unit of many images has no more influence than a unit of one, and a row
        does not say how many it stands for.

        Computed in float64, so that rounding to the rows' own type is all that is added to the
        norm. A row that is not finite spoils the mean of its own unit only, which solvers then
        count as nothing.
        """
        weights = self.present / self.present.sum(1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.stack(
                [
                    (weight @ rows[at].astype(np.float64)).astype(rows.dtype)
                    for weight, at in zip(weights, self.images, strict=True)
                ]
            )
        return mean, np.array(
            [
                task_of(labels).of_group(labels[at[here]])
                for at, here in zip(self.images, self.present, strict=True)
            ],
            labels.dtype,
        )


FOLDER = "folder"
"""`ReadOptions.unit` of images in class/FOLDER/*.jpg whose folder is their unit."""


def owners_by_pattern(names: Sequence[str], pattern: str, every: bool = True) -> list[str]:
    """The unit of each file: what the regular expression's first group (or all of it) matches in
    the file's own name, or, for "folder", the name of the folder in which it lies (the same name in
    two classes is one unit).

    Raises ArgumentError for what is not a regular expression, and for a name that it does not
    match: every image needs a unit. every=False puts such names into none, "", instead.
    """
    if pattern == FOLDER:
        return [PurePosixPath(name).parent.name for name in names]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ArgumentError("unit", pattern, f"is not a regular expression ({error})") from None
    found = []
    for name in names:
        match = compiled.search(PurePosixPath(name).name)
        owner = None if match is None else match.group(1) if compiled.groups else match.group()
        found.append(owner or "")
        if every and not owner:
            raise ArgumentError(
                "unit",
                pattern,
                f"matches nothing in {name!r}; give one that matches every file name",
            )
    return found


def column(values: Shaped[np.ndarray, "..."], n: int, where: str) -> list[str]:
    """The unit of each of n images from a column of numbers or strings. Raises DataError where one
    is missing.

    where: for the message, such as "images.npz: patient".
    """
    if values.shape != (n,):
        raise DataError(
            f"{where} has shape {values.shape}; a unit's column has one entry for each of {n} images"
        )
    if values.dtype.kind == "O":
        values = np.array(
            ["" if value is None or value != value else str(value) for value in values.tolist()],
            str,
        )
    if values.dtype.kind not in "iufbUS":
        raise DataError(f"{where} holds {values.dtype}; give whole numbers or strings")
    owners = [
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        for value in values.tolist()
    ]
    empty = (
        np.isnan(values)
        if values.dtype.kind == "f"
        else np.array([not owner.strip() for owner in owners], bool)
    )
    if empty.any():
        raise DataError(
            f"{where} has {int(empty.sum())} missing entries, the first at position {int(empty.argmax())}; give "
            "every image a unit"
        )
    return owners


def check_told_apart(owners: Collection[str], unit: str, side: str) -> None:
    """Raises ArgumentError where there is only one unit: its removal would leave nothing to learn
    from."""
    if len(set(owners)) < 2:
        only = next(iter(owners), "")
        raise ArgumentError(
            "unit",
            unit,
            f"puts all {side} images into one unit, {only!r}; give one that separates them",
        )


def check_on_one_side(
    train: Collection[str], other: Collection[str], unit: str, part: str = "test"
) -> None:
    """Raises ArgumentError where a unit has images in a data set's own training part and in its
    test or validation part, whose images are not covered.
    """
    both = sorted(set(train) & set(other))
    if both:
        raise ArgumentError(
            "unit",
            unit,
            f"{both[0]!r} has images in both the training and the {part} part ({len(both)} such "
            f"units), and {part} images are not protected; move all of a unit to one side",
        )
