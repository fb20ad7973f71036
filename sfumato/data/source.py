"""A `Source`: one split of labeled images, addressable by index, wherever the bytes lie.

Shape letters: `n` images in the split, `b` images asked for, `h` `w` `c` height, width and channels
of each.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped

from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.tasks import SINGLE, Task, task_of
from sfumato.data.decode import decoder_name
from sfumato.data.findings import is_matrix, matrix
from sfumato.data.labels import encode, names_of, vector
from sfumato.data.records import Records

Read = Callable[[np.ndarray], np.ndarray]  # indices (b,) -> images (b, h, w, c) as stored
CHUNK = 1024  # images held at once while looking at all of them


@dataclass(frozen=True, eq=False)
class Source:
    """One split. Images are stored as uint8, or as floats that are meant to lie in [0, 1]. labels: numbers
    of classes, or a matrix of findings: 1, 0, -1 for unknown; class_names are then those of its columns.
    """

    name: str
    split: str  # "train" | "validation" | "test"
    labels: Int32[np.ndarray, "n ..."]
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # h, w, c of every image
    read: Read
    rows: np.ndarray | None = (
        None  # where the examples are rows of features: the matrix itself, perhaps mapped
    )
    owners: np.ndarray | None = (
        None  # where units have several images: the name of the unit of each image (see `units.py`)
    )
    names: Any = None  # of each image (an array or a `NameColumn`), stable when others come or go; None: its position
    records: Records | None = None  # the encoded bytes of each image, where `read` decodes them

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def task(self) -> Task:
        return task_of(self.labels)

    @property
    def examples(self) -> int:
        """How many there are of what the guarantee is about: units, or images where each is its
        own."""
        return len(self) if self.owners is None else len(set(self.owners.tolist()))

    def raw(self, indices: Any) -> Shaped[np.ndarray, "b h w c"]:
        """The images at `indices` (integers or a boolean mask), as stored. Raises ArgumentError
        outside the split."""
        return self.read(_as_indices(indices, len(self)))

    def images(self, indices: Any) -> Float32[np.ndarray, "b h w c"]:
        """The images at `indices`: uint8 is divided by 255, floats pass as they are (NaN stays
        NaN)."""
        raw = self.raw(indices)
        pixels = raw.astype(np.float32)
        return pixels / np.float32(255) if raw.dtype == np.uint8 else pixels

    def __getitem__(
        self, indices: Any
    ) -> tuple[Float32[np.ndarray, "b h w c"], Int32[np.ndarray, "b ..."]]:
        """(images, labels) at `indices`, so that a source is data for a method (`data.Data`)."""
        return self.images(indices), self.labels[_as_indices(indices, len(self))]

    def subset(self, indices: Any, split: str) -> "Source":
        """The images at `indices`, in that order, as a split of their own. No pixel is copied."""
        chosen = _as_indices(indices, len(self))
        if np.array_equal(chosen, np.arange(len(self))):
            return replace(self, split=split)
        owners, names = (
            None if each is None else each[chosen] for each in (self.owners, self.names)
        )
        return Source(
            self.name,
            split,
            self.labels[chosen],
            self.class_names,
            self.shape,
            _Subset(self.read, chosen),
            owners=owners,
            names=names,
            records=None if self.records is None else self.records.subset(chosen),
        )

    @property
    def is_bytes(self) -> bool:
        """Whether images are stored as uint8. Nothing is decoded to know it."""
        return self.records is not None or not len(self) or self.raw([0]).dtype == np.uint8

    def fingerprint(self, mac: Callable[[bytes], str]) -> str:
        """`mac` of a digest over everything a model could learn from: classes, shape, labels, units,
        and the encoded bytes of each record and what decodes them, or pixels where there are no records.

        The digest itself is never shown: without a key, anyone who guesses the data could confirm
        the guess.
        """
        digest = self._facts()
        if self.records is not None:
            digest.update(decoder_name().encode() + self.records.digests.tobytes())
            return mac(digest.digest())
        for start in range(0, len(self), CHUNK):
            pixels = self.raw(np.arange(start, min(start + CHUNK, len(self))))
            digest.update(pixels.dtype.str.encode() + np.ascontiguousarray(pixels).tobytes())
        return mac(digest.digest())

    def stamp(self, mac: Callable[[bytes], str]) -> str | None:
        """As `fingerprint`, but over the records' stamp, which is found without reading them: where it
        is what it was, so is the fingerprint. None where there are no records."""
        if self.records is None:
            return None
        digest = self._facts()
        digest.update(decoder_name().encode() + self.records.stamp())
        return mac(digest.digest())

    @property
    def decoder(self) -> str | None:
        """What makes pixels of the records' bytes; None where there are none."""
        return None if self.records is None else decoder_name()

    def _facts(self) -> Any:
        """Of all but the images themselves."""
        digest = hashlib.sha256()
        _add_names(digest, self.class_names)
        digest.update(repr((len(self), self.shape)).encode())
        if not self.task.exclusive:
            digest.update(self.task.name.encode())
        digest.update(np.ascontiguousarray(self.labels.astype("<i4")).tobytes())
        if self.owners is not None:
            _add_names(digest, self.owners.tolist())
        return digest

    def __repr__(self) -> str:
        h, w, c = self.shape
        return f"Source({self.name!r}, {self.split!r}, {len(self)} x {h}x{w}x{c}, {len(self.class_names)} {self.task.many})"


