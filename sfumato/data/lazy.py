"""What every reader hands on: a data set that was found, listed, but not yet read.

`describe` and `open` both split a `LazyDataset` by the same rule; only `open` calls `load`. So they
cannot disagree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sfumato.core.errors import ArgumentError, DataError, SfumatoError
from sfumato.core.tasks import SINGLE, Task
from sfumato.data.name_column import NameColumn
from sfumato.data.source import DataInfo, Splits, from_arrays
from sfumato.data.split import ReadOptions, partition
from sfumato.data.units import check_on_one_side, check_told_apart

ImagesAndLabels = tuple[np.ndarray, np.ndarray]  # images, labels
Owners = Callable[[str], dict[str, Sequence[str]]]
"""`ReadOptions.unit` -> the unit of every training example ("train"), and the units of the data
set's other parts ("test", "validation") as far as they are known. Raises ArgumentError, DataError.
"""


@dataclass(frozen=True)
class LazyDataset:
    """The public facts of a data set, and how to read it."""

    name: str
    path: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int] | None
    names: NameColumn  # stable names of the training examples: relative path, or position
    n_test: int | None  # None: no test split of its own
    load: Callable[[], Splits]  # all training examples, and the parts that are stored apart
    owners: Owners | None = None
    n_validation: int | None = None  # None: no validation split of its own
    left_out: dict[str, int] = field(
        default_factory=dict
    )  # files that are not read, by their ending
    named: bool = (
        False  # `names` are the examples' own, so that they stay when other examples come or go
    )
    unit: str = "image"
    task: Task = SINGLE  # whether `classes` are names of findings

    def describe(self, validation: float, options: ReadOptions) -> DataInfo:
        units = self._units(options.unit)
        sides = self._sides(units or self.names, validation, options)
        own = {"validation": self.n_validation, "test": self.n_test}
        counts = {side: len(indices) for side, indices in sides.items()} | {
            side: n for side, n in own.items() if n is not None
        }
        found = DataInfo(
            self.name,
            self.path,
            self.classes,
            self.shape,
            counts,
            self.unit,
            left_out=self.left_out,
            task=self.task,
        )
        if not units or options.unit is None:
            chosen = len(sides) > 1 or options.share < 1
            return replace(found, by_position=chosen and not self.named)
        trained = {units[k] for k in sides["train"]}
        check_told_apart(trained, options.unit, "training")
        return replace(found, units=len(trained))

    def open(self, validation: float, options: ReadOptions) -> Splits:
        loaded = self.load()
        if self.task.exclusive and len(np.unique(loaded.train.labels)) < 2:
            raise DataError(
                f"{self.path}: all training images are of one class; a classifier needs two or more"
            )
        units = self._units(options.unit)
        train = replace(loaded.train, owners=np.array(units)) if units else loaded.train
        if self.named:
            train = replace(train, names=self.names)
        sides = self._sides(units or self.names, validation, options)
        cut = {side: train.subset(indices, side) for side, indices in sides.items()}
        validation_part = cut.get("validation") if loaded.validation is None else loaded.validation
        test = cut.get("test") if loaded.test is None else loaded.test
        return Splits(cut["train"], validation_part, test, loaded.skipped, self.left_out)

    def _sides(
        self, names: Sequence[str], validation: float, options: ReadOptions
    ) -> dict[str, np.ndarray]:
        """As `partition` says; what the data set has itself is not split off. With a validation
        split of its own and no test split, no examples are held out: all training examples are used,
        and the run is evaluated on the validation examples.
        """
        has_validation = self.n_validation is not None
        return partition(
            names,
            has_validation or self.n_test is not None,
            0.0 if has_validation else validation,
            options,
        )

    def _units(self, unit: str | None) -> Sequence[str]:
        """The unit of each training example; none if none are asked for."""
        if unit is None:
            return ()
        if self.owners is None:
            raise ArgumentError(
                "unit",
                unit,
                f"{self.name} has no unit column; units are for folders, .npz files and feature rows",
            )
        found = self.owners(unit)
        check_told_apart(found["train"], unit, "training")
        for part in ("validation", "test"):
            check_on_one_side(found["train"], found.get(part, []), unit, part)
        return found["train"]


@dataclass(frozen=True)
class ArrayFiles:
    """Files of a known layout: how many images their headers promise, and how to read them."""

    path: str
    n_train: int
    n_test: int | None
    read: Callable[[], tuple[ImagesAndLabels, ImagesAndLabels | None]]


def positions(n: int) -> NameColumn:
    """The names of examples that have none: where they stand."""
    return NameColumn.of(map(str, range(n)))


def lazy_arrays(
    files: ArrayFiles, name: str, classes: tuple[str, ...], shape: tuple[int, int, int]
) -> LazyDataset:
    """A data set of arrays that are read whole."""

    def load() -> Splits:
        train, test = files.read()
        try:
            sources = [
                from_arrays(*part, classes, name) for part in (train, test) if part is not None
            ]
        except SfumatoError as error:
            raise DataError(f"{files.path}: {error}") from None
        return Splits(sources[0], None, replace(sources[1], split="test") if test else None)

    return LazyDataset(
        name, files.path, classes, shape, positions(files.n_train), files.n_test, load
    )
