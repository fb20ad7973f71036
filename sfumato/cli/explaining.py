"""What an epsilon means for one person, as text."""

from pathlib import Path

from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants, relations
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.meaning import PRIORS, RATES, Meaning, meaning
from sfumato.privacy.not_private import MARK


def of_number(epsilon: float, delta: float) -> str:
    """From (epsilon, delta) alone: what holds for every method with this promise."""
    return _told(meaning(epsilon, delta), "one person", "any method that keeps this promise")


def of_run(path: Path, delta: float | None) -> str:
    """From the releases in a run's ledger."""
    if not path.exists():
        raise ArgumentError("epsilon", str(path), "give a number, such as 3, or a run's directory")
    ledger = Ledger.read(path)
    if not ledger.private:
        return f"{MARK} (epsilon inf): the run promises nothing, so an attacker can become as sure as can be"
    delta = ledger.delta if delta is None else delta
    epsilon = accountants.epsilon(ledger.tally, delta, relation=ledger.relation)
    if epsilon <= 0:
        return f"nothing was released that costs anything (epsilon 0 at delta {delta:g})"
    try:
        known = {f: relations.true_positive_rate(ledger.tally, f, ledger.relation) for f in RATES}
    except ArgumentError:  # known by Rényi divergences only
        known = {}
    source = "the run's own releases, all together" if known else "(epsilon, delta)"
    return _told(meaning(epsilon, delta, known), f"one {ledger.unit}", source)


def _told(found: Meaning, unit: str, source: str) -> str:
    beliefs = [
        f"  {_percent(prior):>6} sure before  ->  at most {_percent(after, up=True)} sure after"
        for prior, after in zip(PRIORS, found.posteriors, strict=True)
    ]
    attacks = [
        f"  {_percent(each.false_rate):>6} wrongly accused  ->  at most {_percent(each.true_rate, up=True)} of the members "
        "recognized; of the accused at most "
        + ", ".join(
            f"{_percent(right, up=True)} are members (if {_percent(prior)} of those asked about are)"
            for right, prior in zip(each.right, PRIORS, strict=True)
        )
        for each in found.attackers
    ]
    return "\n".join(
        [
            f"epsilon {found.epsilon:.4g}, delta {found.delta:g}: whether {unit} was in the training set",
            "",
            "An attacker sees everything that is released and knows all other training data. Its belief that this one "
            "was used",
            "can change by a factor of e^epsilon in its odds, but for an event of probability delta:",
            *beliefs,
            f"Who must guess, at even odds, is right at most {_percent(found.guess, up=True)} of the time (50 % is no "
            "knowledge).",
            "",
            f"Accusing many, by {source}:",
            *attacks,
            "",
            "What is true of people in general (that an illness shows in an image) is learned with or without any one of "
            "them.",
            "The derivation, and how to choose: docs/which-epsilon.md",
        ]
    )


def _percent(share: float, up: bool = False) -> str:
    """Rounded; what bounds a risk is rounded up (and never to 100 % if it is less)."""
    import math

    if up and share < 1:
        for places in (1, 2, 4, 6):
            shown = math.ceil(share * 100 * 10**places - 1e-9) / 10**places
            if shown < 100:
                return f"{shown:g} %"
        return "more than 99.9999 %"
    return f"{100 * share:.3g} %"
