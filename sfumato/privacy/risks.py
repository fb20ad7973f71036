"""What a composition of releases means, told otherwise than by one (epsilon, delta): for `sfumato
account` and reports."""

from dataclasses import dataclass

from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants, relations
from sfumato.privacy.events import Tally
from sfumato.privacy.neighbors import Relation

DELTAS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9)
FALSE_POSITIVE_RATES = (0.001, 0.01)


@dataclass(frozen=True)
class Risks:
    """mu: of Gaussian differential privacy (Dong, Roth & Su 2019), None where releases are sampled.
    curve: (delta, epsilon). recognized: (false positive rate, the largest true positive rate of any
    attacker); empty for events that are known by Rényi divergences only.
    """

    mu: float | None
    curve: tuple[tuple[float, float], ...]
    recognized: tuple[tuple[float, float], ...]


def risks(tally: Tally, relation: Relation, interval: float = accountants.PLD_INTERVAL) -> Risks:
    """interval: spacing of the discretized privacy loss; ten times the usual one is ten times as
    quick, and rounds up further. Raises ArgumentError for events that no accountant here can price.
    """
    mu, sampled = relations.simplified(tally)
    try:
        recognized = tuple(
            (f, relations.true_positive_rate(tally, f, relation, interval))
            for f in FALSE_POSITIVE_RATES
        )
    except ArgumentError:
        recognized = ()
    curve = tuple(
        (delta, accountants.epsilon(tally, delta, interval, relation)) for delta in DELTAS
    )
    return Risks(None if sampled else mu * relations.distance(relation), curve, recognized)
