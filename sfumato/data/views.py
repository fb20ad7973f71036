"""Augmented views: random shifts and mirror images, as in De et al. 2022, Sec. 3.2 (pad, crop,
flip).

A view is a function of (key, step, index of the example, number of the view) alone: who else is in
the batch, the size of a microbatch and a resumed run do not change it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt64

Words = Callable[[int, np.ndarray, int], UInt64[np.ndarray, "b v"]]
"""(step, indices of examples, v) -> v random words for each of them: `SecretKey.words` for private
images."""


@dataclass(frozen=True)
class Views:
    """`count` views per example, each shifted by up to `shift` pixels (mirrored at the border) and
    flipped half the time.

    count=0 means the image itself, unchanged.
    """

    words: Words
    count: int = 0
    shift: int = 4
    flip: bool = True

    def __call__(
        self, images: Float32[np.ndarray, "b h w c"], indices: Int64[np.ndarray, " b"], step: int
    ) -> Float32[np.ndarray, "b v h w c"]:
        """The views of these examples in this step; v = max(count, 1)."""
        if self.count == 0:
            return images[:, None]
        height, width = images.shape[1:3]
        words = self.words(step, indices, self.count)
        span = np.uint64(2 * self.shift + 1)
        down = (words % np.uint64(2**32) % span).astype(np.int64) - self.shift
        right = (words // np.uint64(2**32) % np.uint64(2**31) % span).astype(np.int64) - self.shift
        mirrored = (words >= np.uint64(2**63)) & self.flip
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
