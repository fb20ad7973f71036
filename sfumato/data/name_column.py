"""Names of many examples in little memory: one buffer of bytes, and where each name lies in it.

A Python string of 30 letters takes 80 bytes and a place in a list 8 more; here the same name takes 42, and a
subset shares the buffer.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, overload

import numpy as np
from jaxtyping import Int32, Int64

_TOGETHER = 4096  # names that are Python's at once while a column is made
ENCODING = ("utf-8", "surrogateescape")  # whatever bytes a file system has for a name come back


class NameColumn(Sequence[str]):
    """An immutable sequence of strings. An integer gives a string; a slice, a mask or an array of
    integers gives another column."""

    def __init__(
        self, text: bytes, starts: Int64[np.ndarray, " n"], sizes: Int32[np.ndarray, " n"]
    ):
        self._text, self._starts, self._sizes = text, starts, sizes

    @classmethod
    def of(cls, names: Iterable[str]) -> "NameColumn":
        """In time linear in their letters."""
        text, sizes, rest = [], [np.zeros(0, np.int32)], iter(names)
        while some := [name.encode(*ENCODING) for name in islice(rest, _TOGETHER)]:
            text.append(b"".join(some))
            sizes.append(np.fromiter(map(len, some), np.int32, len(some)))
        lengths = np.concatenate(sizes)
        return cls(b"".join(text), np.cumsum(lengths, dtype=np.int64) - lengths, lengths)

    @classmethod
    def joined(cls, columns: Sequence["NameColumn"]) -> "NameColumn":
        """One after the other, with all that is in their buffers."""
        begins = np.cumsum([0, *(len(each._text) for each in columns)], dtype=np.int64)
        starts = [each._starts + begin for each, begin in zip(columns, begins, strict=False)]
        return cls(
            b"".join(each._text for each in columns),
            np.concatenate([np.zeros(0, np.int64), *starts]),
            np.concatenate([np.zeros(0, np.int32), *(each._sizes for each in columns)]),
        )

    def encoded(self) -> Iterator[bytes]:
        """Each name as a file system has it."""
        text = self._text
        for k in range(0, len(self), _TOGETHER):
            starts, sizes = (each[k : k + _TOGETHER] for each in (self._starts, self._sizes))
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                yield text[start : start + size]

    @property
    def is_ascii(self) -> bool:
        """Whether all letters of its buffer are."""
        return self._text.isascii()

    @property
    def nbytes(self) -> int:
        return len(self._text) + self._starts.nbytes + self._sizes.nbytes

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice | np.ndarray | Sequence[int]) -> "NameColumn": ...
    def __getitem__(self, at: Any) -> "str | NameColumn":
        if isinstance(at, int | np.integer):
            start = int(self._starts[at])
            return self._text[start : start + int(self._sizes[at])].decode(*ENCODING)
        chosen = at if isinstance(at, slice) else np.asarray(at, None if len(at) else np.int64)
        return NameColumn(self._text, self._starts[chosen], self._sizes[chosen])

    def __iter__(self) -> Iterator[str]:
        for each in self.encoded():
            yield each.decode(*ENCODING)

    def tolist(self) -> list[str]:
        return list(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Every name as wide as the longest: for files of few examples."""
        return np.array(self.tolist(), dtype or str)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        """Of a subset, its own names only."""
        whole = self if int(self._sizes.sum()) == len(self._text) else NameColumn.of(self)
        return NameColumn, (whole._text, whole._starts, whole._sizes)

    def __repr__(self) -> str:
        shown = ", ".join(repr(self[k]) for k in range(min(3, len(self))))
        return f"NameColumn({len(self)}: {shown}{', ...' if len(self) > 3 else ''})"
