"""What every reader hands on: a data set that was found, listed, but not yet read.

`describe` and `open` both split a `Shelf` by the same rule; only `open` calls `load`. So they cannot disagree.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sfumato.core.errors import ArgumentError, DataError, SfumatoError
from sfumato.data.source import DataInfo, Source, Splits, from_arrays
from sfumato.data.split import ReadOptions, partition
from sfumato.data.units import check_on_one_side, check_told_apart

Arrays = tuple[np.ndarray, np.ndarray]  # images, labels
Owners = Callable[[str], dict[str, list[str]]]
"""`ReadOptions.unit` -> the unit of every training example ("train"), and the units of a test part as far as they are known
("test"). Raises ArgumentError, DataError.
"""


@dataclass(frozen=True)
class Loaded:
    """The data set as read; `names` are the training examples that remain after unreadable ones were left out."""

    train: Source
    names: tuple[str, ...]
    test: Source | None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shelf:
    """The public facts of a data set, and how to read it."""

    name: str
    path: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int] | None
    names: tuple[str, ...]  # stable names of the training examples: relative path, or position
    n_test: int | None  # None: no test split of its own
    load: Callable[[], Loaded]
    owners: Owners | None = None
    named: bool = False  # `names` are the examples' own, so that they stay when other examples come or go

    def describe(self, validation: float, options: ReadOptions) -> DataInfo:
        units = self._units(options.unit)
        sides = partition([units[name] for name in self.names] if units else self.names, self.n_test is not None, validation,
                          options)  # fmt: skip
        counts = {side: len(indices) for side, indices in sides.items()}
        if self.n_test is not None:
            counts["test"] = self.n_test
        if not units or options.unit is None:
            chosen = len(sides) > 1 or options.share < 1
            return DataInfo(self.name, self.path, self.classes, self.shape, counts, by_position=chosen and not self.named)
        trained = {units[self.names[k]] for k in sides["train"]}
        check_told_apart(trained, options.unit, "training")
        return DataInfo(self.name, self.path, self.classes, self.shape, counts, units=len(trained))

    def open(self, validation: float, options: ReadOptions) -> Splits:
        loaded = self.load()
        if len(set(loaded.train.labels.tolist())) < 2:
            raise DataError(f"{self.path}: all training images are of one class; a classifier needs two or more")
        units = self._units(options.unit)
        owners = [units[name] for name in loaded.names] if units else None
        train = replace(loaded.train, owners=np.array(owners)) if owners else loaded.train
        if self.named:
            train = replace(train, names=np.array(loaded.names))
        sides = partition(owners or loaded.names, loaded.test is not None, validation, options)
        cut = {side: train.subset(indices, side) for side, indices in sides.items()}
        test = loaded.test if loaded.test is not None else cut.get("test")
        return Splits(cut["train"], cut.get("validation"), test, loaded.skipped)

    def _units(self, unit: str | None) -> dict[str, str]:
        """Name of an example -> its unit; empty if none are asked for."""
        if unit is None:
            return {}
        if self.owners is None:
            raise ArgumentError("unit", unit, f"{self.name} does not say which images belong together; units are for folders, "
                                ".npz files and files of feature rows")  # fmt: skip
        found = self.owners(unit)
        check_told_apart(found["train"], unit, "training")
        check_on_one_side(found["train"], found.get("test", []), unit)
        return dict(zip(self.names, found["train"], strict=True))


@dataclass(frozen=True)
class Held:
    """Files of a known layout: how many images their headers promise, and how to read them."""

    path: str
    n_train: int
    n_test: int | None
    read: Callable[[], tuple[Arrays, Arrays | None]]


def positions(n: int) -> tuple[str, ...]:
    """The names of examples that have none: where they stand."""
    return tuple(str(k) for k in range(n))


def shelve(held: Held, name: str, classes: tuple[str, ...], shape: tuple[int, int, int]) -> Shelf:
    """A shelf over arrays that are read whole."""

    def load() -> Loaded:
        train, test = held.read()
        try:
            sources = [from_arrays(*part, classes, name) for part in (train, test) if part is not None]
        except SfumatoError as error:
            raise DataError(f"{held.path}: {error}") from None
        return Loaded(sources[0], positions(held.n_train), replace(sources[1], split="test") if test else None)

    return Shelf(name, held.path, classes, shape, positions(held.n_train), held.n_test, load)
