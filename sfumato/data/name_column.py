"""Names of many examples in little memory: one buffer of bytes, and where each name lies in it.

A Python string of 30 letters takes 80 bytes and a place in a list 8 more; here the same name takes 42, and a
subset shares the buffer.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from jaxtyping import Int32, Int64

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
        text, sizes = bytearray(), array("i")
        for name in names:
            encoded = name.encode(*ENCODING)
            text += encoded
            sizes.append(len(encoded))
        lengths = np.array(sizes, np.int32)
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        return cls(bytes(text), starts, lengths)

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
        text = self._text
        for start, size in zip(self._starts, self._sizes, strict=True):
            yield text[start : start + size].decode(*ENCODING)

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
