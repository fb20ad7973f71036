"""Run directories as the version before wrote them (tests/old_runs: digits, by ls and by a network, with
the names of that version) are still read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pace import paced
from run_helpers import refused, succeeds

from sfumato.core.keys import SecretKey
from sfumato.plan.config import read_config
from sfumato.plan.plan import read_plan
from sfumato.privacy.ledger import Ledger
from sfumato.runs.classifier import Classifier
from sfumato.train.sgd_settings import SGDSettings

OLD = Path(__file__).parent / "old_runs"


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return shutil.copytree(OLD / getattr(request, "param", "ls"), tmp_path / "run")


def test_names_that_changed_are_read_by_the_names_they_have_now() -> None:
    config, plan = read_config(OLD / "net" / "config.json"), read_plan(OLD / "net" / "plan.json")
    assert config.data.gray and config.method.optimizer == "adam"
    assert isinstance(plan.settings, SGDSettings)
    assert (plan.settings.optimizer, plan.settings.physical_batch_size) == ("adam", 181)


@pytest.mark.parametrize("name", ["ls", "net"])
def test_a_plan_says_what_it_said(name: str) -> None:
    old, plan = (
        json.loads((OLD / name / "plan.json").read_text()),
        read_plan(OLD / name / "plan.json"),
    )
    new = json.loads(json.dumps(plan.to_json()))
    for changed in ("settings", "accountant"):
        del old[changed], new[changed]
    assert new.pop("task") == "single-label" and new.pop("not_private") is None
    assert new == old
    ledger = Ledger.read(OLD / name)
    assert plan.tally == ledger.tally and plan.spends == pytest.approx(ledger.epsilon())


@pytest.mark.parametrize("run", paced(["ls", "net"], "ls"), indirect=True)
def test_report_account_and_resume_read_them(run: Path) -> None:
    assert "private images" in succeeds("report", run) and (run / "report.html").exists()
    spent = json.loads((run / "result.json").read_text())["spent"]["epsilon"]
    assert f"epsilon {spent:.6g} at delta 1e-05" in succeeds("account", run)
    assert "accuracy" in succeeds("resume", run), "a complete run gets its report anew"


@pytest.mark.slow
def test_predict_and_evaluate_read_them(run: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(run)
    assert classifier.spec.classes == tuple("0123456789")
    np.save(tmp_path / "two.npy", np.zeros((2, 8, 8, 1), np.uint8))
    assert succeeds("predict", run, tmp_path / "two.npy").count("\n") == 2
    before = json.loads((run / "evaluation.json").read_text())["accuracy"]
    succeeds("evaluate", run)
    after = json.loads((run / "evaluation.json").read_text())
    assert after["accuracy"] == pytest.approx(before, abs=0.01) and after["n"] == 342


@pytest.mark.parametrize("run", ["net"], indirect=True)
def test_an_unfinished_one_is_refused_in_one_line_that_names_the_version(run: Path) -> None:
    for name in ("result.json", "evaluation.json"):
        (run / name).unlink()
    (run / "work").mkdir()
    SecretKey.from_insecure_seed(0).save(run / "secret.key")
    began = {"fingerprint": "0" * 32, "environment": {"sfumato": "0.0.9"}}
    (run / "work" / "began.json").write_text(json.dumps(began))
    refused(run, "resume", run, says=("sfumato: it began with 0.0.9", "resume there"))
