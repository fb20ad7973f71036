"""Sampled indices -> physical batches of one fixed shape: padded, masked, read ahead in a second
thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Bool, Int64, PyTree

Fetch = Callable[[Int64[np.ndarray, " b"], int], PyTree]
"""(indices, step) -> the examples at these indices as they look in this step, a tree of arrays with
leading axis b."""


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
