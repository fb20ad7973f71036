"""Augmented views: random shifts and mirror images, as in De et al. 2022, Sec. 3.2 (pad, crop,
flip).

A view is a function of (seed, step, index of the example, number of the view) alone, so neither the
size of a microbatch nor a resumed run changes it. The seed comes from the secret key (see
`runs/jobs.py`): SplitMix64 (Steele et al. 2014) over the counter, vectorized.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt64


@dataclass(frozen=True)
class Views:
    """`count` views per example, each shifted by up to `shift` pixels (mirrored at the border) and
    flipped half the time.

    count=0 means the image itself, unchanged.
    """

    count: int = 0
    shift: int = 4
    flip: bool = True
    seed: int = 0

    def __call__(
        self, images: Float32[np.ndarray, "b h w c"], indices: Int64[np.ndarray, " b"], step: int
    ) -> Float32[np.ndarray, "b v h w c"]:
        """The views of these examples in this step; v = max(count, 1)."""
        if self.count == 0:
            return images[:, None]
        height, width = images.shape[1:3]
        words = _words(self.seed, step, indices, self.count)
        down = (words[0] % np.uint64(2 * self.shift + 1)).astype(np.int64) - self.shift
        right = (words[1] % np.uint64(2 * self.shift + 1)).astype(np.int64) - self.shift
        mirrored = (words[2] & np.uint64(1)).astype(bool) & self.flip
        rows = _reflect(np.arange(height) + down[..., None], height)
        columns = np.arange(width)
        columns = np.where(mirrored[..., None], columns[::-1], columns)
        columns = _reflect(columns + right[..., None], width)
        example = np.arange(len(images))[:, None, None, None]
        return images[example, rows[:, :, :, None], columns[:, :, None, :]]


def _reflect(position: np.ndarray, size: int) -> np.ndarray:
    """Fold positions outside 0 .. size-1 back inside, mirrored at the border pixels."""
    period = max(2 * (size - 1), 1)
    position = np.abs(position) % period
    return np.where(position >= size, period - position, position)


def _words(seed: int, step: int, indices: np.ndarray, count: int) -> UInt64[np.ndarray, "3 b v"]:
    """Three 64-bit words per (example, view)."""
    base = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(step))
    example = _mix(base + indices.astype(np.uint64))
    lanes = np.arange(3 * count, dtype=np.uint64).reshape(3, 1, count)
    return _mix(example[None, :, None] + lanes * np.uint64(0x9E3779B97F4A7C15))


def _mix(z: np.ndarray) -> np.ndarray:
    """The SplitMix64 finalizer: a bijection of 64-bit words whose output bits all depend on all
    input bits."""
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
