"""Parquet through pyarrow, which is imported only here and in `arrow_files.py`: columns of words, and images in
columns of bytes.

Hugging Face writes images as `image: {bytes, path}` and the names of classes into the schema's
metadata. A file is read a group of rows at a time, the least that Parquet knows: whoever draws
images at random reads a group for each. A few groups are kept, no more than so many bytes; `sfumato
data pack` makes files for reading at random.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.archive import GROWTH, most
from sfumato.core.errors import DataError, said
from sfumato.core.files import parse_json

KEPT_BYTES = 1 << 28
LARGEST_GROUP = 1 << 31


def pyarrow(path: Path) -> Any:
    """The library. Raises DataError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet and Arrow needs pyarrow; pip install 'sfumato[records]'"
        ) from None
    return pyarrow


def opened(path: Path, dictionaries: Sequence[str] = ()) -> Any:
    """A file's `ParquetFile`. dictionaries: columns whose equal values are kept once, so that a few
    bytes cannot become many. Raises DataError."""
    arrow = pyarrow(path)
    try:
        return arrow.parquet.ParquetFile(path, read_dictionary=list(dictionaries))
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({said(error)}); fetch it again") from None


def schema(path: Path) -> Any:
    """The columns that it says it has. Raises DataError."""
    with opened(path) as file:
        return file.schema_arrow


def words(path: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of plain values, None where there is none. Raises DataError."""
    arrow = pyarrow(path)
    with opened(path, wanted) as file:
        rows = file.metadata.num_rows
        if rows * len(wanted) * 8 > most(path):
            raise DataError(
                f"{path}: {rows} rows are more than {GROWTH} times its size can hold; write it again"
            )
        try:
            table = file.read(columns=list(wanted))
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{path}: cannot be read as Parquet ({said(error)}); fetch it again"
            ) from None
    return {name: plain(table.column(name)) for name in wanted}


def plain(column: Any) -> list[Any]:
    """A column's values; equal ones of a dictionary are one object."""
    found: list[Any] = []
    for chunk in column.chunks:
        if hasattr(chunk, "dictionary"):
            values = chunk.dictionary.to_pylist()
            found += [None if k is None else values[k] for k in chunk.indices.to_pylist()]
        else:
            found += chunk.to_pylist()
    return found


def class_names(found: Any, label: str) -> list[str] | None:
    """The names of the classes that Hugging Face's metadata of a schema give a column."""
    try:
        told = parse_json((found.metadata or {}).get(b"huggingface", b"{}"))
        names = told["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    ok = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if ok and names and len(set(names)) == len(names) else None


def image_columns(found: Any) -> list[str]:
    """The columns of a schema that hold bytes, or a struct with bytes in it."""
    return [field.name for field in found if bytes_of(found, field.name) is not None]


def bytes_of(found: Any, column: str) -> str | None:
    """The path of the column's bytes in the file, `image.bytes` or `image`; None if it has none."""
    kind = found.field(column).type
    if str(kind) in ("binary", "large_binary"):
        return column
    fields = [kind.field(k).name for k in range(kind.num_fields)] if str(kind).startswith("struct") else []
    return f"{column}.bytes" if "bytes" in fields else None


def path_of(found: Any, column: str) -> str | None:
    """The path of the names beside the bytes, `image.path`."""
    kind = found.field(column).type
    fields = [kind.field(k).name for k in range(kind.num_fields)] if str(kind).startswith("struct") else []
    return f"{column}.path" if "path" in fields else None


class Groups:
    """The bytes of a column of several files, by group of rows; safe for threads, and picklable."""

    def __init__(self, paths: Sequence[Path], column: str):
        self.paths, self.column = tuple(paths), column
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._files: dict[int, Any] = {}

    def __getstate__(self) -> tuple[tuple[Path, ...], str]:
        return self.paths, self.column

    def __setstate__(self, state: tuple[tuple[Path, ...], str]) -> None:
        self.paths, self.column = state
        self._begin()

    def read(self, file: int, group: int, row: int) -> bytes:
        """Raises ValueError where there are no bytes."""
        with self._lock:  # one group at a time: each may be hundreds of megabytes
            values = self._group(file, group)
        found = values[row].as_py()
        if not found:
            raise ValueError("has no bytes")
        return found

    def _group(self, file: int, group: int) -> Any:
        key = file, group
        if key not in self._kept:
            if file not in self._files:
                self._files[file] = opened(self.paths[file], [self.column])
            table = self._files[file].read_row_group(group, columns=[self.column])
            self._kept[key] = _leaf(table.column(0), self.column)
            while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _leaf(column: Any, path: str) -> Any:
    """The column's bytes as one chunked array."""
    for _ in path.split(".")[1:]:
        column = pyarrow(Path()).chunked_array([chunk.field("bytes") for chunk in column.chunks])
    return column
