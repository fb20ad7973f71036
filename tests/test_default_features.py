"""What is learned on where no model is named: one rule for all methods and commands, from public
facts."""

import json
from pathlib import Path

import numpy as np
import pytest
from run_helpers import succeeds

from sfumato.features import by_name
from sfumato.plan.choice import resolve
from sfumato.plan.config import MethodConfig
from sfumato.solve import covariance_settings
from sfumato.solve.linear_settings import HEADS, LARGEST_GRAM, Curved

FACTS = [(n, (28, 28, colors)) for n in (50, 999, 1_000, 9_999, 10_000, 10**6) for colors in (1, 3)]


@pytest.mark.parametrize("method", HEADS)
def test_heads_take_the_default_features(method: str) -> None:
    """But for the patches, whose rows are too long for a matrix of d x d numbers, and in color for what
    dp-fc leaves out where it tells nothing."""
    holds = issubclass(HEADS[method], Curved)
    for n, shape in FACTS:
        _, default, _ = resolve(MethodConfig(), n, shape)
        _, model, _ = resolve(MethodConfig(method), n, shape)
        expected = default.replace("handed-if-shown", "scattering") if shape[2] == 3 else default
        assert model == (expected.replace("+patches", "") if holds else expected)


def test_a_matrix_is_held_of_no_more_features_than_it_is_for() -> None:
    for shape in ((8, 8, 1), (8, 8, 3)):
        _, model, _ = resolve(MethodConfig("fc"), 10**6, shape)
        assert by_name.feature_size(model, shape) <= LARGEST_GRAM


@pytest.mark.slow
@pytest.mark.parametrize("colors", [1, 3])
def test_a_store_has_the_features_that_a_head_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colors: int
) -> None:
    monkeypatch.setattr(covariance_settings, "FEW", 5)
    draws = np.random.default_rng(0)
    shape = (12, 8, 8, colors)
    np.savez(
        tmp_path / "few.npz",
        x_train=draws.integers(256, size=shape, dtype=np.uint8),
        y_train=np.arange(12) % 3,
    )
    succeeds(
        "features", "--data", tmp_path / "few.npz", "--out", tmp_path / "store", "--log", "quiet"
    )
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    _, default, _ = resolve(MethodConfig("sgd"), 12, shape[1:])
    assert manifest["model"] == default
    assert ("handed" in default) == (colors == 1)
