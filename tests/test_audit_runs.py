"""`sfumato audit` on finished runs: what lies in the directory afterwards, what the report says,
what is refused."""

import json
import shutil

import numpy as np
import pytest
from run_helpers import refused, sfumato, succeeds

from sfumato.audit.result import AuditRecord, AuditResult
from sfumato.report import write_report
from sfumato.report.audit_section import LIMITS, membership_sentence, verdict
from sfumato.runs.attacks import joined
from sfumato.runs.auditing import load

pytestmark = pytest.mark.usefixtures("noise_by_name")


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def results(run):
    return json.loads((run / "audit.json").read_text())["results"]


@pytest.mark.slow
def test_a_white_box_audit_is_written_down_and_reported(run):
    said = succeeds("audit", run, "--size", 2000, "--seed", 0, "--log", "quiet")
    found = results(run)
    assert [each["method"] for each in found] == [
        "known family (f-DP)",
        "Clopper-Pearson",
        "one run",
    ]
    plan = json.loads((run / "plan.json").read_text())
    for each in found:
        assert (
            each["attack"] == "whitebox"
            and each["confidence"] == 0.95
            and each["assumption"]
            and each["seconds"] > 0
        )
        assert (
            each["epsilon"] == pytest.approx(plan["epsilon"], rel=1e-3)
            and each["delta"] == plan["delta"]
        )
        assert 0 <= each["lower_bound"] <= each["epsilon"]
    assert found[0]["lower_bound"] > 0.6 * plan["epsilon"]
    assert said.count("within the claim") == 3 and "EXCEEDS" not in said
    page = (run / "report.html").read_text()
    assert "No attack contradicts the claim" in page and 'id="audit-' in page
    assert (
        "never prove enough of it" in page and "noise multipliers times one unknown factor" in page
    )


@pytest.mark.slow
def test_the_numbers_can_be_had_as_json_and_are_the_files(run):
    lines = succeeds("audit", run, "--size", 64, "--log", "json").splitlines()
    last = json.loads(lines[-1])
    assert last["event"] == "audit" and len(last["results"]) == 3
    assert [each["lower_bound"] for each in last["results"]] == [
        each["lower_bound"] for each in results(run)
    ]
    assert any(json.loads(line)["event"] == "progress" for line in lines)


def planted(bound, **change):
    settings = {
        "attack": "whitebox",
        "method": "Clopper-Pearson",
        "epsilon": 3.0,
        "delta": 0.01,
        "lower_bound": bound,
        "confidence": 0.95,
        "assumption": "<b>none</b>",
        "observations": 100,
        "seconds": 1.0,
    }
    return AuditResult(**settings | change)


@pytest.mark.slow
def test_a_report_says_loudly_that_a_claim_is_broken(run):
    AuditRecord((planted(2.0), planted(3.5, attack="lira"))).save(run)
    write_report(run, with_audit=True)
    page = (run / "report.html").read_text()
    assert "THE CLAIM DOES NOT HOLD" in page and "at least 3.50" in page
    assert "&lt;b&gt;none" in page and "<b>none" not in page
    assert LIMITS.split("’")[0] in page


def test_without_an_audit_a_report_says_nothing_of_one(run):
    assert "What attacks could measure" not in (run / "report.html").read_text()
    assert load(run) == AuditRecord(())


def test_verdicts_in_words():
    assert "67" in verdict(
        AuditRecord((planted(2.0), planted(1.0)))
    ) and "at least 2.00" in verdict(AuditRecord((planted(2.0),)))
    found = planted(
        0.0,
        details={
            "AUC": 0.51,
            "TPR at FPR 0.001": 0.002,
            "TPR allowed at FPR 0.001": 0.03,
            "TPR at FPR 0.01": 0.02,
            "TPR allowed at FPR 0.01": 0.21,
        },
    )
    sentence = membership_sentence(found)
    assert "0.510" in sentence and "0.2" in sentence and "21.0" in sentence


def test_joined_sources_read_as_their_parts(folder):
    from sfumato import data

    splits = data.open(folder)
    both = joined(splits.train, splits.test.raw(np.arange(len(splits.test))), splits.test.labels)
    n = len(splits.train)
    assert len(both) == n + len(splits.test) == len(both.labels)
    parts = [splits.train.images([n - 1]), splits.test.images([0]), splits.train.images([0])]
    np.testing.assert_array_equal(both.images([n - 1, n, 0]), np.concatenate(parts))


@pytest.mark.slow
def test_what_cannot_be_audited_is_refused(interrupted, run, tmp_path):
    refused(interrupted.parent, "audit", interrupted, says=("not complete", "resume"))
    refused(tmp_path, "audit", tmp_path, says=("not a run directory",))
    refused(run, "audit", run, "--size", 3, says=("size=3", "at least 8"))
    outcome = sfumato("audit", run, "--attack", "guess")
    assert outcome.code == 2 and "guess" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["one-run", "blackbox", "lira"])
def test_every_attack_runs_on_a_network(run, attack):
    succeeds("audit", run, "--attack", attack, "--size", 8, "--seed", 1, "--log", "quiet")
    assert results(run) and all(
        each["attack"] == attack and each["lower_bound"] <= each["epsilon"] for each in results(run)
    )
    assert "No attack contradicts the claim" not in (run / "report.html").read_text()
    succeeds("report", run, "--with-audit")
    assert "No attack contradicts the claim" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_run_on_features_is_replayed_and_has_no_black_box(folder, tmp_path):
    run = tmp_path / "features"
    succeeds(
        "train",
        "--data",
        folder,
        "--model",
        "scattering",
        "--method",
        "means",
        "--out",
        run,
        "--log",
        "quiet",
    )
    succeeds("audit", run, "--size", 300, "--seed", 0, "--log", "quiet")
    family = results(run)[0]
    assert 0.3 * family["epsilon"] < family["lower_bound"] <= family["epsilon"]
    refused(run, "audit", run, "--attack", "blackbox", says=("attack='blackbox'", "dp-sgd"))
