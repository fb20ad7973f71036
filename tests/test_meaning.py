"""What an epsilon means for one person: bounds against attackers that exist, and the words."""

from pathlib import Path

import numpy as np
import pytest
from run_helpers import refused, succeeds
from scipy.stats import norm

from sfumato.cli.explaining import _percent
from sfumato.core.extras import extras
from sfumato.privacy import relations
from sfumato.privacy.calibration import noise_multiplier
from sfumato.privacy.events import GaussianEvent
from sfumato.privacy.meaning import (
    PRIORS,
    RATES,
    accused_rightly,
    guessed_rightly,
    meaning,
    posterior,
)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0])
def test_the_mechanism_that_is_as_bad_as_allowed_reaches_the_bounds_and_no_more(
    epsilon: float,
) -> None:
    """With probability delta it tells the truth, else a bit that is right with odds e^epsilon."""
    delta, honest = 1e-3, np.exp(epsilon) / (1 + np.exp(epsilon))
    right = delta + (1 - delta) * honest
    assert guessed_rightly(epsilon, delta) == pytest.approx(right)
    for prior in PRIORS:
        told = prior * honest / (prior * honest + (1 - prior) * (1 - honest))
        assert posterior(prior, epsilon) == pytest.approx(told)
    found = meaning(epsilon, delta)
    for each in found.attackers:
        assert each.false_rate <= each.true_rate <= 1
        assert each.right[0] == pytest.approx(accused_rightly(0.5, each.true_rate, each.false_rate))


def test_no_attacker_on_a_gaussian_release_passes_the_bounds() -> None:
    """The best test of one Gaussian, for every rate of false alarms."""
    sigma = noise_multiplier(lambda s: {GaussianEvent(s): 1}, 2.0, 1e-5)
    for each in meaning(2.0, 1e-5).attackers:
        reached = norm.cdf(norm.ppf(each.false_rate) + 1 / sigma)
        assert reached <= each.true_rate
    own = meaning(2.0, 1e-5, dict.fromkeys(RATES, 0.02))
    assert all(each.true_rate <= 0.02 for each in own.attackers)


def test_the_command_tells_it_for_a_number_and_for_a_run(finished, tmp_path) -> None:
    told = succeeds("explain-epsilon", 3, "--delta", 1e-5)
    assert "50 % sure before  ->  at most 95.3 % sure after" in told
    assert "1 % sure before  ->  at most 16.9 % sure after" in told and "20.1 %" in told
    own = succeeds("explain-epsilon", finished)
    assert "own releases" in own and "wrongly accused" in own
    for given, says in ((-1, "greater than 0"), ("nowhere", "give a number")):
        refused(tmp_path, "explain-epsilon", "--", given, says=(says,))


def test_the_doctor_names_versions_and_no_person() -> None:
    told = succeeds("doctor")
    for says in ("sfumato", "jax", "devices", "cpu", "extra onnx"):
        assert says in told
    import getpass
    import json

    found = json.loads(succeeds("doctor", "--json"))
    assert found["sfumato"] and not any("/home" in str(value) for value in found.values())
    assert getpass.getuser() == "root" or getpass.getuser() not in told


def test_the_table_of_the_documentation_is_what_is_computed() -> None:
    def told(share: float) -> str:
        return _percent(share, up=True)

    rows = []
    for epsilon in (0.1, 0.5, 1, 2, 3, 5, 8):
        found = meaning(epsilon, 1e-5)
        cells = (*found.posteriors, found.guess, found.attackers[1].true_rate)
        rows.append(f"| {epsilon:g} | " + " | ".join(map(told, cells)) + " |")
    text = (Path(__file__).parents[1] / "docs" / "which-epsilon.md").read_text()
    assert "\n".join(rows) in text, "\n".join(rows)
    sigma = noise_multiplier(lambda s: {GaussianEvent(s): 1}, 3.0, 1e-5)
    own = relations.true_positive_rate({GaussianEvent(sigma): 1}, 0.01)
    assert f"recognize {told(own)} at 1 %" in text


def test_extras_are_those_of_the_package() -> None:
    import tomllib

    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    given = tomllib.loads(text)["project"]
    assert set(extras()) == set(given["optional-dependencies"]) - {"dev"}
    assert extras()["serve"] == ("starlette", "uvicorn") and len(given["dependencies"]) <= 14
