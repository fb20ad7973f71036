"""What a report may say about a run: the run directory's JSON files as frozen facts, checked
against each other."""

import base64
import binascii
import math
import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfumato.audit.result import FILE_NAME as AUDIT_FILE
from sfumato.audit.result import AuditRecord
from sfumato.core import generators, typed_json
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.typed_json import OrInfinity
from sfumato.noise import NOISES
from sfumato.plan.method_plan import MethodPlan
from sfumato.plan.plan import Plan
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.risks import Risks, risks
from sfumato.train.finding_metrics import FindingMeasure
from sfumato.train.metrics import BINS, ROC_GRID, Metrics

BIDI_CONTROLS = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def printable(name: str) -> str:
    """A name that cannot hide: control and direction-changing characters become a visible
    replacement character."""
    shown = (
        "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") or c in BIDI_CONTROLS else c
        for c in name
    )
    return "".join(shown) or "(empty)"


_ROUGHLY = 1e-3
"""Spacing of the privacy loss for figures that are shown to three digits."""


@dataclass(frozen=True)
class Spent:
    """The ledger's own account: an upper bound on what was released."""

    epsilon: OrInfinity
    delta: float
    releases: int
    epsilon_max: OrInfinity
    complete: bool


@dataclass(frozen=True)
class Result:
    """result.json."""

    spent: Spent
    seconds: dict[str, float | None]
    versions: dict[str, str]
    finished: str | None = None
    peak_memory_bytes: int | None = None
    measured: dict[str, float] = field(default_factory=dict)
    """What the user's own evaluation found, by name."""


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json: confusion[i][j] images of class i were called class j. metrics: None in runs of
    version 0.1. findings: in place of both, where an image has several; accuracy is then of all entries
    that are known."""

    split: str
    n: int
    confusion: tuple[tuple[int, ...], ...]
    accuracy: float
    source: str
    metrics: Metrics | None = None
    findings: tuple[FindingMeasure, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One line of metrics.jsonl. images: that `accuracy` is of, None for all held-out ones. roc_auc: the
    mean over findings; roc_aucs: of each, with the ends of its interval; None where it is unknown."""

    step: int
    epsilon: OrInfinity
    accuracy: float | None = None
    measured: dict[str, float] = field(default_factory=dict)
    images: int | None = None
    roc_auc: float | None = None
    roc_aucs: tuple[tuple[float, float, float] | None, ...] = ()

    @property
    def scored(self) -> str:
        """What `score` is."""
        return "mean ROC AUC" if self.roc_aucs else "accuracy"

    @property
    def score(self) -> float | None:
        if self.roc_aucs:
            return self.roc_auc
        return self.measured.get("accuracy", self.accuracy)


