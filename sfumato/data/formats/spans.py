"""Records that are stretches of bytes in larger files: in tar shards, in TFRecords. And what all
records in shards have in common.

An index (file, offset, length) is made once; then every record is one `pread`, from any thread or
process, in any order.
"""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.errors import DataError
from sfumato.data.name_column import NameColumn
from sfumato.data.records import MOST_BYTES, FileRecords, Records


class ShardRecords(Records):
    """Records 0, 1, ... of several files, one file after the other. counts: how many each has."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]):
        self.paths = tuple(path.absolute() for path in paths)
        self.ends = np.cumsum(counts, dtype=np.int64)
        self._begin()

    def _begin(self) -> None:
        """Sets what a copy in another process begins anew, as locks and open files: attributes whose
        names begin with _."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def place(self, k: int) -> tuple[int, int]:
        """The file that record k lies in, and its number there."""
        if not 0 <= k < len(self):
            raise IndexError(k)
        file = int(np.searchsorted(self.ends, k, side="right"))
        return file, k - (int(self.ends[file - 1]) if file else 0)

    def where(self, k: int) -> str:
        file, number = self.place(k)
        return f"{self.paths[file]}: record {number}"

    def stamp(self) -> bytes:
        return FileRecords(Path("/"), NameColumn.of(map(str, self.paths))).stamp()

    @abstractmethod
    def read(self, k: int) -> bytes: ...


class ColumnRecords(ShardRecords):
    """column: where the bytes of an image are in each file, `image.bytes`."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], column: str):
        super().__init__(paths, counts)
        self.column = column


class SpanRecords(ShardRecords):
    """spans: (n, 2), offset and length of each record in its file."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], spans: np.ndarray):
        super().__init__(paths, counts)
        self.spans = spans

    def read(self, k: int) -> bytes:
        path, (offset, length) = self.paths[self.place(k)[0]], self.spans[k].tolist()
        if length > MOST_BYTES:
            raise DataError(f"{length:,} bytes, too many for an image; store it smaller")
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(handle, length, offset)
        finally:
            os.close(handle)
        if len(content) != length:
            raise OSError("the file ends before this record: it was changed after it was listed")
        return content
