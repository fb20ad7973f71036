"""The audit of one training run, by images that are in it or not. Steinke, Nasr & Jagielski 2023
(arXiv 2305.08846), Sec. 6.

m canaries, images with wrong labels, enter the training set by fair coins. The model is trained
once; the attacker sees the final model only. A canary's score is how much smaller its loss is than
under a model that was trained, with other noise, on none of the canaries: anyone who knows the
other images can train that one. See `bounds.py`, "One run".
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from sfumato.audit.result import AuditResult, Claim
from sfumato.audit.verdicts import by_one_run
from sfumato.core.tasks import task_of

ATTACK = "one-run"
Losses = Callable[[Bool[np.ndarray, " m"]], Float[np.ndarray, " m"]]
"""Which canaries are in the training set -> the loss of every canary under the model trained on it.
"""


def one_run_audit(
    train: Losses, canaries: int, claim: Claim, stream: np.random.Generator
) -> list[AuditResult]:
    """Train twice, with no canary and with half of them, and bound epsilon without any assumption."""
    began = time.monotonic()
    reference = train(np.zeros(canaries, bool))
    included = stream.random(canaries) < 0.5
    scores = reference - train(included)
    return [by_one_run(ATTACK, scores, included, claim, time.monotonic() - began)]


def wrong_labels(labels: np.ndarray, classes: int, stream: np.random.Generator) -> np.ndarray:
    """Any label but the right one; of findings, all that are known the other way round."""
    return np.asarray(task_of(labels).wrong(labels, classes, stream))
