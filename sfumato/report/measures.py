"""What an evaluation says beyond its accuracy, in words and rows: for terminal, report and model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.report import finding_measures, words
from sfumato.report.facts import Evaluation, RunFacts, printable
from sfumato.report.intervals import Score
from sfumato.report.measure_plots import reliability_plot, roc_plot
from sfumato.train.metrics import Metrics, Subgroup, mean_of

TOO_SURE = 0.05
"""Of mean confidence above accuracy, from which on it is worth a word."""


@dataclass(frozen=True)
class GroupRow:
    """One group of images: how many, how many of them are right, mean recall."""

    name: str
    right: Score
    balanced: float | None
    sensitivity: Score | None
    specificity: Score | None


def recalls(confusion: Sequence[Sequence[int]]) -> list[Score]:
    return [Score(row[i], sum(row)) for i, row in enumerate(confusion)]


def precisions(confusion: Sequence[Sequence[int]]) -> list[Score]:
    return [Score(confusion[j][j], sum(row[j] for row in confusion)) for j in range(len(confusion))]


def balanced_accuracy(confusion: Sequence[Sequence[int]]) -> float | None:
    """Mean recall of the classes that have images."""
    return mean_of([each.value for each in recalls(confusion)])


def smallest(confusion: Sequence[Sequence[int]]) -> int:
    """The class of the fewest images, among those that have any; clipping and noise hurt it first."""
    sizes = {i: sum(row) for i, row in enumerate(confusion) if sum(row)}
    return min(sizes, key=sizes.__getitem__)


def two_scores(confusion: Sequence[Sequence[int]], positive: int) -> tuple[Score, Score]:
    """(sensitivity, specificity)."""
    found = recalls(confusion)
    return found[positive], found[1 - positive]


def rows(evaluation: Evaluation, classes: Sequence[str]) -> list[tuple[str, str]]:
    """(what, its value in words) of the whole evaluation; for an old run what its counts allow."""
    confusion, metrics = evaluation.confusion, evaluation.metrics
    least = smallest(confusion)
    found = [
        ("balanced accuracy", _percent(balanced_accuracy(confusion))),
        *([] if metrics is None else _ranked(metrics)),
        *([] if metrics is None else _calibrated(metrics, evaluation.accuracy)),
    ]
    if metrics is not None and metrics.two is not None:
        sensitivity, specificity = two_scores(confusion, metrics.two.positive)
        name = printable(classes[metrics.two.positive])
        at = f"'{name}' is answered from {metrics.two.threshold:g} on"
        found += [
            ("sensitivity", f"{_scored(sensitivity)}; {at}"),
            ("specificity", _scored(specificity)),
        ]
    recall, precision = recalls(confusion)[least], precisions(confusion)[least]
    return [
        *found,
        (
            "smallest class",
            f"'{printable(classes[least])}', {recall.n:,} of {evaluation.n:,}: recall {_scored(recall)}, "
            f"precision {_scored(precision)}",
        ),
    ]


def _ranked(metrics: Metrics) -> list[tuple[str, str]]:
    one_of = "" if len(metrics.roc_auc) == 2 else ", mean over the classes, each against all others"
    return [
        (name, f"{value:.3f}{one_of}")
        for name, value in (("ROC AUC", metrics.mean_roc_auc), ("PR AUC", metrics.mean_pr_auc))
        if value is not None
    ]


def _calibrated(metrics: Metrics, accuracy: float) -> list[tuple[str, str]]:
    tempered = "" if metrics.temperature == 1 else f"; scores divided by {metrics.temperature:g}"
    return [
        (
            "calibration error",
            f"{metrics.ece:.3f}: {_percent(metrics.confidence)} sure on average, {_percent(accuracy)} right{tempered}",
        )
    ]


def _percent(share: float | None) -> str:
    return "unknown" if share is None else words.percent(share)


def _scored(score: Score) -> str:
    if score.value is None:
        return "unknown"
    low, high = score.interval
    return f"{words.percent(score.value)} (95{words.NBSP}% interval {100 * low:.1f} to {100 * high:.1f})"


def group_rows(metrics: Metrics) -> list[GroupRow]:
    return [_group(each, metrics) for each in metrics.groups]


def _group(group: Subgroup, metrics: Metrics) -> GroupRow:
    confusion = group.confusion
    right = Score(sum(row[i] for i, row in enumerate(confusion)), sum(map(sum, confusion)))
    pair = (None, None) if metrics.two is None else two_scores(confusion, metrics.two.positive)
    return GroupRow(printable(group.name), right, balanced_accuracy(confusion), *pair)


def lines(evaluation: Evaluation, classes: Sequence[str]) -> list[str]:
    """For a terminal."""
    if evaluation.findings:
        return finding_measures.lines(evaluation, classes)
    found = [f"{what:<18} {told}" for what, told in rows(evaluation, classes)]
    metrics = evaluation.metrics
    for each in [] if metrics is None else group_rows(metrics):
        told = (
            f"{_scored(each.right)} of {each.right.n:,} right, balanced {_percent(each.balanced)}"
        )
        if each.sensitivity is not None and each.specificity is not None:
            told += (
                f", sensitivity {_percent(each.sensitivity.value)}, specificity "
                f"{_percent(each.specificity.value)}"
            )
        assert metrics is not None
        found.append(f"{printable(str(metrics.group_by))}={each.name}: {told}")
    return [line.replace(words.NBSP, " ") for line in found]


def short(evaluation: Evaluation, classes: Sequence[str]) -> str:
    """The same on one line; a line for each finding."""
    if evaluation.findings:
        return "\n          ".join(finding_measures.lines(evaluation, classes))
    confusion, metrics = evaluation.confusion, evaluation.metrics
    least = smallest(confusion)
    found = recalls(confusion)[least]
    told = [f"balanced accuracy {_percent(balanced_accuracy(confusion))}"]
    if metrics is not None:
        if metrics.mean_roc_auc is not None:
            told.append(f"ROC AUC {metrics.mean_roc_auc:.3f}")
        told.append(f"calibration error {metrics.ece:.3f}")
    told.append(
        f"of the smallest class '{printable(classes[least])}' {found.right} of {found.n} found"
    )
    return ", ".join(told).replace(words.NBSP, " ")


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The few numbers of `rows`, for scripts."""
    if evaluation.findings:
        return finding_measures.as_json(evaluation)
    metrics = evaluation.metrics
    return {"balanced_accuracy": balanced_accuracy(evaluation.confusion)} | (
        {}
        if metrics is None
        else {
            "roc_auc": metrics.mean_roc_auc,
            "pr_auc": metrics.mean_pr_auc,
            "calibration_error": metrics.ece,
            "log_loss": metrics.log_loss,
        }
    )


def section(facts: RunFacts, evaluation: Evaluation, shown: str) -> dict[str, Any]:
    """Everything that the template shows."""
    metrics = evaluation.metrics
    found: dict[str, Any] = {
        "measures": rows(evaluation, facts.classes),
        "reliability": None,
        "roc": None,
        "groups": [],
        "group_by": "",
        "too_sure": "",
    }
    if metrics is None:
        return found
    if metrics.confidence - evaluation.accuracy > TOO_SURE:
        found["too_sure"] = (
            f"The model is surer than it is right: {_percent(metrics.confidence)} on average, where "
            f"{_percent(evaluation.accuracy)} are right. “sfumato evaluate --calibrate” mends the probabilities with "
            "held-out images, which the guarantee does not cover."
        )
    if metrics.two is not None:
        found["roc"] = roc_plot(metrics, evaluation, facts.classes, shown)
    return found | {
        "reliability": reliability_plot(metrics.bins, shown),
        "groups": group_rows(metrics),
        "group_by": printable(metrics.group_by or ""),
    }
