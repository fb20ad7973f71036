"""Encoded images, addressable at random, wherever their bytes lie: the part of a data set that a
format must bring. Nothing here decodes.
"""

import hashlib
import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from sfumato.core.errors import DataError
from sfumato.data.name_column import NameColumn
from sfumato.data.workers import spread

MOST_BYTES = 1 << 29
"""A larger file is no image."""
_TOGETHER = 256  # records a thread takes at once for their digests
_LINE = b"%b %d %d %d %d %d\n"


class Records(ABC):
    """n encoded images. Safe to read from many threads at once, and picklable (so that other
    processes can open the same)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, k: int) -> bytes:
        """The encoded bytes of record k. Raises OSError where they cannot be had (now), DataError where
        they never will."""

    @abstractmethod
    def where(self, k: int) -> str:
        """File and record, for messages."""

    @abstractmethod
    def stamp(self) -> bytes:
        """A short text that is another one when a record is, found without reading the records: paths,
        sizes and times of files, the manifest of a packed set. If it is as it was when a run began,
        the run goes on without reading everything again; if it differs, nothing follows.
        """

    def digest(self, k: int) -> bytes:
        """SHA-256 of record k's encoded bytes. A packed set may have it in a table that was written
        with its records."""
        return hashlib.sha256(self.read(k)).digest()

    @cached_property
    def digests(self) -> UInt8[np.ndarray, "n 32"]:
        """Of all records, by all threads; kept. Raises DataError for one that cannot be read."""

        def some(start: int) -> bytes:
            found = []
            for k in range(start, min(start + _TOGETHER, len(self))):
                with self.named(k):
                    found.append(self.digest(k))
            return b"".join(found)

        found = b"".join(spread(some, range(0, len(self), _TOGETHER)))
        return np.frombuffer(found, np.uint8).reshape(len(self), 32)

    @contextmanager
    def named(self, k: int) -> Iterator[None]:
        """What is raised inside of record k is a DataError that says which it is."""
        try:
            yield
        except OSError as error:  # there when the data set was listed, not now
            raise DataError(gone(self.where(k), error)) from None
        except DataError as error:
            raise DataError(f"{self.where(k)}: {error}") from None

    def read_or_refuse(self, k: int) -> bytes:
        """As `read`; all that goes wrong is a DataError that says which record it is."""
        with self.named(k):
            return self.read(k)

    def subset(self, indices: Int64[np.ndarray, " m"]) -> "Records":
        """The records at `indices`, in that order."""
        return Chosen(self, indices)


class Chosen(Records):
    """Some records of others."""

    def __init__(self, base: Records, at: Int64[np.ndarray, " m"]):
        self.base, self.at = base, at

    def __len__(self) -> int:
        return len(self.at)

    def read(self, k: int) -> bytes:
        return self.base.read(int(self.at[k]))

    def where(self, k: int) -> str:
        return self.base.where(int(self.at[k]))

    def digest(self, k: int) -> bytes:
        return self.base.digest(int(self.at[k]))

    def stamp(self) -> bytes:
        return hashlib.sha256(self.base.stamp() + self.at.astype("<i8").tobytes()).digest()

    def subset(self, indices: Int64[np.ndarray, " m"]) -> Records:
        return Chosen(self.base, self.at[indices])


class FileRecords(Records):
    """A file for each image. paths: below `root`."""

    def __init__(self, root: Path, paths: NameColumn):
        self.root, self.paths = root, paths

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, k: int) -> bytes:
        return read_file(os.path.join(self.root, self.paths[k]))

    def where(self, k: int) -> str:
        return str(self.root / self.paths[k])

    def stamp(self) -> bytes:
        """Of each file its path, size, times and place on the disk: who writes into it, or puts another
        in its place, changes one of them."""

        def some(start: int) -> bytes:
            paths = self.paths[start : start + 16 * _TOGETHER].encoded()
            return hashlib.sha256(b"".join(_facts(os.fsencode(self.root), paths))).digest()

        parts = spread(some, range(0, len(self), 16 * _TOGETHER))
        return hashlib.sha256(b"".join(parts)).digest()


def _facts(root: bytes, paths: Iterable[bytes]) -> Iterator[bytes]:
    """A line for each file. A folder is looked up once for the files of it that follow each other: half
    of the time of a stat is spent on the way there. Raises DataError."""
    for folder, inside in groupby(paths, lambda path: path[: path.rfind(b"/") + 1]):
        place, name = os.path.join(root, folder), b""  # a table may name a path from the root
        try:
            handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for path in inside:
                    name = path[len(folder) :]
                    found = os.stat(name, dir_fd=handle)
                    yield _LINE % (
                        path,
                        found.st_size,
                        found.st_mtime_ns,
                        found.st_ctime_ns,
                        found.st_ino,
                        found.st_dev,
                    )
            finally:
                os.close(handle)
        except OSError as error:
            raise DataError(gone(os.fsdecode(os.path.join(place, name)), error)) from None


def read_file(path: Path | str) -> bytes:
    """All bytes of a regular file: a pipe would block for ever, a device never end. Raises OSError,
    DataError."""
    with io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > MOST_BYTES:
            raise DataError(f"{found.st_size:,} bytes, too many for an image; store it smaller")
        return file.readall()


def gone(where: str, error: OSError) -> str:
    """For an image that was listed and cannot be read."""
    return f"{where}: can no longer be read ({error.strerror or error}); restore it; what has begun can then be resumed"
