"""(epsilon, delta) of a tally of events, always from above, through the released `dp-accounting`.

Full-batch Gaussian releases compose exactly: adaptive releases with noise multipliers s_1 ... s_k
are together as private as one release with multiplier (sum_i s_i^-2)^(-1/2), i.e. mu-GDP with mu^2
= sum_i s_i^-2 (Dong, Roth, Su 2019, Cor. 3.3), and epsilon(delta) of one Gaussian is known in
closed form up to a root search (Balle & Wang 2018, Thm. 8). As soon as one event is subsampled, the
privacy loss distributions are discretized pessimistically and composed by FFT (PLD; Koskela et al.
2020, Doroshenko et al. 2022) on a grid chosen for them (`losses.py`), the plain Gaussians first
merged into one; Rényi divergences (Mironov 2017) bound epsilon, too, and the smaller one counts. A
selected event, the best of several runs, is known by its Rényi divergences (Papernot & Steinke
2022, arXiv 2110.03620, Thm. 2), and all that is with it is composed there. `relations.py` composes;
here are the names that everybody else uses.
"""

import importlib.metadata

from sfumato.core.checks import positive
from sfumato.core.errors import ArgumentError
from sfumato.privacy import relations
from sfumato.privacy.events import Tally

PLD_INTERVAL = relations.PLD_INTERVAL


def epsilon(
    tally: Tally,
    delta: float,
    interval: float = PLD_INTERVAL,
    relation: relations.Relation = relations.ADD_OR_REMOVE,
) -> float:
    """An epsilon such that the composition of `tally` is (epsilon, delta)-DP under `relation`. An
    empty tally costs 0."""
    _check_delta(delta)
    return relations.epsilon(tally, delta, relation, interval)


def describe(
    tally: Tally, delta: float, relation: relations.Relation = relations.ADD_OR_REMOVE
) -> str:
    """The accountant that `epsilon` uses for this tally at this delta, in words for the report.
    Raises as it does."""
    library = f"dp-accounting {importlib.metadata.version('dp-accounting')}"
    found, (_, parts) = relations.price(tally, delta, relation), relations.simplified(tally)
    if found.accountant == "none":
        return "no accountant, as nothing is promised"
    if bounds := sorted({event.renyi_only for event, _ in parts} - {""}):
        return f"Rényi differential privacy with the bound of {' and '.join(bounds)}, by {library}"
    if found.accountant == "PLD":
        return f"PLD (privacy loss distribution) by {library}, discretized pessimistically at {found.spacing:g}"
    if found.accountant == "Rényi":
        return f"Rényi differential privacy by {library}, which at this delta and number of steps is tighter than PLD"
    return f"exact Gaussian composition, by {library}"


def _check_delta(delta: float) -> None:
    positive("delta", delta)
    if delta >= 1:
        raise ArgumentError("delta", delta, "give a number below 1")
