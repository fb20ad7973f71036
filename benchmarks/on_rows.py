"""dp-fc as `sfumato train` runs it, on rows of features that were computed before."""

import numpy as np

from sfumato.core.keys import SecretKey
from sfumato.features.feature_map import FeatureMap
from sfumato.privacy.calibration import gaussian_mu_for
from sfumato.privacy.ledger import Ledger
from sfumato.solve.covariance_settings import rule
from sfumato.solve.fc import FeatureCovariance
from sfumato.train.loop import run

Labeled = tuple[np.ndarray, np.ndarray]
"""Rows, and their classes."""


def accuracy(
    own: FeatureMap, train: Labeled, shown: Labeled, classes: int, epsilon: float, delta: float
) -> float:
    """In % of the rows that are shown, after a fit with fresh noise. own: whose rows they are."""
    rows, labels = train
    mu = gaussian_mu_for(epsilon, delta)
    settings = rule(len(rows), rows.shape[1], mu)
    procedure = FeatureCovariance(
        rows.copy(), labels, classes, own.groups, mu, settings, overwrite=True
    )
    with Ledger.temporary(delta, epsilon) as ledger:
        state = run(procedure, ledger, SecretKey.from_entropy())
    scores = procedure.transform(shown[0].copy(), state) @ np.asarray(state["weight"])
    return 100 * float(np.mean(scores.argmax(1) == shown[1]))
