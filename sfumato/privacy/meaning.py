"""What a guarantee means for one person: how sure an attacker can become that this person was among those
that a model was trained on.

Every test of "was this person used?" with false positive rate f and true positive rate t satisfies,
between neighboring data sets,
    t <= e^ε f + δ       and       1 - f <= e^ε (1 - t) + δ
(Wasserman & Zhou 2010, Thm. 2.4; Kairouz, Oh & Viswanath 2015, Thm. 2.1, who show that every such
mechanism is what follows from one that says the truth with probability δ and else tells one bit,
right with odds e^ε to 1). So, but for an event of probability δ,
    posterior odds  <=  e^ε x prior odds,
whatever the attacker knew before and whatever it looks at. An attacker who accuses at a false positive
rate f, of people of whom a share π was used, is right with probability
    π t / (π t + (1 - π) f)        (Bayes),
at most what the largest t allows. Who must guess for one person, with even odds before, is right with
probability (1 + t - f) / 2, at most (e^ε + δ) / (1 + e^ε). A run's own trade-off curve (Dong, Roth & Su
2019) allows no more, and mostly less.
"""

import math
from dataclasses import dataclass

from sfumato.core.checks import fraction, positive, probability

LARGE_EPSILON = 700.0  # e^ε overflows a double soon after
PRIORS = (0.5, 0.01)
RATES = (0.001, 0.01, 0.1)
"""Of false accusations."""


def largest_true_positive_rate(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """min(e^ε f + δ, 1 - e^-ε (1 - δ - f)), within [0, 1]."""
    first = math.exp(min(epsilon, LARGE_EPSILON)) * false_positive_rate + delta
    second = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return max(0.0, min(first, second, 1.0))


def posterior(prior: float, epsilon: float) -> float:
    """The largest belief, of one that was `prior`, but for an event of probability δ."""
    probability("prior", prior)
    if prior == 1:
        return 1.0
    odds = math.log(prior / (1 - prior)) + epsilon
    return 1 / (1 + math.exp(-min(odds, LARGE_EPSILON)))


def accused_rightly(prior: float, true_rate: float, false_rate: float) -> float:
    """Of those who are accused, the share that was used."""
    return prior * true_rate / (prior * true_rate + (1 - prior) * false_rate)


def guessed_rightly(epsilon: float, delta: float) -> float:
    """The best guess for one person, with even odds before."""
    return (1 + delta * math.exp(-min(epsilon, LARGE_EPSILON))) / (
        1 + math.exp(-min(epsilon, LARGE_EPSILON))
    )


@dataclass(frozen=True)
class Attacker:
    """At this rate of false accusations: the largest share that can be recognized, and of `PRIORS` the
    largest share of accusations that are right."""

    false_rate: float
    true_rate: float
    right: tuple[float, ...]


@dataclass(frozen=True)
class Meaning:
    """posteriors: one for each of `PRIORS`. guess: the best guess at even odds, as a probability."""

    epsilon: float
    delta: float
    posteriors: tuple[float, ...]
    guess: float
    attackers: tuple[Attacker, ...]


def meaning(epsilon: float, delta: float, known: dict[float, float] | None = None) -> Meaning:
    """known: largest true positive rates by false positive rate, of the run's own curve, where they are
    smaller. Raises ArgumentError."""
    positive("epsilon", epsilon)
    fraction("delta", delta)
    attackers = []
    for f in RATES:
        t = min(largest_true_positive_rate(epsilon, delta, f), (known or {}).get(f, 1.0))
        attackers.append(Attacker(f, t, tuple(accused_rightly(prior, t, f) for prior in PRIORS)))
    posteriors = tuple(posterior(prior, epsilon) for prior in PRIORS)
    return Meaning(epsilon, delta, posteriors, guessed_rightly(epsilon, delta), tuple(attackers))
