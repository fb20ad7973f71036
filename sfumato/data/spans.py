"""Records that are stretches of bytes in larger files: of tar shards, of TFRecords.

An index (file, offset, length) is made once; then every record is one `pread`, from any thread or
process, in any order.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64


@dataclass(frozen=True, eq=False)
class Index:
    """file: which of the paths record k lies in. offset, length: where, in bytes."""

    paths: tuple[Path, ...]
    file: Int32[np.ndarray, " n"]
    offset: Int64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, paths: Sequence[Path], rows: Sequence[tuple[int, int, int]]) -> "Index":
        table = np.array(rows, np.int64).reshape(-1, 3)
        return cls(tuple(paths), table[:, 0].astype(np.int32), table[:, 1], table[:, 2])

    def read(self, k: int) -> bytes:
        """Raises OSError where the file ends before the record does."""
        path, length = self.paths[self.file[k]], int(self.length[k])
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.pread(handle, length, int(self.offset[k]))
        finally:
            os.close(handle)
        if len(content) != length:
            raise OSError("ends early: the file was cut short or changed since it was listed")
        return content
