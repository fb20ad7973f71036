"""A classifier on a source: what it predicts, counted."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from sfumato.data.source import Source

Predict = Callable[[Float32[np.ndarray, "b h w c"]], Float32[np.ndarray, "b c"]]
"""Images with pixels in [0, 1] -> class probabilities."""


def confusion(predict: Predict, source: Source, chunk: int = 512) -> Int64[np.ndarray, "c c"]:
    """Counts of (true class, predicted class) over the whole source."""
    counts = np.zeros((len(source.class_names),) * 2, np.int64)
    for start in range(0, len(source), chunk):
        indices = np.arange(start, min(start + chunk, len(source)))
        counts += count(source.labels[indices], predict(source.images(indices)))
    return counts


def answers(predict: Predict, source: Source, chunk: int = 512) -> Float32[np.ndarray, "n c"]:
    """The probabilities of all images of the source, in its order."""
    parts = [
        predict(source.images(np.arange(start, min(start + chunk, len(source)))))
        for start in range(0, len(source), chunk)
    ]
    return np.concatenate(parts)


def count(
    labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, "n c"]
) -> Int64[np.ndarray, "c c"]:
    """Counts of (true class, class of the highest score)."""
    counts = np.zeros((scores.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels, scores.argmax(1)), 1)
    return counts


def accuracy(counts: Int64[np.ndarray, "c c"]) -> float:
    return float(np.trace(counts) / max(counts.sum(), 1))