@dataclass(frozen=True, eq=False)
class _Subset:
    """Reads some of what another reads."""

    read: Read
    chosen: np.ndarray

    def __call__(self, at: np.ndarray) -> np.ndarray:
        return self.read(self.chosen[at])


@dataclass(frozen=True)
class Splits:
    """What `open` returns. `skipped` names the unreadable files that were left out, if that was
    asked for. `left_out` counts the files that no image format is known for, by their ending.
    """

    train: Source
    validation: Source | None
    test: Source | None
    skipped: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def evaluated(self, validation: float) -> Source | None:
        """What a run is evaluated on. validation: the share that was asked for. Where that is 0,
        the test images; if there are none, the data set's own validation images.
        """
        return self.validation if validation > 0 or self.test is None else self.test


@dataclass(frozen=True)
class DataInfo:
    """What may be known of a data set before any privacy is spent, found without decoding an image.

    These facts (sizes, class names, image shape) are treated as public; the report says so.
    """

    name: str
    path: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int] | None  # None where the first file's header cannot be read
    counts: dict[
        str, int
    ]  # images: {"train": n, "validation": k, "test": m}; a split that is absent has no entry
    unit: str = "image"
    units: int | None = None  # of the training split, where units have several images
    images_per_unit: int | None = None  # how many of a unit's images are used at most
    by_position: bool = False  # who is held out, or used at all, goes by where an example stands
    left_out: dict[str, int] = field(
        default_factory=dict
    )  # files that are not read, by their ending
    task: Task = SINGLE  # whether `classes` are names of findings

    @property
    def examples(self) -> int:
        """n: how many the training split has of what the guarantee is about."""
        return self.counts.get("train", 0) if self.units is None else self.units


def from_arrays(
    images: Any,
    labels: Any,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    split: str = "train",
) -> Source:
    """A source over arrays in memory.

    `images`: (n, h, w) or (n, h, w, c) with c = 1 or 3; uint8, or floats meant to lie in [0, 1].
    `labels`: (n,) or (n, 1) whole numbers or strings; the classes are the sorted distinct ones.
    With `class_names`, numbers are places in that list, and strings are among its names. Several
    findings an image: (n, L), L >= 2, of 1, 0, and -1 or NaN where one is unknown; `class_names` are
    then theirs. Raises DataError, ArgumentError.
    """
    pixels = _as_images(images)
    indices, names = _as_labels(labels, class_names)
    if len(indices) != len(pixels):
        raise DataError(
            f"labels: {len(indices)} labels for {len(pixels)} images; give exactly one label per image"
        )
    if len(pixels) == 0:
        raise DataError("images: there are none (n=0); give at least one image per class")
    if len(names) < 2:
        raise DataError(
            f"labels: only one class ({names[0]!r}); a classifier needs images of two classes or more"
        )
    h, w, c = (int(size) for size in pixels.shape[1:])
    return Source(name, split, indices, names, (h, w, c), lambda at: pixels[at])


def not_finite(rows: Shaped[np.ndarray, "n ..."]) -> Bool[np.ndarray, " n"]:
    """Which rows (or images) hold a NaN or an infinity, or a number that is one in float32, in
    which everything is computed."""
    if rows.dtype.kind != "f":
        return np.zeros(len(rows), bool)
    chunks = (rows[k : k + CHUNK] for k in range(0, len(rows), CHUNK))
    with np.errstate(over="ignore"):
        parts = [np.isfinite(_narrowed(part)).reshape(len(part), -1).all(1) for part in chunks]
    return ~np.concatenate(parts) if parts else np.zeros(0, bool)


