"""ArrayRecord files of `tf.train.Example` -> `Listing`, through the package array_record (the extra
`sfumato[records]`). Its records are read at random; to list files of others, each is read once.
"""

import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError, data_error
from sfumato.data.formats import examples
from sfumato.data.formats.example_columns import Columns, listing_of_examples
from sfumato.data.formats.shards import by_split, find_shards
from sfumato.data.formats.spans import ColumnRecords
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions

ENDING = ".arrayrecord"
_NAME = re.compile(r"\.array_?record(-\d+-of-\d+)?$", re.IGNORECASE)
_OPEN = 100  # files at once
_AT_ONCE = 256  # records that are read at once to list them
_RANDOM = "readahead_buffer_size:0,max_parallelism:0"


def module(where: str) -> Any:
    """The package. Raises DataError."""
    try:
        from array_record.python import array_record_module
    except ImportError:
        raise DataError(f"{where}: needs array_record; pip install 'sfumato[records]'") from None
    return array_record_module


def opened(path: Path, options: str = "") -> Any:
    """A reader. Raises DataError."""
    library = module(str(path))
    with data_error(
        f"{path}: cannot be read as ArrayRecord",
        "write it again, or fetch it again",
        (OSError, ValueError, RuntimeError),
    ):
        if not path.is_file():
            raise OSError("there is no such file")
        reader = library.ArrayRecordReader(str(path), options)
        if not reader.ok():
            raise ValueError("the end of the file is missing or damaged")
        return reader


def is_array_record(path: Path) -> bool:
    return bool(find_shards(path, _matches))


def _matches(name: str) -> bool:
    return _NAME.search(name) is not None


def list_array_record(path: Path, options: ReadOptions) -> Listing:
    """The records of an ArrayRecord file or of a folder of them. Raises DataError, ArgumentError."""
    parts, keys = {}, None
    for split, paths in by_split(path, find_shards(path, _matches)).items():
        columns = Columns(path, options, keys)
        counts = [_indexed(each, columns) for each in paths]
        keys = columns.keys
        records = ArrayRecords(paths, counts, "" if keys is None else keys.image)
        parts[split] = columns.found(records)
    return listing_of_examples(path, parts, keys, options)


def _indexed(path: Path, columns: Columns) -> int:
    reader = opened(path)
    count = reader.num_records()
    for start in range(0, count, _AT_ONCE):
        with data_error(
            f"{path}: record {start} or one soon after it cannot be read",
            kinds=(RuntimeError, ValueError, IndexError),
        ):
            found = reader.read(start, min(start + _AT_ONCE, count))
        for k, content in enumerate(found, start):
            columns.add(f"{path}: record {k}", content)
    return count


class ArrayRecords(ColumnRecords):
    """Examples whose feature `column` holds the encoded bytes."""

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, Any] = OrderedDict()

    def read(self, k: int) -> bytes:
        file, number = self.place(k)
        with data_error(
            "cannot be read",
            "write the file again",
            (RuntimeError, ValueError, LookupError, TypeError),
        ):
            (content,) = self._reader(file).read([number])
            (span,) = examples.parse(content)[self.column]
            if not isinstance(span, tuple):
                raise ValueError(f"{self.column!r} holds numbers")
            return content[slice(*span)]

    def _reader(self, file: int) -> Any:
        """One that leaves the cache stays open while somebody reads from it."""
        with self._lock:
            if file not in self._readers:
                self._readers[file] = opened(self.paths[file], _RANDOM)
                if len(self._readers) > _OPEN:
                    self._readers.popitem(last=False)
            self._readers.move_to_end(file)
            return self._readers[file]
