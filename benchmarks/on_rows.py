"""dp-fc as `sfumato train` runs it, on rows of features that were computed before."""

from pathlib import Path

import numpy as np

from sfumato.core.keys import SecretKey
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.extraction import extract
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
        rows.astype(np.float32), labels, classes, own.groups, mu, settings, overwrite=True
    )
    with Ledger.temporary(delta, epsilon) as ledger:
        state = run(procedure, ledger, SecretKey.from_entropy())
    scores = procedure.transform(shown[0].astype(np.float32), state) @ np.asarray(state["weight"])
    return 100 * float(np.mean(scores.argmax(1) == shown[1]))


def rows_of(part: str, title: str, source: Source, keep: Path | None) -> np.ndarray:
    """In half precision; a file that holds those of more images begins with these."""
    kept = None if keep is None else keep / f"{title}.{part}.npy"
    if kept is not None and kept.exists():
        return np.load(kept, mmap_mode="r")[: len(source)]
    rows = extract(by_name.features(part, source.shape), source).astype(np.float16)
    if kept is not None:
        np.save(kept, rows)
    return rows
