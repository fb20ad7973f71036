"""Parquet files with the bytes of images, as Hugging Face writes them -> `Listing`.

A file is read a group of rows at a time, the least that Parquet knows: whoever draws images at
random reads a group for each. A few groups are kept, up to so many bytes. `sfumato data pack` makes
files that can be read at random.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.errors import DataError, data_error
from sfumato.data.formats.columns import find, need
from sfumato.data.formats.found import Found, Naming, listing_of, own_names, usual_split
from sfumato.data.formats.parquet_files import (
    AT_ONCE,
    bytes_of,
    class_names,
    holds_images,
    image_columns,
    leaf,
    opened,
    path_of,
    pyarrow,
    schema,
    words,
)
from sfumato.data.formats.shards import by_split, find_shards
from sfumato.data.formats.spans import ColumnRecords
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions

KEPT_BYTES = 1 << 28
LARGEST_GROUP = 1 << 30


def _matches(name: str) -> bool:
    return name.lower().endswith(".parquet")


def is_parquet(path: Path) -> bool:
    shards = find_shards(path, _matches)
    return bool(shards) and holds_images(shards[0])


def list_parquet(path: Path, options: ReadOptions) -> Listing:
    """The images of a .parquet or of a folder of them. Raises DataError, ArgumentError."""
    shards = by_split(path, find_shards(path, _matches))
    known = schema(shards["train"][0])
    naming, parts = found_in(path, known, shards, options, _columns, ParquetRecords)
    return listing_of(path, parts, naming, options, name=path.stem if path.is_file() else "")


def found_in(
    path: Path,
    known: Any,
    shards: dict[str, list[Path]],
    options: ReadOptions,
    read: Any,
    records: Any,
) -> tuple[Naming, dict[str, Found]]:
    """What the files of each split hold. known: the schema that all of them have; read: (paths, columns)
    -> their values; records: (paths, counts, path of the bytes) -> `Records`.
    """
    image = need("image", image_columns(known), options.path, str(path))
    label = need("label", known.names, options.label, str(path))
    split = find("split", known.names, options.split, str(path))
    inner = {"bytes": bytes_of(known, image), "path": path_of(known, image)}
    name = inner["path"] or find("name", known.names, None, str(path))
    unit = options.unit if options.unit in known.names else None
    wanted = [each for each in dict.fromkeys((label, split, name, unit)) if each is not None]
    parts = {}
    for each, paths in shards.items():
        columns, counts = read(paths, wanted)
        names = columns.get(name or "")
        parts[each] = _found(records(paths, counts, inner["bytes"]), columns, names, known.names)
    return Naming(
        label, usual_split(parts, options.split, str(path)), class_names(known, label)
    ), parts


def _found(
    records: ColumnRecords,
    columns: dict[str, list[Any]],
    names: list[Any] | None,
    held: Sequence[str],
) -> Found:
    return Found(
        records,
        columns,
        names if own_names(names) else None,
        lambda k, name: f"{records.where(k)}, column {name!r}",
        held,
    )


def _columns(
    paths: Sequence[Path], wanted: Sequence[str]
) -> tuple[dict[str, list[Any]], list[int]]:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    counts: list[int] = []
    for path in paths:
        for name, values in words(path, wanted).items():
            columns[name] += values
        counts.append(len(columns[wanted[0]]) - sum(counts))
    return columns, counts


class ParquetRecords(ColumnRecords):
    """Rows of files, a group of them at a time."""

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._files: dict[int, tuple[Any, np.ndarray]] = {}

    def read(self, k: int) -> bytes:
        file, row = self.place(k)
        kinds = (pyarrow(self.paths[file]).ArrowException, OSError, ValueError)
        # one group at a time: each may be hundreds of megabytes
        with self._lock, data_error("cannot be read", "fetch the file again", kinds):
            value = self._value(file, row)
        if not value:
            raise DataError("has no bytes; remove the row, or give the table with its image files")
        return value

    def _value(self, file: int, row: int) -> bytes | None:
        if file not in self._files:
            found = opened(self.paths[file])
            meta = found.metadata
            rows = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
            self._files[file] = found, np.cumsum(rows)
        ends = self._files[file][1]
        group = int(np.searchsorted(ends, row, side="right"))
        row -= int(ends[group - 1]) if group else 0
        for values in self._group(file, group):
            if row < len(values):
                return values[row].as_py()
            row -= len(values)
        raise ValueError("the file has fewer rows than when it was listed")

    def _group(self, file: int, group: int) -> list[Any]:
        key = file, group
        if key not in self._kept:
            found = self._files[file][0]
            self._kept[key] = self._batches(found, group)
            while (
                len(self._kept) > 1
                and sum(_nbytes(part) for each in self._kept.values() for part in each) > KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _batches(self, found: Any, group: int) -> list[Any]:
        """The bytes of a group, some rows at a time. Raises DataError for more of them than is sane: a
        few bytes on the disk may stand for a value that is repeated without end."""
        parts = []
        for batch in found.iter_batches(AT_ONCE, row_groups=[group], columns=[self.column]):
            parts.append(leaf(batch.column(0), self.column))
            if sum(map(_nbytes, parts)) > LARGEST_GROUP:
                raise DataError(
                    f"its group of rows holds more than {LARGEST_GROUP:,} bytes; write the file with row_group_size=100"
                )
        return parts


def _nbytes(values: Any) -> int:
    return values.nbytes
