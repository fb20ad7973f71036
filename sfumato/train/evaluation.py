"""A classifier on a source: what it predicts, counted."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int64, Shaped

from sfumato.core.keys import public_stream
from sfumato.core.tasks import task_of
from sfumato.data.ahead import chunks
from sfumato.data.source import Source
from sfumato.train.finding_metrics import measure_findings
from sfumato.train.metrics import mean_of

Predict = Callable[[Shaped[np.ndarray, "b h w c"]], Float32[np.ndarray, "b c"]]
"""Images, uint8 or floats with pixels in [0, 1] -> class probabilities."""

CURVE_IMAGES = 2048
"""Of the held-out images, those that a learning curve looks at, at most."""
_CHUNK, _BYTES = 512, 64 * 2**20
"""Images at once, and bytes of them as they are stored; never fewer than 128."""


def confusion(predict: Predict, source: Source) -> Int64[np.ndarray, "..."]:
    """Counts of (true class, predicted class) over the whole source; see `Task.count`."""
    task, classes = source.task, len(source.class_names)
    return sum(
        (
            task.count(source.labels[indices], task.decided(found), classes)
            for indices, found in _predicted(predict, source)
        ),
        task.count(source.labels[:0], source.labels[:0], classes),
    )


def answers(predict: Predict, source: Source) -> Float32[np.ndarray, "n c"]:
    """The probabilities of all images of the source, in its order."""
    found = np.empty((len(source), len(source.class_names)), np.float32)
    for indices, probabilities in _predicted(predict, source):
        found[indices] = probabilities
    return found


def _predicted(
    predict: Predict, source: Source
) -> Iterator[tuple[Int[np.ndarray, " b"], Float32[np.ndarray, "b c"]]]:
    """Chunk by chunk, with their indices. The next images are read while these are looked at."""
    size = int(np.clip(_BYTES // max(1, int(np.prod(source.shape))) // 128 * 128, 128, _CHUNK))
    for indices, images in chunks(source, size):
        yield indices, predict(images)


def for_curve(source: Source) -> Source:
    """The same held-out images in every run and at every point of a curve: all, or `CURVE_IMAGES` of
    them, chosen by a public stream."""
    if len(source) <= CURVE_IMAGES:
        return source
    stream = public_stream(0, "images of a learning curve")
    chosen = stream.choice(len(source), CURVE_IMAGES, replace=False)
    return source.subset(np.sort(chosen), source.split)


def count(
    labels: Int[np.ndarray, "n ..."], scores: Float[np.ndarray, "n c"]
) -> Int64[np.ndarray, "..."]:
    """Counts of (true class, class of the highest score); see `Task.count`."""
    task = task_of(labels)
    return task.count(labels, task.called(scores), scores.shape[1])


def glance(labels: Int[np.ndarray, "n ..."], scores: Float[np.ndarray, "n c"]) -> dict[str, Any]:
    """What a point of a learning curve says: accuracy; of findings also the areas under their ROC curves,
    each with its interval (None where it is not known), and the mean of those."""
    task, found = task_of(labels), {"accuracy": accuracy(count(labels, scores))}
    if task.exclusive:
        return found
    each = measure_findings(np.asarray(task.probabilities(scores)), labels)
    return found | {
        "roc_auc": mean_of([one.roc_auc for one in each]),
        "roc_aucs": [
            None if one.roc_auc is None else [one.roc_auc, one.roc_auc_low, one.roc_auc_high]
            for one in each
        ],
    }


def accuracy(counts: Int64[np.ndarray, "..."]) -> float:
    """Share of the images that are called right; of findings, of all entries that are known."""
    return float(np.trace(counts, axis1=-2, axis2=-1).sum() / max(counts.sum(), 1))
