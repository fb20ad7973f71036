"""The model card: one page of Markdown to travel with the model file."""

import html
import re

from sfumato.privacy.not_private import MARK
from sfumato.report import finding_measures, words
from sfumato.report.accuracy import accuracy_sentence
from sfumato.report.facts import RunFacts, printable
from sfumato.report.statement import privacy_statement, warnings
from sfumato.report.verdict import problems_of


def markdown(text: str) -> str:
    """Text that Markdown will show as it is: class names are input from outside."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", html.escape(printable(text), quote=False))


def model_card(facts: RunFacts) -> str:
    """What the model is, what it promises, how well it does, what it is not for."""
    plan = facts.plan
    what = "image classifier" if plan.classes else "model"
    kind = (
        f"{MARK}, a baseline of a private {what}"
        if facts.not_private
        else f"a differentially private {what}"
    )
    lines = [f"# {markdown(plan.name)}: {kind}", ""]
    for warning in warnings(facts):
        lines += [f"> **{markdown(warning)}**", ""]
    names = ", ".join(markdown(name) for name in facts.classes[:50]) + (
        ", …" if len(facts.classes) > 50 else ""
    )
    lines += [
        f"* Method: {markdown(plan.method)}, model {markdown(plan.model)}, {plan.parameters:,} parameters",
        *(
            [f"* {plan.task.many.capitalize()} ({len(facts.classes)}): {names}"]
            if plan.classes
            else []
        ),
        f"* Privacy: {MARK}, ε = ∞"
        if facts.not_private
        else f"* Privacy: ε = {words.epsilon(facts.spent.epsilon)}, δ = {words.power(facts.spent.delta)}, "
        f"unit: one {markdown(plan.whole_unit)}",
        f"* Accuracy: {markdown(accuracy_sentence(facts))}",
        *(f"    * {markdown(line)}" for line in _findings(facts)),
        *(f"* Warning: {markdown(problem)}" for problem in _problems(facts)),
        "",
    ]
    for paragraph in privacy_statement(facts):
        if paragraph.title == "Read this first":
            continue
        lines += [f"## {markdown(paragraph.title)}", "", markdown(paragraph.text), ""]
        lines += [f"* {markdown(item)}" for item in paragraph.items]
        lines += [""] if paragraph.items else []
    versions = ", ".join(
        f"{markdown(name)} {markdown(version)}" for name, version in facts.result.versions.items()
    )
    return "\n".join([*lines, f"Made with {versions}.", ""])


def _findings(facts: RunFacts) -> list[str]:
    evaluation = facts.evaluation
    return (
        []
        if evaluation is None
        else finding_measures.lines(evaluation, facts.classes[: len(evaluation.findings)])
    )


def _problems(facts: RunFacts) -> list[str]:
    return problems_of(facts.evaluation, facts.plan.classes)
