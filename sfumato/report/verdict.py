"""What a confusion matrix says against a model, in words: an accuracy alone can look well where
nothing was learned.

Compared with the model that always answers the commonest class, on the same images: let b images be
right by the model alone and c by the constant alone. If both were right equally often, b of b + c
would be a fair coin's heads (the sign test; McNemar 1947). Where so many heads are no surprise, the
accuracy is none either.
"""

from collections.abc import Sequence

from sfumato.report import finding_measures, words
from sfumato.report.facts import Evaluation, printable

UNSURPRISING = 0.05
NAMED = 5
"""Classes that are never found and are named; of more only the number is told."""


def problems_of(evaluation: Evaluation | None, classes: Sequence[str]) -> list[str]:
    """`verdicts` of an evaluation, or what its findings say; none where there was none."""
    if evaluation is None:
        return []
    if evaluation.findings:
        return finding_measures.by_chance(evaluation, classes)
    return verdicts(evaluation.confusion, classes)


def verdicts(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[str]:
    """Sentences without a full stop; none for a model that is worth its name. confusion[i][j]:
    images of class i called j."""
    sizes = [sum(row) for row in confusion]
    if not sum(sizes):
        return []
    return [*_guess(confusion, sizes, classes), *_never_found(confusion, sizes, classes)]


def _guess(
    confusion: Sequence[Sequence[int]], sizes: list[int], classes: Sequence[str]
) -> list[str]:
    common = max(range(len(sizes)), key=sizes.__getitem__)
    right = sum(row[i] for i, row in enumerate(confusion))
    alone = right - confusion[common][common]
    constant = sizes[common] - confusion[common][common]
    share = words.percent(sizes[common] / sum(sizes), 2).replace(words.NBSP, " ")
    name = printable(classes[common])
    if alone <= constant:
        called = [j for j in range(len(sizes)) if any(row[j] for row in confusion)]
        only = "; it answers nothing else" if called == [common] else ""
        return [f"no better than always '{name}', which is right for {share}{only}"]
    if _at_least(alone, alone + constant) > UNSURPRISING:
        return [
            f"not clearly better than always '{name}', which is right for {share}; more images would tell"
        ]
    return []


def _at_least(heads: int, tosses: int) -> float:
    """The probability that a fair coin shows so many heads or more."""
    from scipy.special import betainc

    return float(betainc(heads, tosses - heads + 1, 0.5))


def _never_found(
    confusion: Sequence[Sequence[int]], sizes: list[int], classes: Sequence[str]
) -> list[str]:
    lost = [i for i, size in enumerate(sizes) if size and not confusion[i][i]]
    found = [
        f"class '{printable(classes[i])}' is never found (0 of {sizes[i]:,})" for i in lost[:NAMED]
    ]
    return found + ([f"nor are {len(lost) - NAMED} more classes"] if len(lost) > NAMED else [])
