"""A whole run: what lies in its directory, and that all that is said of it agrees."""

import json
import os
import shutil
import stat
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_helpers import CLASSES, FILES, FULL_BATCH, N, sfumato, succeeds, train_arguments, tree
from safetensors.numpy import load_file

from sfumato import data
from sfumato.core.errors import RunError
from sfumato.core.keys import SecretKey
from sfumato.data.source import Source
from sfumato.privacy.ledger import Ledger
from sfumato.runs.directory import RunDirectory


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def rises(values: list[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


def test_the_run_directory_is_complete_and_holds_no_secret(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    assert [path.name for path in finished.parent.iterdir()] == [
        "run"
    ]  # nothing half-written beside it
    plan, spent = read(finished / "plan.json"), read(finished / "result.json")["spent"]
    assert (plan["n"], plan["n_test"], tuple(plan["classes"])) == (N, 12, CLASSES)
    assert spent["epsilon"] <= plan["epsilon"] == 3 and spent["delta"] == plan["delta"] == 1e-5
    assert spent["releases"] == 4 == len((finished / "ledger.jsonl").read_text().splitlines()) - 1
    assert spent["complete"] and read(finished / "result.json")["peak_memory_bytes"] > 1e7
    assert [each["step"] for each in metrics(finished)] == [1, 2, 3, 4]
    assert rises([each["epsilon"] for each in metrics(finished)])
    assert metrics(finished)[-1]["epsilon"] == pytest.approx(spent["epsilon"])
    assert metrics(finished)[-1]["accuracy"] == read(finished / "evaluation.json")["accuracy"]


def test_the_key_of_an_unfinished_run_is_its_owners_alone(interrupted: Path) -> None:
    assert stat.S_IMODE((interrupted / "secret.key").stat().st_mode) == 0o600
    assert (interrupted / "work" / "checkpoint" / "state.safetensors").exists()
    assert (
        not (interrupted / "result.json").exists()
        and not (interrupted / "model.safetensors").exists()
    )


def test_two_files_are_enough_to_predict(finished: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        shutil.copy(finished / name, tmp_path)
    images = [folder / "test" / name / "0.png" for name in CLASSES]
    lines = [line.split("\t") for line in succeeds("predict", tmp_path, *images).splitlines()]
    assert [line[0] for line in lines] == [str(image) for image in images]
    assert all(line[1] in CLASSES and 1 / 3 <= float(line[2]) <= 1 for line in lines)
    rows = [
        json.loads(line) for line in succeeds("predict", tmp_path, *images, "--json").splitlines()
    ]
    assert [row["class"] for row in rows] == [line[1] for line in lines]
    assert all(set(row["probabilities"]) == set(CLASSES) for row in rows)
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4) for row in rows)


def test_evaluate_report_and_account_agree_with_the_run(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    before, result = read(run / "evaluation.json"), read(run / "result.json")
    assert f"accuracy {100 * before['accuracy']:.2f} %" in succeeds("evaluate", run)
    assert read(run / "evaluation.json") == before

    statement = succeeds("report", run).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "WHAT IS PROMISED" in statement
        and "WHAT IS NOT COVERED" in statement
        and "24 private images" in statement
    )
    assert "NOT PRIVATE" not in statement
    assert "private image" in (run / "report.html").read_text()

    alone = tmp_path / "alone.jsonl"
    shutil.copy(run / "ledger.jsonl", alone)
    for ledger in (run, alone):
        told = succeeds("account", ledger)
        assert (
            told.startswith(f"epsilon {result['spent']['epsilon']:.6g} at delta 1e-05 ")
            and "4 x Gaussian" in told
        )


def test_resuming_a_complete_run_changes_nothing_that_counts(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    for name in ("secret.key", "work/left"):  # as if killed while it tidied up
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("\0" * 72)
    succeeds("resume", run)
    before, after = tree(finished), tree(run)
    assert set(after) == FILES
    assert all(after[name] == before[name] for name in FILES - {"report.html"})


@pytest.mark.slow
def test_an_insecure_run_says_so(interrupted: Path, tmp_path: Path) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    succeeds("resume", run)
    assert {path.name for path in run.iterdir()} == FILES
    assert (
        "NOT PRIVATE" in succeeds("report", run)
        and "NOT PRIVATE" in (run / "report.html").read_text()
    )
    assert read(run / "model.json")["privacy"]["insecure"] is True


@pytest.mark.parametrize("model", ["cnn", pytest.param("scattering", marks=pytest.mark.slow)])
def test_a_pixel_that_is_not_a_number_leaves_the_model_finite(tmp_path: Path, model: str) -> None:
    stream = np.random.default_rng(0)
    labels = np.arange(N) % 3
    images = (stream.random((N, 8, 8, 1)) * 0.3 + labels[:, None, None, None] / 4).astype(
        np.float32
    )
    images[5, 2, 3, 0], images[6, 0, 0, 0] = np.nan, np.inf
    np.savez(
        tmp_path / "nan.npz", x_train=images, y_train=labels, x_test=images[:6], y_test=labels[:6]
    )
    run = tmp_path / "run"
    settings = FULL_BATCH if model == "cnn" else ("--model", model, "--log", "quiet")
    succeeds("train", "--data", tmp_path / "nan.npz", *settings, "--out", run)
    assert all(np.isfinite(array).all() for array in load_file(run / "model.safetensors").values())
    assert read(run / "evaluation.json")["n"] == 6


def test_validation_never_reads_the_test_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, seen = Source.raw, set()

    def spy(self: Source, indices: Any) -> Any:
        seen.add(self.split)
        return raw(self, indices)

    monkeypatch.setattr(Source, "raw", spy)
    n = data.describe(folder, validation=0.4).counts["train"]
    run = tmp_path / "run"
    succeeds(*train_arguments(folder, run, "--batch", n, "--validation", 0.4))
    assert seen == {"train", "validation"}
    evaluation = read(run / "evaluation.json")
    assert (
        evaluation["split"] == "validation"
        and evaluation["n"] == N - n == read(run / "plan.json")["n_validation"]
    )
    assert metrics(run)[-1]["accuracy"] == evaluation["accuracy"]
    told = succeeds("evaluate", run, "--split", "validation")
    assert f"{100 * evaluation['accuracy']:.2f} %" in told and seen == {"train", "validation"}
    assert "12 test images" in succeeds("evaluate", run, "--split", "test") and "test" in seen


@pytest.mark.slow
def test_quiet_training_and_example_images_on_request(
    folder: Path, tmp_path: Path, finished: Path
) -> None:
    assert not (finished / "images.json").exists()
    outcome = sfumato(*train_arguments(folder, tmp_path / "run", "--show-images"))
    assert outcome.code == 0 and outcome.err == ""
    assert len([line for line in outcome.out.splitlines() if not line.startswith("warning")]) == 5
    assert (tmp_path / "run" / "images.json").exists()


@pytest.mark.parametrize("change", ["epsilon", "releases", "cut", "missing"])
def test_a_report_believes_the_ledger_not_the_result(
    finished: Path, tmp_path: Path, change: str
) -> None:
    run = shutil.copytree(finished, tmp_path / "copy")
    ledger = run / "ledger.jsonl"
    if change == "missing":
        ledger.unlink()
    elif change == "cut":
        ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))
    else:
        result = read(run / "result.json")
        result["spent"][change] /= 2
        result["spent"]["releases"] = int(result["spent"]["releases"])
        (run / "result.json").write_text(json.dumps(result))
    outcome = sfumato("report", run)
    assert outcome.code == 2 and "ledger" in outcome.err and outcome.err.count("\n") == 1


def test_a_finished_run_that_still_holds_its_key_loses_it_when_it_is_next_opened(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "copy")
    (run / "secret.key").write_text("secret " + "ab" * 32 + "\n")
    (run / "work").mkdir()
    succeeds("report", run)
    assert not (run / "secret.key").exists() and not (run / "work").exists()


def test_a_run_killed_while_it_tidied_up_is_tidied_when_it_is_next_opened(
    finished: Path, tmp_path: Path
) -> None:
    """The key had gone, the temporary files had not."""
    run = shutil.copytree(finished, tmp_path / "copy")
    (run / "work").mkdir()
    (run / "work" / "sums.jsonl").touch()
    run.chmod(0o700)
    succeeds("report", run)
    assert not (run / "work").exists() and stat.S_IMODE(run.stat().st_mode) == 0o755


def test_of_a_complete_run_the_owner_s_permissions_are_left_alone(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "copy")
    run.chmod(0o750)
    succeeds("resume", run)
    assert stat.S_IMODE(run.stat().st_mode) == 0o750


@pytest.mark.slow
def test_a_run_that_another_process_ends_first_is_not_run_again(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between the look at the directory and the lock, and takes its key and temporary files
    with it."""
    run, real = shutil.copytree(interrupted, tmp_path / "copy"), Ledger.open

    def late(path: Path) -> Ledger:
        monkeypatch.setattr(Ledger, "open", real)
        succeeds("resume", run, "--log", "quiet")
        model.append((run / "model.safetensors").stat().st_mtime_ns)
        return real(path)

    model: list[int] = []
    monkeypatch.setattr(Ledger, "open", late)
    succeeds("resume", run, "--log", "quiet")
    assert model == [(run / "model.safetensors").stat().st_mtime_ns] and not (run / "work").exists()


def test_of_two_runs_that_begin_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's directory appears after this one had looked."""
    plan = {
        "delta": 1e-5,
        "epsilon": 1.0,
        "unit": "image",
        "relation": "add-or-remove-one",
        "releases": [],
    }
    monkeypatch.setattr("sfumato.runs.directory.refuse_existing", lambda path: None)
    make = partial(RunDirectory.create, tmp_path / "run", SecretKey.from_entropy(), {}, plan, {})
    seen, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (seen.append(os.fstat(handle).st_ino), fsync(handle))
    )
    make()
    assert seen[-1] == tmp_path.stat().st_ino, "the new name is on the disk"
    with pytest.raises(RunError, match="exists already"):
        make()
    assert os.listdir(tmp_path) == ["run"]
