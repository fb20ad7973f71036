"""Sampled indices -> physical batches of one fixed shape: padded, masked, read ahead in a second
thread."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int64, PyTree

from sfumato.core.trees import leaf_names
from sfumato.data import Data

Fetch = Callable[[Int64[np.ndarray, " b"], int], PyTree]
"""(indices, step) -> the examples at these indices as they look in this step, a tree of arrays with
leading axis b."""


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

    def fingerprint(self, mac: Callable[[bytes], str]) -> str:
        """`mac` of a digest over all examples; the data's own way, if it has one. Without the key
        it tells nothing."""
        own: Any = getattr(self.data, "fingerprint", None)
        if own is not None:
            return str(own(mac))
        digest = hashlib.sha256()
        for start in range(0, len(self.data), _CHUNK):
            part = self.data[np.arange(start, min(start + _CHUNK, len(self.data)))]
            for name, leaf in zip(leaf_names(part), jax.tree.leaves(part), strict=True):
                found = np.ascontiguousarray(leaf)
                digest.update(repr((name, found.dtype.str, found.shape)).encode() + found.tobytes())
        return mac(digest.digest())


def physical_batches(
    fetch: Fetch, indices: Int64[np.ndarray, " n"], step: int, size: int
) -> Iterator[tuple[PyTree, Bool[np.ndarray, " b"]]]:
    """Yield (examples, mask) of exactly `size` examples; padding repeats the part's first example
    under a False mask.

    Nothing is yielded for an empty batch. The next part is fetched while the device works on this
    one.
    """
    parts = [indices[start : start + size] for start in range(0, len(indices), size)]

    def load(part: np.ndarray) -> tuple[PyTree, np.ndarray]:
        mask = np.arange(size) < len(part)
        padded = np.concatenate([part, np.full(size - len(part), part[0])])
        return jax.tree.map(np.asarray, fetch(padded, step)), mask

    if len(parts) == 1:
        yield load(parts[0])
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(load, part) for part in parts[:1]]
        for part in parts[1:]:
            ahead.append(reader.submit(load, part))
            yield ahead.pop(0).result()
        if ahead:
            yield ahead.pop(0).result()
