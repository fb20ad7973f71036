"""TFRecord files of `tf.train.Example` -> `Listing`.

A frame is a length (8 bytes), the masked CRC-32C of these, the record, and its own masked CRC-32C
(tensorflow/core/lib/io/record_writer.h). The check of the length is made, as a wrong one would lead
astray. That of the record is not: it would need every image's bytes read in Python before the first
step, and an image that is damaged is found when it is decoded (`sfumato data check` decodes all).
"""

import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfumato.core.errors import DataError
from sfumato.data.formats.example_columns import Columns, listing_of_examples
from sfumato.data.formats.shards import by_split, find_shards
from sfumato.data.formats.spans import SpanRecords
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions

_NAME = re.compile(r"\.tfrecords?(-\d+-of-\d+)?$|^[^.]+-\d+-of-\d+$", re.IGNORECASE)
_HEAD, _FOOT = 12, 4


def _table() -> tuple[int, ...]:
    """CRC-32C of each byte, reflected; the polynomial of Castagnoli."""
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_CRC = _table()


def masked_crc(content: bytes) -> int:
    """As the format rotates and shifts it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(record: bytes) -> bytes:
    """A record as it stands in a file."""
    head = struct.pack("<Q", len(record))
    return b"".join(
        (head, struct.pack("<I", masked_crc(head)), record, struct.pack("<I", masked_crc(record)))
    )


def frames(path: Path, content: mmap.mmap) -> Iterator[tuple[int, int]]:
    """(from, to) of every record. Raises DataError."""
    at, k, size = 0, 0, len(content)
    while at < size:
        head = content[at : at + _HEAD]
        if len(head) < _HEAD or masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
            why = (
                "is compressed, and cannot be read at random"
                if at == 0 and head[:2] in (b"\x1f\x8b", b"\x78\x9c")
                else f"record {k} is no TFRecord, or is damaged"
            )
            raise DataError(f"{path}: {why}; write it again as plain TFRecord, or fetch it again")
        start = at + _HEAD
        stop = start + struct.unpack("<Q", head[:8])[0]
        if stop + _FOOT > size:
            raise DataError(f"{path}: ends in the middle of record {k}; fetch it again")
        yield start, stop
        at, k = stop + _FOOT, k + 1


def is_tfrecord(path: Path) -> bool:
    return bool(find_shards(path, _matches))


def _matches(name: str) -> bool:
    return _NAME.search(name) is not None


def list_tfrecord(path: Path, options: ReadOptions) -> Listing:
    """The records of a TFRecord file or of a folder of them. Raises DataError, ArgumentError."""
    shards = by_split(path, find_shards(path, _matches))
    parts, keys = {}, None
    for split, paths in shards.items():
        columns = Columns(path, options, keys)
        spans: list[tuple[int, int]] = []
        counts: list[int] = []
        for each in paths:
            before = len(spans)
            spans += _indexed(each, columns)
            counts.append(len(spans) - before)
        keys = columns.keys
        parts[split] = columns.found(
            SpanRecords(paths, counts, np.array(spans, np.int64).reshape(-1, 2))
        )
    return listing_of_examples(path, parts, keys, options)


def _indexed(path: Path, columns: Columns) -> list[tuple[int, int]]:
    """Offset and length of each image. A file is mapped: of a record, little but its labels is read."""
    try:
        if not path.stat().st_size:
            return []
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return [
                columns.add(f"{path}: record {k}", content, start, stop)
                for k, (start, stop) in enumerate(frames(path, content))
            ]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