@dataclass(frozen=True)
class Shown:
    """One evaluation image that the user asked to see."""

    png_base64: str
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class RunFacts:
    """Everything a report may say. `classes` are fit to be shown; nothing else here has been
    cleaned."""

    run_dir: Path
    config: dict[str, Any]
    plan: Plan | MethodPlan
    result: Result
    evaluation: Evaluation | None = None
    metrics: tuple[Metric, ...] = ()
    images: tuple[Shown, ...] = ()
    audit: AuditRecord | None = None
    """What a report shows of it."""
    kept_back: tuple[str, ...] = ()
    """Attacks whose results it does not show: they rest on private images, and nothing was paid for
    them."""
    risks: Risks | None = None
    """Of the ledger's releases; None for a ledger that has none."""

    @classmethod
    def load(cls, run_dir: Path, with_audit: bool = False) -> "RunFacts":
        """Read a run directory; of its audit what was measured on the private images only if that
        is asked for.

        Raises RunError, one line, where a file is missing, damaged or contradicts another.
        """
        run_dir = Path(run_dir)
        if not run_dir.is_dir():
            raise RunError(
                f"{run_dir}: no such run directory; `sfumato train --out {run_dir}` makes one"
            )
        facts = cls(
            run_dir=run_dir,
            config=typed_json.read(dict[str, Any], run_dir / "config.json"),
            plan=_plan(run_dir / "plan.json"),
            result=typed_json.read(Result, run_dir / "result.json"),
            evaluation=typed_json.read_if_there(Evaluation, run_dir / "evaluation.json"),
            metrics=typed_json.read_lines(Metric, run_dir / "metrics.jsonl"),
            images=typed_json.read_if_there(tuple[Shown, ...], run_dir / "images.json") or (),
            audit=typed_json.read_if_there(AuditRecord, run_dir / AUDIT_FILE),
        )
        _known(facts)
        for name, complaint in [*_contradictions(facts), *_ledger_faults(facts)]:
            raise RunError(f"{run_dir / name}: {complaint}; restore the file or train again")
        ledger = Ledger.read(run_dir)
        facts = replace(
            facts, risks=risks(ledger.tally, ledger.relation, _ROUGHLY) if ledger.tally else None
        )
        return facts if with_audit else facts.without_unpaid()

    def without_unpaid(self) -> "RunFacts":
        """Without what attacks measured on the private images."""
        if self.audit is None or not self.audit.unpaid:
            return self
        return replace(
            self,
            audit=self.audit.paid() if self.audit.paid().results else None,
            kept_back=self.audit.unpaid,
        )

    @property
    def shown(self) -> str:
        """What the model is evaluated on, one of them; a unit may hold several."""
        return "example" if self.plan.model == "rows" else "image"

    @property
    def spent(self) -> Spent:
        return self.result.spent

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(printable(name) for name in self.plan.classes)

    @property
    def not_private(self) -> str:
        """Why nothing is promised, in words; empty where something is."""
        return "" if self.plan.not_private is None else self.plan.not_private.words

    @property
    def insecure(self) -> bool:
        return self.plan.insecure or self.config.get("insecure_seed") is not None

    @property
    def overspent(self) -> bool:
        """More was spent than promised. The ledger refuses this; if it happened all the same,
        readers must know."""
        return self.spent.epsilon > self.plan.epsilon * (
            1 + 1e-9
        ) or self.spent.delta > self.plan.delta * (1 + 1e-9)


def _known(facts: RunFacts) -> None:
    """Raise RunError for noise that this version does not know, or that comes from outside and was
    not allowed."""
    try:
        _ = NOISES[facts.plan.noise], generators.find(facts.plan.noise_rng)
    except ArgumentError as error:
        raise RunError(f"{facts.run_dir / 'plan.json'}: {error}") from None


def _plan(path: Path) -> Plan | MethodPlan:
    """Of `sfumato train` and its like, or of `sf.run`, whose methods have no settings of ours."""
    ours = "settings" in typed_json.read(dict[str, Any], path)
    plan: Plan | MethodPlan = typed_json.read(Plan if ours else MethodPlan, path)
    return plan


def _contradictions(facts: RunFacts) -> list[tuple[str, str]]:
    """(file, complaint) for each number that cannot be true."""
    plan, spent, found = facts.plan, facts.spent, []
    if plan.n < 1 or not plan.releases:
        found.append(("plan.json", "n and releases must not be empty"))
    if plan.epsilon <= 0 or not 0 <= plan.delta < 1:
        found.append(
            ("plan.json", f"epsilon={plan.epsilon}, delta={plan.delta} is not a privacy guarantee")
        )
    if spent.epsilon < 0 or not 0 <= spent.delta < 1 or spent.releases < 0:
        found.append(
            ("result.json", f"cannot have spent epsilon={spent.epsilon}, delta={spent.delta}")
        )
    if facts.evaluation is not None:
        found += [
            ("evaluation.json", text)
            for text in (
                _evaluation_faults(facts.evaluation, len(plan.classes))
                if plan.task.exclusive
                else _finding_faults(facts.evaluation, len(plan.classes))
            )
        ]
    if not all(_is_png(image.png_base64) for image in facts.images):
        found.append(("images.json", "an image is not a base64 PNG"))
    return found


