"""A data set from outside: two kinds of stripes."""

import numpy as np

from sfumato.data import Splits, from_arrays


def _stripes(n, seed):
    stream = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = stream.integers(0, 60, (n, 8, 8, 1), np.uint8)
    images[labels == 0, ::2] += 150
    images[labels == 1, :, ::2] += 150
    return images, np.array(["across", "down"])[labels]


def stripes():
    return _stripes(64, 0), _stripes(32, 1)


def splits():
    return Splits(from_arrays(*_stripes(64, 0)), None, from_arrays(*_stripes(32, 1), split="test"))


def nothing():
    return 7
