"""What an evaluation of findings says, in words and rows: for terminal, report and model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.report import words
from sfumato.report.facts import Evaluation, printable
from sfumato.report.intervals import Score
from sfumato.train.finding_metrics import FindingMeasure
from sfumato.train.metrics import mean_of


@dataclass(frozen=True)
class FindingRow:
    """One finding. area, precision: in words; the rest counted where it is known, at a probability of
    0.5."""

    name: str
    measure: FindingMeasure
    area: str
    precision: str
    sensitivity: Score
    specificity: Score


def finding_rows(evaluation: Evaluation, names: Sequence[str]) -> list[FindingRow]:
    return [
        FindingRow(
            printable(name),
            each,
            _area(each),
            _three(each.pr_auc),
            Score(each.found, each.positives),
            Score(each.cleared, each.negatives),
        )
        for name, each in zip(names, evaluation.findings, strict=True)
    ]


def _area(each: FindingMeasure) -> str:
    if each.roc_auc is None or each.roc_auc_low is None or each.roc_auc_high is None:
        return "unknown"
    return f"{each.roc_auc:.3f} ({each.roc_auc_low:.3f} to {each.roc_auc_high:.3f})"


def _three(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def mean_areas(evaluation: Evaluation) -> tuple[float | None, float | None]:
    """Mean ROC AUC and mean PR AUC, over the findings that have them."""
    found = evaluation.findings
    return mean_of([each.roc_auc for each in found]), mean_of([each.pr_auc for each in found])


def mean_words(evaluation: Evaluation) -> str:
    """'mean ROC AUC 0.881 over 3 findings'."""
    return f"mean ROC AUC {_three(mean_areas(evaluation)[0])} {mean_over(evaluation)}"


def mean_over(evaluation: Evaluation) -> str:
    """'over 3 findings', those that have an area."""
    known = sum(each.roc_auc is not None for each in evaluation.findings)
    return f"over {words.plural(known, 'finding')}".replace(words.NBSP, " ")


def lines(evaluation: Evaluation, names: Sequence[str]) -> list[str]:
    """For a terminal: one for each finding."""
    found = []
    for row in finding_rows(evaluation, names):
        each = row.measure
        told = [
            f"ROC AUC {row.area}",
            f"PR AUC {row.precision}",
            *(
                f"{what} {words.percent(score.value)}"
                for what, score in (
                    ("sensitivity", row.sensitivity),
                    ("specificity", row.specificity),
                )
                if score.value is not None
            ),
            f"there in {each.positives:,} of {each.n:,}",
        ]
        found.append(f"{row.name}: {', '.join(told)}".replace(words.NBSP, " "))
    return found


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """For scripts."""
    area, precision = mean_areas(evaluation)
    each = [one.roc_auc for one in evaluation.findings]
    return {"roc_auc": area, "pr_auc": precision, "roc_auc_of_findings": each}


def by_chance(evaluation: Evaluation, names: Sequence[str]) -> list[str]:
    """Sentences without a full stop, of findings whose interval holds one half."""
    lost = [
        row.name
        for row in finding_rows(evaluation, names)
        if row.measure.roc_auc_low is not None and row.measure.roc_auc_low <= 0.5
    ]
    return [f"finding '{name}' is not clearly ranked better than by chance" for name in lost]
