"""What an evaluation says: the total, each class, the commonest mistakes, and what a guess would
reach."""

from dataclasses import dataclass

from sfumato.report import finding_measures, words
from sfumato.report.facts import Evaluation, RunFacts, printable
from sfumato.report.intervals import Score

OWN_EVALUATION = "Measured by a function of whoever ran the method, on data that it chose; these are not protected by the guarantee."
NO_EVALUATION = "There were no test data, so this model's accuracy is unknown."


@dataclass(frozen=True)
class ClassRow:
    """One class: how many of it were found, and how often its name was rightly given."""

    number: int
    name: str
    found: Score
    rightly_called: Score
    mistaken_for: str | None


@dataclass(frozen=True)
class Mistake:
    true: str
    called: str
    times: int
    of: int


def total(evaluation: Evaluation) -> Score:
    return Score(sum(row[i] for i, row in enumerate(evaluation.confusion)), evaluation.n)


def with_interval(score: Score, what: str) -> str:
    """'89.5 % (95 % interval 88.9 to 90.1, 10,000 test images)'."""
    if score.value is None:
        return f"unknown (no {what}s)"
    low, high = score.interval
    return (
        f"{words.percent(score.value)} (95{words.NBSP}% interval {100 * low:.1f} to {100 * high:.1f}, "
        f"{words.plural(score.n, what)})"
    )


def accuracy_sentence(facts: RunFacts) -> str:
    if facts.evaluation is None and facts.result.measured:
        told = ", ".join(
            f"{printable(name)} {value:.6g}" for name, value in facts.result.measured.items()
        )
        return f"{told}. {OWN_EVALUATION}"
    if facts.evaluation is None:
        return NO_EVALUATION
    evaluation, shown = facts.evaluation, f"{facts.evaluation.split} {facts.shown}"
    if evaluation.findings:
        return f"{finding_measures.mean_words(evaluation)} ({words.plural(evaluation.n, shown)})"
    return with_interval(total(evaluation), shown)


def guess_sentence(facts: RunFacts, evaluation: Evaluation) -> str:
    """What knowing nothing would reach."""
    sizes = [sum(row) for row in evaluation.confusion]
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    return (
        f"A guess among {words.plural(len(sizes), 'class')} is right {words.percent(1 / len(sizes))} of the time; "
        f"always answering “{facts.classes[largest]}”, the commonest class of these {facts.shown}s, "
        f"{words.percent(sizes[largest] / evaluation.n)}."
    )


def source_sentence(facts: RunFacts, evaluation: Evaluation) -> str:
    """Where the numbers come from, and what that means for them."""
    if evaluation.split == "validation":
        return (
            f"These numbers come from validation {facts.shown}s ({evaluation.source}), not from a test set. Validation "
            f"{facts.shown}s had no part in training and are not protected by the guarantee. If settings were chosen by "
            "them, the numbers are too optimistic."
        )
    return (
        f"These numbers come from test {facts.shown}s ({evaluation.source}), which had no part in training and are not "
        "protected by the guarantee."
    )


def class_rows(facts: RunFacts, evaluation: Evaluation) -> list[ClassRow]:
    confusion, names = evaluation.confusion, facts.classes
    columns = [sum(column) for column in zip(*confusion, strict=True)]
    found = []
    for i, row in enumerate(confusion):
        wrong = max((j for j in range(len(names)) if j != i), key=row.__getitem__, default=i)
        mistaken_for = f"{names[wrong]} ({row[wrong]:,})" if wrong != i and row[wrong] else None
        found.append(
            ClassRow(i, names[i], Score(row[i], sum(row)), Score(row[i], columns[i]), mistaken_for)
        )
    return found


def commonest_mistakes(facts: RunFacts, evaluation: Evaluation, most: int = 10) -> list[Mistake]:
    names, k = facts.classes, len(facts.classes)
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j and evaluation.confusion[i][j]]
    pairs.sort(key=lambda pair: -evaluation.confusion[pair[0]][pair[1]])
    return [
        Mistake(names[i], names[j], evaluation.confusion[i][j], sum(evaluation.confusion[i]))
        for i, j in pairs[:most]
    ]
