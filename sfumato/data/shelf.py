"""What every reader hands on: a data set that was found, listed, but not yet read.

`describe` and `open` both split a `Shelf` by the same rule; only `open` calls `load`. So they cannot disagree.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sfumato.core.errors import DataError, SfumatoError
from sfumato.data.source import DataInfo, Source, Splits, from_arrays
from sfumato.data.split import ReadOptions, partition

Arrays = tuple[np.ndarray, np.ndarray]  # images, labels


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

    def describe(self, validation: float, options: ReadOptions) -> DataInfo:
        sides = partition(self.names, self.n_test is not None, validation, options)
        counts = {side: len(indices) for side, indices in sides.items()}
        if self.n_test is not None:
            counts["test"] = self.n_test
        return DataInfo(self.name, self.path, self.classes, self.shape, counts)

    def open(self, validation: float, options: ReadOptions) -> Splits:
        loaded = self.load()
        if len(set(loaded.train.labels.tolist())) < 2:
            raise DataError(f"{self.path}: all training images are of one class; a classifier needs two or more")
        sides = partition(loaded.names, loaded.test is not None, validation, options)
        cut = {side: loaded.train.subset(indices, side) for side, indices in sides.items()}
        test = loaded.test if loaded.test is not None else cut.get("test")
        return Splits(cut["train"], cut.get("validation"), test, loaded.skipped)


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
