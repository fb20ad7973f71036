"""`sfumato calibrate` and `sfumato account`, in words."""

from collections.abc import Callable
from pathlib import Path

from sfumato.core.checks import (
    default_delta,
    fraction,
    large_delta,
    noisy,
    positive,
    privacy_target,
    whole,
)
from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants, calibration, relations
from sfumato.privacy.events import GaussianEvent, Tally
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.neighbors import RELATIONS, Relation
from sfumato.privacy.not_private import MARK
from sfumato.privacy.risks import risks
from sfumato.sampling import Poisson


def calibrate(epsilon: float, delta: float | None, n: int, batch: int, steps: int) -> str:
    """The least noise multiplier, with the numbers it was found for."""
    epsilon, delta = privacy_target(epsilon, delta, whole("n", n))
    sampler = _sampler(n, batch, steps)
    sigma = calibration.noise_multiplier(lambda s: _tally(sampler, s), epsilon, delta)
    spent = accountants.epsilon(_tally(sampler, sigma), delta)
    return (
        f"noise multiplier {sigma:.6g}   (epsilon {spent:.6g} <= {epsilon:g} at delta {delta:g}; n={n}, "
        f"q={sampler.q:.6g}, {steps} steps; {accountants.describe(_tally(sampler, sigma), delta)}){_warned(delta, n)}"
    )


def of_numbers(
    sigma: float | None, delta: float | None, n: int | None, batch: int | None, steps: int | None
) -> str:
    """epsilon of DP-SGD with these numbers."""
    given = {"noise_multiplier": sigma, "n": n, "batch": batch, "steps": steps}
    if sigma is None or n is None or batch is None or steps is None:
        missing = [name for name, value in given.items() if value is None]
        raise ArgumentError(
            missing[0], None, "give a ledger, or all of --noise-multiplier, --n, --batch, --steps"
        )
    noisy("noise_multiplier", sigma)
    delta = _delta(delta, n)
    tally = _tally(_sampler(n, batch, steps), sigma)
    return (
        f"epsilon {accountants.epsilon(tally, delta):.6g} at delta {delta:g}   ({accountants.describe(tally, delta)})"
        f"{_warned(delta, n)}"
    )


def _delta(delta: float | None, n: int) -> float:
    """Any delta may be computed with, also one that protects nobody, as some papers have it;
    `_warned` says so."""
    return (
        default_delta(whole("n", n))
        if delta is None
        else fraction("delta", positive("delta", delta))
    )


def _warned(delta: float, n: int) -> str:
    problem = large_delta(delta, whole("n", n))
    return f"\nwarning: {problem}" if problem else ""


def of_ledger(path: Path, delta: float | None) -> str:
    """epsilon recomputed from the ledger alone, with what it is composed of, by another accountant
    and for other relations."""
    ledger = Ledger.read(path)
    delta = ledger.delta if delta is None else positive("delta", delta)
    if not ledger.private:
        lines = [
            f"{MARK}: epsilon inf at delta {delta:g}   (the run promises nothing; unit: {ledger.unit})"
        ]
        return "\n".join([*lines, *_events(ledger)])
    spent = accountants.epsilon(ledger.tally, delta, relation=ledger.relation)
    lines = [
        f"epsilon {spent:.6g} at delta {delta:g}   (budget {ledger.epsilon_max:g} at delta {ledger.delta:g}; "
        f"{ledger.relation}, unit: {ledger.unit}; {accountants.describe(ledger.tally, delta, ledger.relation)})"
    ]
    lines += _events(ledger)
    check = _attempt(relations.renyi_epsilon, ledger.tally, delta, ledger.relation)
    lines += [f"  cross-check by Rényi divergences alone: {check}"]
    lines += _risks(ledger.tally, ledger.relation)
    lines += [
        f"  under {other}: {_attempt(_of_relation, ledger.tally, delta, other)}"
        for other in RELATIONS
        if other != ledger.relation
    ]
    return "\n".join(lines)


def _events(ledger: Ledger) -> list[str]:
    return [
        f"  {count:>6} x {event.words}" for event, count in sorted(ledger.tally.items(), key=str)
    ]


def _risks(tally: Tally, relation: Relation) -> list[str]:
    """The same guarantee seen otherwise: mu, epsilon at other deltas, what an attacker can achieve."""
    found = risks(tally, relation)
    lines = [
        "  epsilon at other deltas: "
        + ", ".join(f"{epsilon:.4g} at {delta:g}" for delta, epsilon in found.curve)
    ]
    if found.mu is not None:
        lines += [f"  mu-GDP with mu = {found.mu:.6g}"]
    if found.recognized:
        told = ", ".join(
            f"{100 * rate:.3g} % at {100 * f:g} % false alarms" for f, rate in found.recognized
        )
        lines += [f"  no attacker recognizes more members than {told}"]
    return lines


def _of_relation(tally: Tally, delta: float, relation: Relation) -> float:
    return accountants.epsilon(tally, delta, relation=relation)


def _attempt(
    find: Callable[[Tally, float, Relation], float], tally: Tally, delta: float, relation: Relation
) -> str:
    try:
        return f"epsilon {find(tally, delta, relation):.6g}"
    except ArgumentError as error:
        return f"not known ({error.way_out})"


def _sampler(n: int, batch: int, steps: int) -> Poisson:
    if whole("batch", batch) > n:
        raise ArgumentError("batch", batch, f"give at most n={n}")
    return Poisson(batch / n, whole("steps", steps), n)


def _tally(sampler: Poisson, sigma: float) -> Tally:
    return {sampler.event(GaussianEvent(sigma)): sampler.steps}
