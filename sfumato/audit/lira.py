"""Membership inference on a final model: the likelihood ratio attack. Carlini et al. 2022 (arXiv
2112.03570), Alg. 1.

Shadow models are trained as the audited one was, each on a random half of a pool of images. How
sure a model is of an image's label, phi = log(p / (1 - p)), is about Gaussian over models, with one
mean if the image was among those trained on and another if not. The score of an image is the log
ratio of the two densities at the audited model's phi. With few shadow models a variance per image
would be guesswork; two are shared by all images (their Sec. VI-C).

This is what attackers do in practice. It measures typical images, not the worst case, and an
(epsilon, delta) guarantee usually leaves it far more room than it uses.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, rankdata

from sfumato.audit.result import AuditResult, Claim
from sfumato.audit.verdicts import by_clopper_pearson
from sfumato.core.errors import ArgumentError
from sfumato.privacy.relations import true_positive_rate
from sfumato.privacy.risks import FALSE_POSITIVE_RATES

ATTACK = "lira"
Sureness = Float[np.ndarray, " n"]


def lira(
    shadow: Callable[[Bool[np.ndarray, " n"]], Sureness],
    audited: Sureness,
    members: Bool[np.ndarray, " n"],
    claim: Claim,
    stream: np.random.Generator,
    *,
    shadows: int = 16,
    advance: Callable[[int], None] = lambda done: None,
) -> list[AuditResult]:
    """Attack one model. shadow: which images of the pool to train on -> phi of every image under
    the model trained on them.

    audited: phi under the model that is attacked. members: which images it was trained on.
    """
    began = time.monotonic()
    inside, sure = [], []
    order = np.array(
        [stream.permutation(shadows) for _ in range(len(members))]
    )  # every image is in half of the models
    for k in range(shadows):
        inside.append(order[:, k] < shadows // 2)
        sure.append(shadow(inside[-1]))
        advance(k + 1)
    scores = likelihood_ratios(np.array(sure), np.array(inside), audited)
    shuffled = stream.permutation(len(members))
    found = by_clopper_pearson(
        ATTACK, scores[shuffled], members[shuffled], claim, time.monotonic() - began
    )
    found.details.update(operating_points(scores, members, claim))
    return [found]


def likelihood_ratios(
    sure: Float[np.ndarray, "s n"], inside: Bool[np.ndarray, "s n"], audited: Sureness
) -> Float[np.ndarray, " n"]:
    """The log of the Gaussian density at `audited` with the image in the training set over that
    without."""
    densities = []
    for chosen in (inside, ~inside):
        count = chosen.sum(0)
        mean = (sure * chosen).sum(0) / count
        spread = np.sqrt((((sure - mean) ** 2) * chosen).sum() / max(1, (count - 1).sum()))
        densities.append(norm.logpdf(audited, mean, max(spread, 1e-6)))
    return densities[0] - densities[1]


def operating_points(
    scores: Float[np.ndarray, " n"], members: Bool[np.ndarray, " n"], claim: Claim
) -> dict[str, float]:
    """The area under the ROC curve, and true positive rates beside what the claim allows."""
    n_members, n_others = int(members.sum()), int((~members).sum())
    ranks = rankdata(scores)
    points = {
        "AUC": float(
            (ranks[members].sum() - n_members * (n_members + 1) / 2) / (n_members * n_others)
        )
    }
    others = np.sort(scores[~members])[::-1]
    for rate in FALSE_POSITIVE_RATES:
        threshold = others[int(rate * n_others)]  # so many others lie above it
        points[f"TPR at FPR {rate:g}"] = float((scores[members] > threshold).mean())
        points[f"TPR allowed at FPR {rate:g}"] = _allowed(claim, rate)
    return points


def _allowed(claim: Claim, rate: float) -> float:
    """By the releases themselves, or by (epsilon, delta) where no more is known of them."""
    try:
        return true_positive_rate(claim.tally, rate, claim.relation)
    except ArgumentError:
        return float(min(1.0, np.exp(claim.epsilon) * rate + claim.delta))
