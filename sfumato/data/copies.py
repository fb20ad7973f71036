"""Images that are there twice, which may surprise whoever trusts the promise or the accuracy.

The counts are exact facts of private images: for the person who owns them, at the terminal, and for
no file of a run.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from sfumato.data.source import CHUNK, Source

MOST_BYTES = 1 << 31
"""Larger sources are not looked through once more."""


@dataclass(frozen=True)
class Copies:
    """two_classes: training images of which a copy stands in another class. repeated: training
    images beyond the first of their kind, those of one unit not counted. shown: evaluation images
    that are training images, too.
    """

    two_classes: int = 0
    repeated: int = 0
    shown: int = 0

    def words(self) -> list[str]:
        """A sentence for each that is not 0."""
        told = [
            (
                self.two_classes,
                "training images have a copy of another label; mend their labels or take them out",
            ),
            (
                self.repeated,
                "training images are copies of others: the promise is about one image, and its copies stay; take "
                "them out, or make them one --unit",
            ),
            (
                self.shown,
                "evaluation images are training images too, so the accuracy flatters; take them out",
            ),
        ]
        return [f"{count:,} {text}" for count, text in told if count]


def copies_in(train: Source, held_out: Source | None) -> list[str]:
    """What `find_copies` finds, in words."""
    return find_copies(train, held_out).words()


def find_copies(train: Source, held_out: Source | None) -> Copies:
    """Equal byte for byte of their files, or pixel for pixel (number for number, of rows) where there
    are no files."""
    sources = [source for source in (train, held_out) if source is not None]
    if sum(_bytes(source) for source in sources) > MOST_BYTES:
        return Copies()
    parts = [_digests(source) for source in sources]
    _, kinds = np.unique(np.concatenate(parts), return_inverse=True)  # equal images, equal numbers
    kind, shown = kinds[: len(train)], kinds[len(train) :]
    own = np.unique(train.labels, axis=0, return_inverse=True)[1].ravel()
    labels = _distinct(kind, own)
    owner = np.arange(len(kind)) if train.owners is None else train.owners
    distinct = len(np.unique(kind))
    return Copies(
        two_classes=int((np.bincount(labels)[kind] > 1).sum()),
        repeated=len(_distinct(kind, np.unique(owner, return_inverse=True)[1])) - distinct,
        shown=int(np.isin(shown, kind).sum()),
    )


def _distinct(kind: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The kind of each distinct pair of a kind and another number."""
    return np.unique(kind.astype(np.int64) * (int(other.max()) + 1) + other) // (
        int(other.max()) + 1
    )


def _bytes(source: Source) -> int:
    """That would have to be looked through: none of records, whose digests are known once they were
    fingerprinted."""
    if source.records is not None:
        return 0
    return len(source) * math.prod(source.shape) * (source.raw([0]).itemsize if len(source) else 0)


def _digests(source: Source) -> Shaped[np.ndarray, " n"]:
    """16 bytes of each image, as one thing that can be sorted."""
    if source.records is not None:
        return np.ascontiguousarray(source.records.digests[:, :16]).view("V16")[:, 0]
    found = b"".join(
        hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        for start in range(0, len(source), CHUNK)
        for image in source.raw(np.arange(start, min(start + CHUNK, len(source))))
    )
    return np.frombuffer(found, "V16")