def _narrowed(part: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    return part.astype(np.float32) if part.dtype.itemsize > np.dtype(np.float32).itemsize else part


def warn_if_not_finite(rows: Shaped[np.ndarray, "n ..."], what: str) -> None:
    """Before a prediction: nothing can be said of such rows."""
    if spoiled := int(not_finite(rows).sum()):
        warnings.warn(
            f"{spoiled} of {len(rows)} {what} hold NaN or infinity: their predictions are meaningless",
            stacklevel=4,
        )


def _add_names(digest: Any, names: Sequence[str]) -> None:
    """Length-prefixed, so ("ab", "c") and ("a", "bc") differ."""
    for name in names:
        encoded = name.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)


def _as_indices(indices: Any, n: int) -> np.ndarray:
    at = np.asarray(indices)
    if at.dtype == bool and at.shape == (n,):
        return np.flatnonzero(at)
    if at.size == 0:
        return np.zeros(0, np.int64)
    if at.ndim != 1 or at.dtype.kind not in "iu":
        raise ArgumentError(
            "indices", f"{at.dtype}{list(at.shape)}", f"give a list of integers, or a mask of {n}"
        )
    if at.min() < 0 or at.max() >= n:
        wrong = int(at.min() if at.min() < 0 else at.max())
        raise ArgumentError("indices", wrong, f"this split has images 0 to {n - 1}")
    return at.astype(np.int64)


def _as_images(images: Any) -> np.ndarray:
    pixels = one_array(images)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or 0 in pixels.shape[1:]:
        raise ArgumentError(
            "images", f"shape {np.shape(images)}", "give (n, h, w), or (n, h, w, c) with c = 1 or 3"
        )
    check_pixels(pixels)
    return pixels


def one_array(images: Any) -> np.ndarray:
    """Raises ArgumentError for a list of images of several sizes."""
    try:
        return np.asarray(images)
    except ValueError:
        raise ArgumentError(
            "images", "a list of several shapes", "bring all to one height and width"
        ) from None


def check_pixels(pixels: np.ndarray) -> None:
    """Raises ArgumentError unless they are uint8, or floats of at most 1; warns of those far below 0."""
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise ArgumentError(
            "images", f"dtype {pixels.dtype}", "convert to uint8 (0 to 255) or to floats in [0, 1]"
        )
    if pixels.dtype.kind != "f" or not pixels.size:
        return
    if (most := _wild(pixels, pixels > 1.5)) is not None:
        raise ArgumentError(
            "images", f"floats up to {most.max():.4g}", "divide by 255, or give uint8"
        )
    if (most := _wild(pixels, pixels < -0.5)) is not None:
        warnings.warn(
            f"images: floats down to {most.min():.4g}, where features and networks expect [0, 1]; bring them there, from "
            "[-1, 1] by (x + 1) / 2, before the fit and before every prediction alike",
            stacklevel=4,
        )


def _wild(pixels: np.ndarray, wild: np.ndarray) -> np.ndarray | None:
    """Those that are, where they are more than a few: these are one example's own affair, and so is
    infinity (`finite.py`)."""
    if np.mean(wild) <= 0.01:
        return None
    found = pixels[wild & np.isfinite(pixels)]
    return found if len(found) > 0.01 * pixels.size else None


def scaled(pixels: np.ndarray) -> Float32[np.ndarray, "..."]:
    """uint8 divided by 255, floats as they are. Raises ArgumentError as `check_pixels` does."""
    check_pixels(pixels)
    return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def _as_labels(
    labels: Any, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    if class_names is None and is_matrix(labels):
        return matrix(labels), tuple(map(str, range(labels.shape[1])))
    if class_names is None:
        classes, indices = encode(labels)
        return indices, names_of(classes)
    names = tuple(str(name) for name in class_names)
    if is_matrix(labels):
        found = matrix(labels)
        if found.shape[1] != len(names) or len(set(names)) != len(names):
            raise ArgumentError("class_names", names, f"name {found.shape[1]} findings, each once")
        return found, names
    if not names or len(set(names)) != len(names):
        raise ArgumentError("class_names", names, "give every class once")
    given = vector(labels, "labels")
    if given.dtype.kind == "U":
        return encode(given, classes=names, known="the class names")[1], names
    low, high = (int(given.min()), int(given.max())) if given.size else (0, 0)
    if low < 0 or high >= len(names):
        raise ArgumentError(
            "labels",
            low if low < 0 else high,
            f"class indices run from 0 to {len(names) - 1}; leave class_names out for other codes",
        )
    return given.astype(np.int32), names
