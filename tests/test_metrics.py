"""What an evaluation says beyond its accuracy: against definitions written out, and where data are few."""

import math
from pathlib import Path

import numpy as np
import pytest
from run_helpers import CLASSES

from sfumato.core.errors import DataError, RunError
from sfumato.report import measures
from sfumato.report.facts import Evaluation
from sfumato.runs.temperature import FILE, Calibration, fit
from sfumato.train.metrics import ROC_GRID, decided, measure, softmax


def scores_of(seed: int, n: int = 400, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth about the labels."""
    stream = np.random.default_rng(seed)
    logits = stream.normal(size=(n, classes)) * 2
    labels = np.array([stream.choice(classes, p=row) for row in softmax(logits)])
    return logits, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_areas_and_errors_are_what_their_definitions_say(classes: int) -> None:
    logits, labels = scores_of(0, 120, classes)
    p = softmax(logits)
    found = measure(p, labels)
    for k in range(classes):
        own, others = p[labels == k, k], p[labels != k, k]
        wins = (own[:, None] > others).mean() + (own[:, None] == others).mean() / 2
        assert found.roc_auc[k] == pytest.approx(wins, abs=1e-5)
        order = np.argsort(-p[:, k], kind="stable")
        hits = (labels == k)[order]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        assert found.pr_auc[k] == pytest.approx(precision[hits].mean(), abs=1e-5)
    assert found.log_loss == pytest.approx(-np.log(p[np.arange(len(p)), labels]).mean(), abs=1e-5)
    sure, right = p.max(1), p.argmax(1) == labels
    gaps = [
        abs(right[inside].mean() - sure[inside].mean()) * inside.mean()
        for k in range(10)
        if (inside := (sure >= k / 10) & (sure < (k + 1) / 10)).any()
    ]
    assert found.ece == pytest.approx(sum(gaps), abs=1e-4)
    assert sum(each.n for each in found.bins) == 120
    assert found.confidence == pytest.approx(sure.mean(), abs=1e-4)


def test_the_curve_of_two_classes_holds_what_every_threshold_reaches() -> None:
    logits, labels = scores_of(1)
    p = softmax(logits)
    for positive in (0, 1):
        two = measure(p, labels, positive=positive).two
        assert two is not None and len(two.roc) == len(ROC_GRID) and two.roc[-1] == 1
        assert list(two.roc) == sorted(two.roc)
        for threshold in (0.2, 0.5, 0.8):
            called = decided(p, positive, threshold) == positive
            own = labels == positive
            false, true = called[~own].mean(), called[own].mean()
            above = next(
                value
                for rate, value in zip(ROC_GRID, two.roc, strict=True)
                if rate >= false - 1e-12
            )
            assert true <= above + 1e-5


def test_few_images_one_class_and_rows_of_nan_are_no_accident() -> None:
    found = measure(np.array([[0.3, 0.7]]), np.array([1]))
    assert found.roc_auc == (None, None) and found.two is None and found.mean_roc_auc is None
    spoiled = measure(np.array([[np.nan, 0.7], [0.2, 0.8]]), np.array([0, 1]))
    assert math.isfinite(spoiled.log_loss) and spoiled.bins[5].n == 1


def test_a_temperature_and_a_threshold_are_found_again() -> None:
    logits, labels = scores_of(2, 4000)
    found = fit(softmax(3 * logits), labels, ("a", "b"), 1, "images")
    assert found.temperature == pytest.approx(3, rel=0.15)
    honest = measure(found.applied(softmax(3 * logits)), labels)
    assert honest.ece < measure(softmax(3 * logits), labels).ece / 2
    shifted = softmax(logits + np.array([2.0, 0.0]))  # the second class is answered too seldom
    found = fit(shifted, labels, ("a", "b"), 1, "images")
    assert found.threshold is not None and found.threshold < 0.35
    p = found.applied(shifted)
    called, own = decided(p, 1, found.threshold) == 1, labels == 1
    plain = p.argmax(1) == 1
    assert called[own].mean() + (~called)[~own].mean() > plain[own].mean() + (~plain)[~own].mean()
    with pytest.raises(DataError, match="too few"):
        fit(softmax(logits[:10]), labels[:10], ("a", "b"), 1, "images")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        (
            '{"temperature": 0, "threshold": null, "positive": null, "n": 9, "source": "x"}',
            "temper",
        ),
        ('{"temperature": 1, "threshold": 2, "positive": "a", "n": 9, "source": "x"}', "threshold"),
        ('{"temperature": 1, "threshold": 0.5, "positive": "c", "n": 9, "source": "x"}', "another"),
        (
            '{"temperature": 1, "threshold": null, "positive": null, "n": 9, "source": "x", "format": 7}',
            "7",
        ),
    ],
)
def test_a_calibration_that_cannot_be_is_refused_in_one_line(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=says) as refused:
        Calibration.load(tmp_path, ("a", "b"))
    assert "\n" not in str(refused.value) and FILE in str(refused.value)


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = Calibration(1.7, 0.31, "b", 50, "validation images of x")
    found.save(tmp_path)
    assert Calibration.load(tmp_path, ("a", "b")) == found
    assert Calibration.load(tmp_path / "none", ("a", "b")) is None


def test_words_name_the_smallest_class_and_both_kinds_of_error() -> None:
    confusion = ((90, 10), (4, 6))
    p = np.repeat(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8]]), (90, 10, 4, 6), axis=0
    )
    labels = np.repeat([0, 0, 1, 1], (90, 10, 4, 6))
    evaluation = Evaluation("test", 110, confusion, 96 / 110, "x", measure(p, labels))
    told = "\n".join(measures.lines(evaluation, ("well", "ill")))
    for says in (
        "balanced accuracy  75.0 %",
        "sensitivity        60.0 % (95 % interval 26.2 to 87.8)",
        "specificity        90.0 %",
        "'ill', 10 of 110: recall 60.0 %",
        "precision 37.5 %",
    ):
        assert says in told, told
    old = Evaluation("test", 110, confusion, 96 / 110, "x")
    assert "balanced accuracy" in "\n".join(measures.lines(old, CLASSES[:2]))