def _ledger_faults(facts: RunFacts) -> list[tuple[str, str]]:
    """Where the files claim other than the ledger shows; the ledger is recomputed, not believed."""
    ledger, spent = Ledger.read(facts.run_dir), facts.spent
    if ledger.relation != facts.plan.relation:
        return [
            ("plan.json", f"says {facts.plan.relation}, the ledger was kept for {ledger.relation}")
        ]
    if ledger.private != (facts.plan.not_private is None):
        what = "a promise" if ledger.private else "no promise"
        return [("plan.json", f"contradicts the ledger, which was kept for {what}")]
    found = ledger.epsilon()
    if (
        ledger.releases != spent.releases
        or not math.isclose(found, spent.epsilon, rel_tol=1e-6, abs_tol=1e-6)
        or ledger.delta != spent.delta
    ):
        return [
            (
                "result.json",
                f"says epsilon={spent.epsilon:.6g} at delta={spent.delta:g} in {spent.releases} releases, the "
                f"ledger epsilon={found:.6g} at delta={ledger.delta:g} in {ledger.releases}",
            )
        ]
    return []


def _evaluation_faults(evaluation: Evaluation, classes: int) -> list[str]:
    rows = evaluation.confusion
    if len(rows) != classes or any(len(row) != classes for row in rows):
        return [f"the confusion matrix must be {classes} by {classes}, one row per class"]
    if any(count < 0 for row in rows for count in row):
        return ["the confusion matrix has a negative count"]
    total, right = sum(map(sum, rows)), sum(rows[i][i] for i in range(classes))
    if total != evaluation.n or total == 0:
        return [f"the confusion matrix counts {total} images, n says {evaluation.n}"]
    if abs(right / total - evaluation.accuracy) > 1e-4:
        return [
            f"accuracy={evaluation.accuracy} is not that of the confusion matrix, {right / total:.6f}"
        ]
    if evaluation.split not in ("test", "validation"):
        return [f"split={evaluation.split!r} is not test or validation"]
    return [] if evaluation.metrics is None else _metrics_faults(evaluation.metrics, total, classes)


def _finding_faults(evaluation: Evaluation, findings: int) -> list[str]:
    if len(evaluation.findings) != findings:
        return [f"one measure for each of {findings} findings is needed"]
    if any(each.n > evaluation.n for each in evaluation.findings):
        return [f"a finding is known of more than the {evaluation.n} images"]
    known = sum(each.n for each in evaluation.findings)
    right = sum(each.found + each.cleared for each in evaluation.findings)
    if abs(right / max(known, 1) - evaluation.accuracy) > 1e-4:
        return [f"accuracy={evaluation.accuracy} is not that of the findings, {right}/{known}"]
    if evaluation.split not in ("test", "validation"):
        return [f"split={evaluation.split!r} is not test or validation"]
    return []


def _metrics_faults(metrics: Metrics, total: int, classes: int) -> list[str]:
    if {len(metrics.roc_auc), len(metrics.pr_auc)} != {classes}:
        return [f"metrics: one area for each of {classes} classes is needed"]
    if len(metrics.bins) != BINS or sum(each.n for each in metrics.bins) != total:
        return [f"metrics: the bins of confidence must count all {total} images"]
    if metrics.two is not None and (
        classes != 2 or metrics.two.positive not in (0, 1) or len(metrics.two.roc) != len(ROC_GRID)
    ):
        return ["metrics: a curve of two classes is needed for two classes"]
    if any(
        len(each.confusion) != classes
        or any(len(row) != classes or min(row) < 0 for row in each.confusion)
        for each in metrics.groups
    ):
        return [f"metrics: a group's confusion matrix must be {classes} by {classes}"]
    return []


def _is_png(text: str) -> bool:
    try:
        return base64.b64decode(text, validate=True).startswith(PNG_SIGNATURE)
    except (binascii.Error, ValueError):
        return False
