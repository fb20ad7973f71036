"""Sampled indices -> physical batches of one fixed shape: padded, masked, read ahead.

On a layout of several devices a step's physical batches are dealt to them in turn; a process reads
those of its own devices alone. Which examples make a batch is the same on any layout.

Who takes part in a step is a function of the key and the step, so the next steps are read while this
one is computed, its noise is drawn, and a checkpoint is written.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int64, PyTree

from sfumato.core.devices import ALONE, Layout
from sfumato.core.errors import ArgumentError, said
from sfumato.core.keys import SecretKey
from sfumato.core.trees import by_name
from sfumato.data import Data
from sfumato.data.ahead import ahead, reader
from sfumato.sampling import Sampler

Fetch = Callable[[Int64[np.ndarray, " b"], int], PyTree]
"""(indices, step) -> the examples at these indices as they look in this step, a tree of arrays with
leading axis b."""
Part = tuple[PyTree, Bool[np.ndarray, " b"]]
"""Examples, and which of them are there."""


_CHUNK = 1024
"""Examples held at once while all of them are looked at."""


@dataclass(frozen=True, eq=False)
class Indexed:
    """`Fetch` from data: its examples at these indices, in every step the same. numbered: each with
    its index beside it."""

    data: Data
    numbered: bool = False

    def __call__(self, indices: Int64[np.ndarray, " b"], step: int) -> PyTree:
        examples = self.data[indices]
        return (examples, indices.astype(np.int32)) if self.numbered else examples

    def stamp(self, mac: Callable[[bytes], str]) -> str | None:
        """As `fingerprint`, found without reading the examples, if the data know a way."""
        own: Any = getattr(self.data, "stamp", None)
        return None if own is None else own(mac)

    @property
    def decoder(self) -> str | None:
        """What makes pixels of the data's bytes; None where nothing is decoded."""
        return getattr(self.data, "decoder", None)

    def fingerprint(self, mac: Callable[[bytes], str]) -> str:
        """`mac` of a digest over all examples; the data's own way, if it has one. Without the key
        it tells nothing."""
        own: Any = getattr(self.data, "fingerprint", None)
        if own is not None:
            return str(own(mac))
        digest = hashlib.sha256()
        for start in range(0, len(self.data), _CHUNK):
            part = self.data[np.arange(start, min(start + _CHUNK, len(self.data)))]
            for name, leaf in by_name(part).items():
                found = np.ascontiguousarray(leaf)
                digest.update(repr((name, found.dtype.str, found.shape)).encode() + found.tobytes())
        return mac(digest.digest())


def physical_batches(
    fetch: Fetch, indices: Int64[np.ndarray, " n"], step: int, size: int
) -> Iterator[Part]:
    """Yield (examples, mask) of exactly `size` examples; padding repeats the part's first example
    under a False mask.

    Nothing is yielded for an empty batch. The next parts are fetched while the device works on this
    one.
    """
    parts = _parts(fetch, indices, step, size)
    return ahead(parts) if len(indices) > size else parts


def _parts(
    fetch: Fetch, indices: Int64[np.ndarray, " n"], step: int, size: int, layout: Layout = ALONE
) -> Iterator[Part]:
    """A round of physical batches at a time: one for each device of this process, side by side."""
    places, count = layout.places, layout.count
    for first in range(0, len(indices), count * size):
        dealt = np.arange(first + places.start * size, first + places.stop * size)
        mask = dealt < len(indices)
        # Padding is of what this process reads anyway, or of one example where it reads nothing.
        own = indices[dealt[mask]] if mask.any() else indices[first : first + 1]
        examples = fetch(own, step)
        where = np.minimum(np.arange(len(places) * size), len(own) - 1)
        yield jax.tree.map(partial(_at, where=where, count=len(own)), examples), mask


def _at(leaf: Any, where: Int64[np.ndarray, " b"], count: int) -> np.ndarray:
    """Some of so many examples. Raises ArgumentError where there are more or fewer: then nobody knows which
    is whose."""
    found = np.asarray(leaf)
    if found.shape[:1] != (count,):
        raise ArgumentError(
            "data",
            f"shape {found.shape}",
            f"data[indices] must give {count} examples for {count} indices",
        )
    return found[where]


