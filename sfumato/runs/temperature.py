"""A temperature and a threshold, found on held-out images and kept beside the model.

What is stored are two numbers, to two digits, that were computed from held-out images exactly, without noise. No
epsilon covers them (docs/guarantee.md), so they stand in a file of their own: model.safetensors and
model.json are covered without it. They are found only where somebody asks.

The temperature T divides all scores, which changes no ranking of classes (Guo et al. 2017, sec. 4.2).
The threshold is for two classes: the positive one is answered where its probability reaches it.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sfumato.core import typed_json
from sfumato.core.errors import DataError, RunError
from sfumato.core.files import write_json
from sfumato.privacy import fields
from sfumato.train.metrics import decided, softmax

FILE = "calibration.json"
FORMAT = 1
SMALLEST = 20
"""Images that are needed."""
_RANGE = (-3.0, 3.0)
"""Of log T."""


@dataclass(frozen=True)
class Calibration:
    """temperature: above 0. threshold: of the class named `positive`, None for more than two classes.
    n: images that both were found on, which `source` names."""

    temperature: float
    threshold: float | None
    positive: str | None
    n: int
    source: str
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise RunError(f"format {self.format} is of another version of sfumato; calibrate anew")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature}")
        if self.threshold is not None and not (0 < self.threshold < 1 and self.positive):
            raise ValueError(f"threshold {self.threshold} of {self.positive}")

    def applied(self, probabilities: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
        """softmax(log p / T); a row that is not finite stays as it is."""
        if self.temperature == 1:
            return probabilities
        with np.errstate(divide="ignore"):
            logs = np.maximum(np.log(np.asarray(probabilities, np.float64)), -700)
        return softmax(logs, self.temperature).astype(probabilities.dtype)

    def save(self, directory: Path) -> None:
        written = typed_json.plain(self)
        fields.check(FILE, written)
        write_json(directory / FILE, written)

    @classmethod
    def load(cls, directory: Path, classes: tuple[str, ...]) -> "Calibration | None":
        """None where there is none. Raises RunError for a file that is damaged or of another model."""
        found: Calibration | None = typed_json.read_if_there(cls, directory / FILE)
        if found is not None and found.positive is not None and found.positive not in classes:
            raise RunError(
                f"{directory / FILE}: is of another model (class {found.positive!r}); remove it"
            )
        return found


def fit(
    probabilities: Float[np.ndarray, "n c"],
    labels: Int[np.ndarray, " n"],
    classes: tuple[str, ...],
    positive: int,
    source: str,
) -> Calibration:
    """The temperature of the least log loss; of two classes the threshold, in hundredths, with the
    best mean of sensitivity and specificity (Youden 1950), the nearest to 1/2 among equals.

    Raises DataError for fewer than `SMALLEST` images, or where a class has none.
    """
    n, present = len(labels), np.unique(labels)
    if n < SMALLEST or len(present) < min(2, len(classes)):
        raise DataError(
            f"calibrate=True: {n} images of {len(present)} classes are too few; hold out at least {SMALLEST}, "
            "of two classes, by a larger --validation"
        )
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(np.asarray(probabilities, np.float64)), -700)
    temperature = _temperature(logs, labels)
    if len(classes) != 2:
        return Calibration(temperature, None, None, n, source)
    threshold = _threshold(softmax(logs, temperature), labels, positive)
    return Calibration(temperature, threshold, classes[positive], n, source)


def _temperature(logs: Any, labels: Any) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_t: float) -> float:
        scores = log_softmax(logs / math.exp(log_t), axis=1)
        return float(-scores[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=_RANGE, method="bounded")
    return float(f"{math.exp(found.x):.2g}")


def _threshold(p: Any, labels: Any, positive: int) -> float:
    own = labels == positive

    def balance(threshold: float) -> float:
        called = decided(p, positive, threshold) == positive
        return float(called[own].mean() + (~called)[~own].mean())

    grid = [k / 100 for k in range(1, 100)]
    return max(grid, key=lambda each: (round(balance(each), 9), -abs(each - 0.5)))
