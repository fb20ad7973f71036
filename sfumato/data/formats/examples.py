"""`tf.train.Example`, the message in most files of records of machine learning, without TensorFlow.

The message is a map from names to lists of bytes, floats or whole numbers (tensorflow/core/example:
`example.proto`, `feature.proto`), in the wire format of protocol buffers: a number of a field and its
wire type, then a number or a length and so many bytes. It is read in place: bytes are told by where
they lie, so that an index can be made of a file without reading its images.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Span = tuple[int, int]
Values = list[Span] | list[int]
Buffer = Any  # bytes, memoryview or mmap: indexed by byte, sliced into bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LARGEST = 10  # bytes of a number of 64 bits


def parse(buffer: Buffer, start: int = 0, stop: int | None = None) -> dict[str, Values]:
    """Name -> where its byte strings lie, as (from, to) in the buffer, or its whole numbers; floats
    are passed over. Raises ValueError for what is no such message."""
    found: dict[str, Values] = {}
    stop = len(buffer) if stop is None else stop
    for number, features in _fields(buffer, start, stop):
        if number == 1 and isinstance(features, tuple):
            for inner, entry in _fields(buffer, *features):
                if inner == 1 and isinstance(entry, tuple):
                    name, values = _entry(buffer, *entry)
                    found[name] = values
    return found


def _entry(buffer: Buffer, start: int, stop: int) -> tuple[str, Values]:
    name = ""
    values: Values = []
    for number, value in _fields(buffer, start, stop):
        if not isinstance(value, tuple):
            raise ValueError("no tf.train.Example")
        if number == 1:
            name = bytes(buffer[slice(*value)]).decode()
        elif number == 2:
            values = _feature(buffer, *value)
    return name, values


def _feature(buffer: Buffer, start: int, stop: int) -> Values:
    for kind, listed in _fields(buffer, start, stop):
        if not isinstance(listed, tuple):
            raise ValueError("no tf.train.Example")
        if kind == 1:
            return [span for _, span in _fields(buffer, *listed) if isinstance(span, tuple)]
        if kind == 3:
            return _numbers(buffer, *listed)
    return []


def _numbers(buffer: Buffer, start: int, stop: int) -> list[int]:
    """Whole numbers, packed or each by itself; negative ones in two's complement of 64 bits."""
    found: list[int] = []
    for _, value in _fields(buffer, start, stop):
        if isinstance(value, tuple):
            at, end = value
            while at < end:
                number, at = _varint(buffer, at, end)
                found.append(number)
        else:
            found.append(value)
    return [number - (number >> 63 << 64) for number in found]


def _fields(buffer: Buffer, at: int, stop: int) -> Iterator[tuple[int, Span | int]]:
    """The fields of a message: its number, and where its bytes lie or the number it is."""
    while at < stop:
        tag, at = _varint(buffer, at, stop)
        number, wire = tag >> 3, tag & 7
        if number == 0:  # there is none; zeros without end would be gone through byte by byte
            raise ValueError("no tf.train.Example")
        if wire == _VARINT:
            value, at = _varint(buffer, at, stop)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(buffer, at, stop)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("no tf.train.Example")
        if at + length > stop:
            raise ValueError("ends early")
        if wire == _BYTES:
            yield number, (at, at + length)
        at += length


def _varint(buffer: Buffer, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LARGEST):
        if at >= stop:
            raise ValueError("ends early")
        byte = buffer[at]
        value, at = value | (byte & 127) << 7 * shift, at + 1
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise ValueError("no tf.train.Example")


def serialize(features: Mapping[str, bytes | int]) -> bytes:
    """The message of these features, each a list of one; the same bytes for the same features."""
    return _part(
        1,
        b"".join(
            _part(1, _part(1, name.encode()) + _part(2, _one(value)))
            for name, value in sorted(features.items())
        ),
    )


def _one(value: bytes | int) -> bytes:
    if isinstance(value, bytes):
        return _part(1, _part(1, value))
    return _part(3, _part(1, _as_varint(value & (1 << 64) - 1)))


def _part(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