def members(sampler: Sampler, key: SecretKey, step: int) -> Int64[np.ndarray, " n"]:
    """Who takes part in a step. Raises ArgumentError for a sampler that draws an example twice, which
    would add up to twice its sensitivity, or one that there is none of (-1 is the last one again)."""
    found, n = np.asarray(sampler.indices(key, step)), sampler.examples
    if found.shape == (0,):
        return np.zeros(0, np.int64)
    whole = found.ndim == 1 and found.dtype.kind in "iu"
    if not (whole and found[0] >= 0 and found[-1] < n and np.all(found[1:] > found[:-1])):
        raise ArgumentError(
            "sampler",
            type(sampler).__name__,
            f"drew no ascending whole numbers from 0 to {n - 1}, each once, for step {step}; mend its `indices`",
        )
    return found.astype(np.int64, copy=False)


class Feed:
    """The physical batches of the steps that a sampler draws, each step's in turn.

    Asked for the step after the last one with the same key, it goes on with what it has read ahead
    and put on the device; asked for another one, it begins there anew. `fetch` is called by one
    thread alone, in the order of the steps.
    """

    def __init__(self, fetch: Fetch, sampler: Sampler, size: int, layout: Layout = ALONE):
        self._fetch, self._sampler, self._size = fetch, sampler, size
        self._layout = layout
        self._pool: ThreadPoolExecutor | None = None
        self._read: Iterator[Part | None] | None = None
        self._next: tuple[Any, int] | None = None
        self._example: PyTree = None

    def resize(self, size: int) -> None:
        """Physical batches of another size from now on; what was read ahead is not wanted."""
        if size != self._size:
            self.stop()
            self._size = size

    def step(self, key: SecretKey, step: int) -> Iterator[Part]:
        """Raises whatever sampling or reading this step raised, in its place: not what one of the
        next steps did, which were read by then."""
        asked = (key.fingerprint, key.name, key.rng), step
        if self._next != asked or self._read is None:
            self._end_reading()
            self._read = ahead(self._steps(key, step), self._reader(), most=self._parts_ahead())
        self._next = None
        try:
            for part in self._read:
                if part is None:
                    break
                yield part
        except BaseException:  # also of whoever takes the parts: what was read ahead is not wanted
            self.stop()
            raise
        self._next = asked[0], step + 1
        if step + 1 >= self._sampler.steps:
            self.stop()

    def example(self) -> PyTree:
        """Shapes and types of ONE example; the first of all is read for that, once."""
        if self._example is None:
            try:
                self._example = self._reader().submit(self._first_shapes).result()
            except (TypeError, LookupError) as error:  # lists, tables, sets of torch have their own
                raise ArgumentError(
                    "data",
                    said(error),
                    "data[indices] takes a vector of int64 and gives a tree of arrays of numbers, examples in front; "
                    "sf.data.Arrays(name=array) is such",
                ) from error
            if self._read is None:
                self.stop()
        return self._example

    def _first_shapes(self) -> PyTree:
        one, _ = next(_parts(self._fetch, np.zeros(1, np.int64), 0, 1))
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], jnp.result_type(leaf)), one
        )

    def stop(self) -> None:
        """Read nothing more; the thread has ended when this returns."""
        self._end_reading()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def _end_reading(self) -> None:
        if self._read is not None:
            self._read.close()  # type: ignore[attr-defined]
        self._read = self._next = None

    def _reader(self) -> ThreadPoolExecutor:
        self._pool = self._pool or reader()
        return self._pool

    def _parts_ahead(self) -> int:
        """Those of two steps, and what stands between them."""
        together = self._size * self._layout.count
        return 2 * (math.ceil(self._sampler.expected_batch_size / together) + 1)

    def _steps(self, key: SecretKey, first: int) -> Iterator[Part | None]:
        """What each step has, then None."""
        for step in range(first, max(self._sampler.steps, first + 1)):
            indices = members(self._sampler, key, step)
            for part in _parts(self._fetch, indices, step, self._size, self._layout):
                yield self._layout.put_batch(part)
            yield None
