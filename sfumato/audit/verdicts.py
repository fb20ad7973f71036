"""Scores of canaries -> results. A high score says "took part"; fair coins decided who did."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm

from sfumato.audit.bounds import clopper_pearson, clopper_pearson_each, lower_limit, one_run
from sfumato.audit.family import family_epsilon, of_one_fit, total_variation
from sfumato.audit.result import CONFIDENCE, AuditResult, Claim
from sfumato.core.errors import ArgumentError

FAMILY = (
    "the releases are Gaussian sums, sampled as stated, with the ledger's noise multipliers times one unknown factor; "
    "guesses of different canaries are independent"
)
INDEPENDENT = "guesses of different canaries are independent"
NOTHING = "none but that fair coins decided which canaries took part"

Scores = Float[np.ndarray, " n"]
Coins = Bool[np.ndarray, " n"]


def by_family(
    attack: str, scores: Scores, included: Coins, claim: Claim, seconds: float, threshold: float
) -> AuditResult:
    """All guesses against the best that the claimed mechanisms allow. threshold: fixed before the
    scores were seen."""
    right = int(((scores > threshold) == included).sum())
    bound = family_epsilon(right, len(scores), claim.tally, claim.delta, CONFIDENCE, claim.relation)
    details = {
        "right": right / len(scores),
        "right at most": (1 + total_variation(claim.tally)) / 2,
    }
    return claim.result(attack, "known family (f-DP)", bound, FAMILY, len(scores), seconds, details)


def by_clopper_pearson(
    attack: str, scores: Scores, included: Coins, claim: Claim, seconds: float
) -> AuditResult:
    """The threshold is chosen on every second canary and judged on the others."""
    threshold = best_threshold(scores[::2], included[::2], claim.delta)
    positive, member = scores[1::2] > threshold, included[1::2]
    if member.all() or not member.any():
        raise ArgumentError("canaries", len(scores), "too few to judge; take more")
    counts = (
        int((positive & ~member).sum()),
        int((~member).sum()),
        int((~positive & member).sum()),
        int(member.sum()),
    )
    bound = clopper_pearson(*counts, claim.delta, CONFIDENCE)
    details = {
        "false positive rate": counts[0] / counts[1],
        "true positive rate": 1 - counts[2] / counts[3],
    }
    return claim.result(
        attack, "Clopper-Pearson", bound, INDEPENDENT, len(member), seconds, details
    )


def by_one_run(
    attack: str, scores: Scores, included: Coins, claim: Claim, seconds: float
) -> AuditResult:
    """All canaries of ONE run. The center of the scores is their median, which needs no knowledge
    of who took part."""
    guesses = guesses_for(len(scores), claim)
    centered = scores - np.median(scores)
    surest = np.argsort(-np.abs(centered), kind="stable")[:guesses]
    right = int(((centered[surest] > 0) == included[surest]).sum())
    bound = one_run(len(scores), guesses, right, claim.delta, CONFIDENCE)
    details = {"canaries": float(len(scores)), "right": right / guesses}
    return claim.result(attack, "one run", bound, NOTHING, guesses, seconds, details)


def guesses_for(canaries: int, claim: Claim) -> int:
    """How many of the surest guesses to make: the number whose expected bound is highest if the
    claim is exactly true.

    A function of public numbers. Scores are taken for N(-mu/2, 1) and N(mu/2, 1), with mu from the
    claim's total variation; a score s is then guessed right with probability 1 / (1 + exp(-mu
    |s|)).
    """
    mu = 2 * norm.ppf((1 + min(total_variation(of_one_fit(claim.tally)), 1 - 1e-9)) / 2)
    at = (np.arange(canaries) + 0.5) / canaries
    surest = np.sort(np.abs(np.concatenate([norm.ppf(at) - mu / 2, norm.ppf(at) + mu / 2])))[::-2]
    right = np.cumsum(1 / (1 + np.exp(-mu * surest)))
    choices = np.unique(np.geomspace(min(10, canaries), canaries, 30).astype(int))
    expected = [_odds(lower_limit(int(right[r - 1]), int(r), CONFIDENCE)) for r in choices]
    return int(choices[int(np.argmax(expected))])


def _odds(share: float) -> float:
    return float(np.log(share / (1 - share))) if 0 < share < 1 else 0.0


def best_threshold(scores: Scores, included: Coins, delta: float) -> float:
    """The one, of up to 100 between the scores, with the largest Clopper-Pearson bound on these
    very scores."""
    ordered = np.unique(scores)
    between = (ordered[1:] + ordered[:-1]) / 2 if len(ordered) > 1 else ordered
    tried = between[np.unique(np.linspace(0, len(between) - 1, 100).astype(int))]
    members, nonmembers = np.sort(scores[included]), np.sort(scores[~included])
    if not len(members) or not len(nonmembers):
        raise ArgumentError("canaries", len(scores), "too few to judge; take more")
    missed = np.searchsorted(members, tried, side="right")
    accused = len(nonmembers) - np.searchsorted(nonmembers, tried, side="right")
    bounds = clopper_pearson_each(accused, len(nonmembers), missed, len(members), delta, CONFIDENCE)
    return float(tried[int(np.argmax(bounds))])


def most_accurate_threshold(scores: Scores, included: Coins) -> float:
    """The threshold with the most right guesses on these very scores."""
    order = np.argsort(scores, kind="stable")
    ordered, member = scores[order], included[order]
    right = np.concatenate(
        [[member.sum()], member.sum() + np.cumsum(np.where(member, -1, 1))]
    )  # guess the first k "out"
    k = int(np.argmax(right))
    return float("-inf") if k == 0 else float(ordered[k - 1])
