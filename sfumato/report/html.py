"""What stands in `report.html` (`pages.py` fills the template)."""

import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from sfumato.core import plugins, typed_json
from sfumato.core.files import write_atomic
from sfumato.privacy.meaning import PRIORS, meaning
from sfumato.report import (
    accuracy,
    audit_section,
    figures,
    finding_measures,
    measures,
    noise_limits,
    words,
)
from sfumato.report.card import model_card
from sfumato.report.facts import RunFacts, printable
from sfumato.report.pages import page
from sfumato.report.statement import privacy_statement, warnings
from sfumato.report.verdict import problems_of


def write_report(run_dir: Path, with_audit: bool = False, trust: str | None = None) -> Path:
    """Write `report.html` and `model_card.md` into a run directory; returns the report's path.
    Raises RunError.

    with_audit: the page also shows what attacks measured on the private images, which no ledger
    paid for. trust: code from outside that the run was begun with, package.module:Class.
    """
    if trust is not None:
        plugins.allow(trust)
        plugins.find("trust", trust)
    facts = RunFacts.load(run_dir, with_audit)
    page, card = render(facts), model_card(facts.without_unpaid())
    write_atomic(facts.run_dir / "model_card.md", card)
    write_atomic(facts.run_dir / "report.html", page)
    return facts.run_dir / "report.html"


def render(facts: RunFacts) -> str:
    """The page."""
    return page("template.html", _page(facts) | _measured(facts))


def _page(facts: RunFacts) -> dict[str, Any]:
    """Everything but the evaluation."""
    return {
        "facts": facts,
        "plan": facts.plan,
        "spent": facts.spent,
        "name": printable(facts.plan.name),
        "finished": _when(facts.result.finished),
        "warnings": warnings(facts),
        # the banners say what the statement's first paragraph would
        "statement": [each for each in privacy_statement(facts) if each.title != "Read this first"],
        "settings": _settings(facts.config),
        "timings": [
            (name, words.duration(s)) for name, s in facts.result.seconds.items() if s is not None
        ],
        "memory": None
        if facts.result.peak_memory_bytes is None
        else words.size(facts.result.peak_memory_bytes),
        "audit": None if facts.audit is None else audit_section.section(facts.audit, facts.plan),
        "noise": noise_limits.name(facts.plan),
        "sampling": facts.plan.sampler.kind if facts.plan.sampler else "",
        "privacy_curve": None
        if facts.risks is None or facts.insecure or facts.not_private
        else figures.privacy_curve(facts.risks, facts.spent.epsilon, facts.spent.delta),
        "meaning": None
        if facts.insecure or facts.not_private or facts.spent.epsilon <= 0
        else _meaning(facts),
        "recheck": f"sfumato account {shlex.quote(facts.run_dir.resolve().name + '/ledger.jsonl')}",
    }


def _meaning(facts: RunFacts) -> dict[str, Any]:
    """What the ε spent lets an attacker believe of one person, before and after."""
    found = meaning(facts.spent.epsilon, facts.spent.delta)
    return {
        "beliefs": [
            (words.percent(prior, 0), words.risk(after))
            for prior, after in zip(PRIORS, found.posteriors, strict=True)
        ],
        "guess": words.risk(found.guess),
        "unit": facts.plan.whole_unit,
    }


def _measured(facts: RunFacts) -> dict[str, Any]:
    """The evaluation in words, tables and plots; empty where there is none."""
    evaluation = facts.evaluation
    shown = f"{'evaluation' if evaluation is None else evaluation.split} {facts.shown}s"
    found: dict[str, Any] = {
        "evaluation": evaluation,
        "no_evaluation": accuracy.accuracy_sentence(facts) if evaluation is None else "",
        "measured": list(facts.result.measured.items())[:1],
        "curve": figures.learning_curve(facts.metrics, facts.plan.epsilon, shown),
        "shown": shown,
        "findings": [],
    }
    if evaluation is None:
        return found
    found |= {
        "findings": finding_measures.finding_rows(
            evaluation, facts.classes[: len(evaluation.findings)]
        ),
        "verdicts": problems_of(evaluation, facts.plan.classes),
        "accuracy": accuracy.accuracy_sentence(facts),
        "source": accuracy.source_sentence(facts, evaluation),
    }
    if evaluation.findings:
        names = facts.classes[: len(evaluation.findings)]
        return found | {
            "mean_area": finding_measures.mean_areas(evaluation)[0],
            "mean_over": finding_measures.mean_over(evaluation),
            "finding_plot": figures.finding_plot(names, evaluation.findings, shown),
        }
    rows = accuracy.class_rows(facts, evaluation)
    return found | {
        "score": accuracy.total(evaluation),
        "guess": accuracy.guess_sentence(facts, evaluation),
        "rows": rows,
        "mistakes": accuracy.commonest_mistakes(facts, evaluation),
        "class_plot": figures.class_plot(facts.classes, [row.found for row in rows], shown),
        "confusion": figures.confusion_plot(facts.classes, evaluation, shown),
        **measures.section(facts, evaluation, shown),
    }


def _settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The configuration as text, what was set of it. Of a path only the last part: the rest is about a
    computer, maybe about a person."""
    shown = []
    for key, value in typed_json.entries(config, " "):
        if value is None or value is False:
            continue
        if value is True:
            text = "yes"
        else:
            text = str(value)
            text = text.replace("\\", "/").rstrip("/").rpartition("/")[2] or text
        shown.append((printable(key.replace("_", " ")), printable(text)))
    return shown


def _when(finished: str | None) -> str | None:
    """A day and the time of day, if that is told."""
    try:
        moment = datetime.fromisoformat(finished or "")
    except ValueError:
        return finished
    if "T" not in (finished or ""):
        return f"{moment.day} {moment:%B %Y}"
    zone = moment.tzname()
    return f"{moment.day} {moment:%B %Y, %H:%M}{' ' + zone if zone else ''}"
