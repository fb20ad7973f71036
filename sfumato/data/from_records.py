"""A `Listing` of any format -> `LazyDataset`: labels and names are at hand, pixels are decoded when they
are read, and kept where all of them fit into memory.
"""

import math
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from sfumato.core.errors import DataError
from sfumato.core.machine import processors
from sfumato.core.tasks import task_of
from sfumato.data.decode import decode, fitted_shape, upright_size, why_not
from sfumato.data.lazy import LazyDataset
from sfumato.data.listing import ListedPart, Listing
from sfumato.data.records import Records
from sfumato.data.source import Source, Splits
from sfumato.data.split import ReadOptions
from sfumato.data.workers import spread

KEPT_BYTES = 2**31
"""Decoded pixels of a data set up to this size are kept once they were read; of a larger one, every image is
decoded whenever it is read."""
_TOGETHER = 1 << 16
"""Bytes of pixels that a thread makes at once, if that is more than one image."""
HEADERS = 64
"""Headers that are read before anything is paid: nearly all sets of mixed sizes are found by them."""
Shape = tuple[int, int, int]


def dataset_of(listing: Listing, options: ReadOptions) -> LazyDataset:
    """The data set; one header is read. `load` reads a few more, and decodes nothing."""
    parts, train = listing.parts, listing.parts["train"]
    n = {split: len(part) for split, part in parts.items()}
    found = _first_shape(train.records, options)

    def owners(unit: str) -> dict[str, Sequence[str]]:
        return {split: part.units for split, part in parts.items() if part.units is not None}

    return LazyDataset(
        listing.name,
        listing.place,
        listing.classes,
        found,
        train.names,
        n.get("test"),
        lambda: _load(listing, options),
        None if train.units is None else owners,
        n_validation=n.get("validation"),
        left_out=listing.left_out,
        named=listing.named,
        task=task_of(train.labels),
    )


def _load(listing: Listing, options: ReadOptions) -> Splits:
    shape = _common_shape(listing, options)
    total = sum(map(len, listing.parts.values())) * math.prod(shape)

    def source(split: str, part: ListedPart) -> Source:
        read = Decoded(part.records, shape, options, total <= KEPT_BYTES)
        labels, classes, names = part.labels, listing.classes, part.names
        return Source(
            listing.name, split, labels, classes, shape, read, names=names, records=part.records
        )

    sources = {split: source(split, part) for split, part in listing.parts.items()}
    return Splits(sources["train"], sources.get("validation"), sources.get("test"), listing.skipped)


def _first_shape(records: Records, options: ReadOptions) -> Shape | None:
    """The shape of the first of a few images whose header can be read; None where none can, which
    `load` will name. Raises DataError where the only headers that can be read are of images of too
    many pixels."""
    too_large = None
    for k in range(min(HEADERS, len(records))):
        try:
            return fitted_shape((*upright_size(records.read(k), options.max_pixels), 3), options)
        except DataError as error:
            too_large = too_large or DataError(f"{records.where(k)}: {error}")
        except Exception:  # Pillow raises many kinds
            continue
    if too_large:
        raise too_large
    return None


def _common_shape(listing: Listing, options: ReadOptions) -> Shape:
    """The shape of all images, from a few headers of each part. Raises DataError where one cannot be
    read, or two differ and no `resize` makes them equal."""
    looked = [
        (part.records, int(k))
        for part in listing.parts.values()
        for k in np.unique(np.linspace(0, len(part) - 1, HEADERS).astype(int))
    ]
    shapes: Iterator[Shape] = spread(lambda place: _header(place, options), looked)
    first = next(shapes)
    for (records, k), shape in zip(looked[1:], shapes, strict=True):
        if shape != first:
            raise DataError(
                _differ(looked[0][0].where(looked[0][1]), first, records.where(k), shape)
            )
    return first


def _header(place: tuple[Records, int], options: ReadOptions) -> Shape:
    records, k = place
    try:
        size = upright_size(records.read(k), options.max_pixels)
    except Exception as error:  # Pillow raises many kinds
        raise DataError(_refusal(records.where(k), error)) from None
    return fitted_shape((*size, 3), options)


class Decoded:
    """Reads the records at some indices as pixels, by all threads. Raises DataError for one that is no
    image of this shape.

    kept: the pixels of each are decoded once. A copy in another process begins with none.
    """

    def __init__(self, records: Records, shape: Shape, options: ReadOptions, kept: bool):
        self.records, self.shape, self.options, self.kept = records, shape, options, kept
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._pixels: np.ndarray | None = None
        self._known = np.zeros(len(self.records) if self.kept else 0, bool)

    def __getstate__(self) -> tuple[Records, Shape, ReadOptions, bool]:
        return self.records, self.shape, self.options, self.kept

    def __setstate__(self, state: tuple[Records, Shape, ReadOptions, bool]) -> None:
        self.records, self.shape, self.options, self.kept = state
        self._begin()

    def __call__(self, at: np.ndarray) -> UInt8[np.ndarray, "b h w c"]:
        if not self.kept:
            distinct, places = np.unique(at, return_inverse=True)  # padding repeats an image
            return self._decoded(distinct)[places]
        pixels = self._memory()
        new = np.unique(at[~self._known[at]])
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            pixels[part] = self._decoded(part)
            self._known[part] = True  # after its pixels: another thread may be looking
        return pixels[at]

    def _memory(self) -> np.ndarray:
        with self._lock:
            if self._pixels is None:  # the system gives memory when it is first written to
                self._pixels = np.empty((len(self.records), *self.shape), np.uint8)
            return self._pixels

    def _decoded(self, at: np.ndarray) -> UInt8[np.ndarray, "b h w c"]:
        found = np.empty((len(at), *self.shape), np.uint8)
        # To hand a thread one small image at a time would take as long as to decode it.
        size = min(_TOGETHER // max(1, math.prod(self.shape)), len(at) // (2 * processors()))

        def some(start: int) -> None:
            for place in range(start, min(start + max(1, size), len(at))):
                found[place] = self.one(int(at[place]))

        for _ in spread(some, range(0, len(at), max(1, size))):
            pass
        return found

    def one(self, k: int) -> UInt8[np.ndarray, "h w c"]:
        """The pixels of record k."""
        content = self.records.read_or_refuse(k)
        try:
            pixels = decode(content, self.options)
        except Exception as error:
            raise DataError(_refusal(self.records.where(k), error)) from None
        if pixels.shape != self.shape:
            other = f"the first image of {self.records.where(0)}"
            raise DataError(_differ(other, self.shape, self.records.where(k), pixels.shape))
        return pixels


def _refusal(where: str, error: Exception) -> str:
    if isinstance(error, DataError):
        return f"{where}: {error}"
    return (
        f"{where}: cannot be decoded ({why_not(error)}); leave out what cannot be by the list that `sfumato data check "
        "DATA --out LIST` writes: --skip-unreadable LIST (skip_unreadable=); a run that began with it as a training "
        "image cannot go on without it: begin a new one"
    )


def _differ(one: str, shape: Sequence[int], other: str, another: Sequence[int]) -> str:
    return (
        f"images differ in size: {one} is {shape[1]}x{shape[0]} and {other} is {another[1]}x{another[0]}; give one "
        "size with --resize N (resize=N)"
    )
