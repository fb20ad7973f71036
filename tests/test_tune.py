"""Tuning: the law of K, its price, and that only the winner is left behind."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_helpers import FILES, refused, sfumato, succeeds

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.features.heads import Sphere
from sfumato.privacy import events
from sfumato.privacy.accountants import describe, epsilon
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, SelectedEvent
from sfumato.privacy.ledger import Ledger
from sfumato.runs.classifier import Classifier
from sfumato.runs.tuning import number_of_fits, random_settings
from sfumato.solve.labeled_rows import Rows


def by_hand(sigma: float, mean: float, delta: float) -> float:
    """Theorem 2 of Papernot & Steinke at eta = 0, minimized over a grid, and the conversion of
    Canonne et al. 2020."""
    low, high = 1e-12, 1 - 1e-9
    for _ in range(200):  # gamma: the mean (1/gamma - 1) / ln(1/gamma) falls in gamma
        middle = (low * high) ** 0.5
        low, high = (middle, high) if (1 / middle - 1) / -math.log(middle) > mean else (low, middle)
    rho, best = 1 / (2 * sigma**2), math.inf
    orders = np.concatenate([np.linspace(1.1, 11, 100), np.geomspace(11, 9000, 300)])
    middle_term = min((1 - 1 / order) * rho * order + math.log(1 / low) / order for order in orders)
    for order in orders:
        renyi = rho * order + middle_term + math.log(mean) / (order - 1)
        best = min(best, renyi + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return best


@pytest.mark.parametrize(("sigma", "mean"), [(4.0, 10.0), (30.0, 3.0), (1.0, 50.0)])
def test_the_price_is_that_of_the_theorem(sigma: float, mean: float) -> None:
    found = epsilon({SelectedEvent(GaussianEvent(sigma), mean): 1}, 1e-5)
    assert found == pytest.approx(by_hand(sigma, mean, 1e-5), rel=0.02)
    assert epsilon({GaussianEvent(sigma): 1}, 1e-5) < found


def test_selected_events_compose_with_others_and_are_written_down() -> None:
    chosen = SelectedEvent(GaussianEvent(5.0), 10.0)
    alone = epsilon({chosen: 1}, 1e-5)
    assert (
        alone
        < epsilon({chosen: 1, GaussianEvent(10.0): 3}, 1e-5)
        < epsilon({chosen: 2, GaussianEvent(10.0): 3}, 1e-5)
    )
    assert alone < epsilon({chosen: 1, PoissonSampledEvent(0.1, GaussianEvent(2.0)): 5}, 1e-5)
    assert epsilon({chosen: 0, GaussianEvent(5.0): 1}, 1e-5) == epsilon(
        {GaussianEvent(5.0): 1}, 1e-5
    )
    assert events.from_json(events.to_json(chosen)) == chosen and "Papernot" in describe(
        {chosen: 1}, 1e-5
    )
    with pytest.raises(ArgumentError, match="mean"):
        SelectedEvent(GaussianEvent(5.0), 1.0)


@pytest.mark.parametrize("mean", [1.5, 10.0, 100.0])
def test_the_number_of_fits_has_the_law_that_is_paid_for(mean: float) -> None:
    """False alarms: 1e-9: of 10,000 numbers, a mean 7 deviations off, a share of ones 8."""
    stream = np.random.default_rng(0)
    drawn = np.array([number_of_fits(mean, stream) for _ in range(10_000)])
    assert drawn.min() == 1 and abs(drawn.mean() - mean) < 7 * drawn.std() / math.sqrt(len(drawn))
    share = np.mean(drawn == 1)  # (1 - gamma) / ln(1 / gamma) = mean * gamma
    assert abs((1 / (share / mean) - 1) / math.log(mean / share) - mean) < 0.15 * mean


def test_recipes_differ_and_keep_the_budget() -> None:
    rows = Rows(np.zeros((500, 4), np.float32), np.zeros(500, np.int32), 3)
    stream = SecretKey.from_insecure_seed(0).stream("tune")
    found = [random_settings(("fc", "ls"), rows, Sphere.plain(4), 0.5, stream) for _ in range(20)]
    assert {each.method for each in found} == {"fc", "ls"} and len(
        {each.learning_rate for each in found}
    ) == 20
    for each in found:
        spent = sum(release.count / release.noise_multiplier**2 for release in each.releases(0.5))
        assert 0.25 * (1 - 1e-9) < spent <= 0.25


@pytest.mark.slow
def test_only_the_winner_is_left(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    labels = stream.integers(3, size=400)
    np.savez(
        tmp_path / "toy.npz",
        X=(3 * np.eye(6)[labels] + stream.normal(size=(400, 6))).astype(np.float32),
        y=labels,
    )
    tune = (
        "tune",
        "--features",
        tmp_path / "toy.npz",
        "--epsilon",
        8,
        "--fits",
        4,
        "--log",
        "quiet",
    )
    told = succeeds(*tune, "--validation", 0.25, "--out", tmp_path / "best")
    assert {file.name for file in (tmp_path / "best").iterdir()} == FILES | {"tune.json"}
    ledger = Ledger.read(tmp_path / "best")
    assert ledger.releases == 1 and 7.9 < ledger.epsilon() <= 8.0 and "about 4 fits" in told
    result = json.loads((tmp_path / "best/result.json").read_text())
    assert result["seconds"] == {} and "finished" not in result, (
        "how long it took tells how many fits there were"
    )
    chances = Classifier.load(tmp_path / "best").predict_proba(
        3 * np.eye(6, dtype=np.float32)[:3][:, None, None]
    )
    assert chances.shape == (3, 3)
    assert json.loads((tmp_path / "best/tune.json").read_text())["recipe"]["method"] in ("fc", "ls")
    statement = succeeds("report", tmp_path / "best")
    assert "4 on average" in statement and "not of the fits that it was chosen from" in statement
    assert "Papernot" in statement and "cost of choosing" in statement
    plan = json.loads((tmp_path / "best/plan.json").read_text())
    assert plan["method"] == "best of fc, ls" and plan["releases"][0]["selected"] == 4
    before = json.loads((tmp_path / "best/evaluation.json").read_text())
    succeeds("evaluate", tmp_path / "best", "--split", "validation")
    after = json.loads((tmp_path / "best/evaluation.json").read_text())
    assert after.pop("metrics")["log_loss"] == pytest.approx(
        before.pop("metrics")["log_loss"], abs=1e-3
    )
    assert after == before
    assert "best of about 4 fits" in succeeds("account", tmp_path / "best")
    for wrong, says in (
        (("--fits", 1), "fits=1"),
        (("--validation", 0), "validation"),
        (("--method", "svm"), "method='svm'"),
    ):
        refused(tmp_path, *tune, *wrong, "--out", tmp_path / "no", says=(says,))


def test_a_stopped_tune_is_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(90) % 3
    np.savez(tmp_path / "toy.npz", X=np.eye(3, dtype=np.float32)[labels], y=labels)

    def press_ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sfumato.runs.tuning.fit_once", press_ctrl_c)
        assert (
            sfumato(
                "tune",
                "--features",
                tmp_path / "toy.npz",
                "--out",
                tmp_path / "best",
                "--log",
                "quiet",
            ).code
            == 130
        )
    assert Ledger.read(tmp_path / "best").releases == 1
    assert "start a new one" in sfumato("resume", tmp_path / "best").err


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on rows that have directions of their own."""
    place = tmp_path_factory.mktemp("chosen")
    stream = np.random.default_rng(0)
    rows, labels = np.eye(200) + 0.01 * stream.normal(size=(200, 200)), np.arange(200) // 2 % 2
    np.savez(
        place / "toy.npz",
        x_train=rows[::2],
        y_train=labels[::2],
        x_test=rows[1::2],
        y_test=labels[1::2],
    )
    tune = ("tune", "--features", place / "toy.npz", "--epsilon", 0.5, "--delta", 1e-6)
    succeeds(*tune, "--fits", 2, "--log", "quiet", "--out", place / "best")
    return place / "best"


@pytest.mark.slow
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.usefixtures("noise_by_name")
def test_the_choice_is_audited_through_its_final_model(
    chosen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: bool
) -> None:
    """Fits without noise learn wrong labels by heart, private ones cannot."""
    run = shutil.copytree(chosen, tmp_path / "best")
    for attack in ("whitebox", "blackbox"):
        outcome = sfumato("audit", run, "--attack", attack)
        assert (
            outcome.code == 2
            and "use one-run or lira" in outcome.err
            and outcome.err.count("\n") == 1
        )
    if not noise:
        silence = lambda key, name, size: [(slice(size), np.zeros(size))]  # noqa: E731
        monkeypatch.setattr("sfumato.noise.on_host.parts", silence)
    told = succeeds(
        "audit", run, "--attack", "one-run", "--size", 100, "--seed", 0, "--log", "quiet"
    )
    assert ("EXCEEDS THE CLAIM" in told) != noise, told
    assert json.loads((run / "audit.json").read_text())["results"][0]["epsilon"] == pytest.approx(
        0.5, abs=0.01
    )
