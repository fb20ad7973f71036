"""A classifier on a source: what it predicts, counted."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64

from sfumato.data.source import Source

Predict = Callable[[Float32[np.ndarray, "b h w c"]], Float32[np.ndarray, "b c"]]
"""Images with pixels in [0, 1] -> class probabilities."""


def confusion(predict: Predict, source: Source, chunk: int = 512) -> Int64[np.ndarray, "c c"]:
    """Counts of (true class, predicted class) over the whole source."""
    classes = len(source.class_names)
    counts = np.zeros((classes, classes), np.int64)
    for start in range(0, len(source), chunk):
        indices = np.arange(start, min(start + chunk, len(source)))
        predicted = predict(source.images(indices)).argmax(1)
        np.add.at(counts, (source.labels[indices], predicted), 1)
    return counts


def accuracy(counts: Int64[np.ndarray, "c c"]) -> float:
    return float(np.trace(counts) / max(counts.sum(), 1))
