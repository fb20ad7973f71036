"""Images that are there twice, which may surprise whoever trusts the promise or the accuracy.

The counts are exact facts of private images: for the person who owns them, at the terminal, and for
no file of a run.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sfumato.data.source import CHUNK, Source

MOST_BYTES = 1 << 31
"""Larger sources are not looked through: to decode all images once more could take hours."""


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
                "training images have a copy in another class; mend their labels or take them out",
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
    """Equal pixel for pixel (or number for number, of rows)."""
    if sum(_bytes(source) for source in (train, held_out) if source is not None) > MOST_BYTES:
        return Copies()
    digests = list(_digests(train))
    labels: dict[bytes, set[int]] = {}
    for digest, label in zip(digests, train.labels.tolist(), strict=True):
        labels.setdefault(digest, set()).add(label)
    owners = range(len(digests)) if train.owners is None else train.owners.tolist()
    distinct = set(zip(digests, owners, strict=True))
    return Copies(
        two_classes=sum(len(labels[digest]) > 1 for digest in digests),
        repeated=len(distinct) - len(labels),
        shown=0 if held_out is None else sum(digest in labels for digest in _digests(held_out)),
    )


def _bytes(source: Source) -> int:
    """Of all its images, as stored."""
    return len(source) * math.prod(source.shape) * (source.raw([0]).itemsize if len(source) else 0)


def _digests(source: Source) -> Iterator[bytes]:
    for start in range(0, len(source), CHUNK):
        for image in source.raw(np.arange(start, min(start + CHUNK, len(source)))):
            yield hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
