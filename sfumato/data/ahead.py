"""Reading ahead: what is needed next is read in a second thread while the caller works.

The reading thread advances an iterator, so all that is read is read by one thread and in order. It
is told to read on whenever something is taken, never by itself: between a caller that has stopped
and its reader nothing is left running but what was being read.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped

from sfumato.data.source import Source

T = TypeVar("T")
BYTES = 256 * 2**20
"""Read ahead at most; two items at any rate."""
_END: Any = object()


def reader() -> ThreadPoolExecutor:
    """A thread that reads; it ends with `shutdown`, or when nobody knows of it any more."""
    return ThreadPoolExecutor(1, "sfumato-reader")


def ahead(
    items: Iterable[T], pool: ThreadPoolExecutor | None = None, most: int | None = None
) -> Iterator[T]:
    """The items, read ahead by `pool` (one of its own, if it has none): at most `most` of them and
    at most `BYTES`, but always two. A few at first, then more and more. Items are trees of arrays; what else stands between them counts
    for nothing.

    What reading raises is raised here, where the item would have come.
    """
    source, waiting, depth = iter(items), deque[Future[T]](), 2
    own = reader() if pool is None else pool
    try:
        while True:
            for _ in range(
                2
            ):  # one for the one that is taken, and one more as long as there is room
                if len(waiting) <= depth:
                    waiting.append(own.submit(next, source, _END))
            item = waiting.popleft().result()
            if item is _END:
                return
            if size := nbytes(item):
                depth = max(2, BYTES // size if most is None else min(most, BYTES // size))
            yield item
    finally:
        for each in waiting:
            each.cancel()
        if pool is None:
            own.shutdown(wait=True)


def nbytes(tree: Any) -> int:
    """Of all arrays in tuples, lists and dicts."""
    if isinstance(tree, tuple | list):
        return sum(map(nbytes, tree))
    if isinstance(tree, dict):
        return sum(map(nbytes, tree.values()))
    return int(getattr(tree, "nbytes", 0))


def stored(source: Source, indices: Int64[np.ndarray, " b"]) -> Shaped[np.ndarray, "b h w c"]:
    """As images travel: uint8, or float32."""
    raw = source.raw(indices)
    return raw if raw.dtype == np.uint8 else raw.astype(np.float32)


def chunks(
    source: Source, size: int, first: int = 0
) -> Iterator[tuple[Int64[np.ndarray, " b"], Shaped[np.ndarray, "b h w c"]]]:
    """(indices, images as stored) of the whole source in order, `size` at a time, read ahead."""

    def each() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(first, len(source), size):
            indices = np.arange(start, min(start + size, len(source)))
            yield indices, stored(source, indices)

    with closing(ahead(each())) as parts:  # type: ignore[type-var]
        yield from parts
