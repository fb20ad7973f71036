"""kill -9 at any moment, resume, and nobody can tell: the same model to the last bit, every release
paid once."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_helpers import FILES, succeeds

from sfumato.plan.plan import read_plan
from sfumato.privacy import accountants
from sfumato.privacy.ledger import Ledger

STEPS = 30
NETWORK = (
    "--method",
    "dp-sgd",
    "--model",
    "cnn",
    "--steps",
    str(STEPS),
    "--batch",
    "6",
    "--epsilon",
    "0.5",
)
FEATURES = ("--model", "scattering", "--gray")
When = Callable[[Path], bool]


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """A process of its own; with the cache of programs of these tests, so that it is quick."""
    command = [sys.executable, "-m", "sfumato.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen[bytes], run: Path, when: When, then: float = 0.0) -> bool:
    """kill -9 at `then` seconds after `when` holds. False if the process was quicker and ended
    well."""
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end and not when(run):
        time.sleep(0.0005)
    time.sleep(then)
    process.kill()
    _, err = process.communicate()
    assert process.returncode in (0, -9), err.decode()
    return process.returncode == -9


def paid(count: int) -> When:
    """As many releases are in the ledger, or more."""

    def when(run: Path) -> bool:
        ledger = run / "ledger.jsonl"
        return ledger.exists() and ledger.read_bytes().count(b"\n") > count

    return when


def during_checkpoint_after(count: int) -> When:
    """A checkpoint is being written."""
    return lambda run: paid(count)(run) and (run / "work" / "checkpoint.new").exists()


def exists(name: str) -> When:
    return lambda run: (run / name).exists()


def releases(run: Path) -> list[str]:
    return [
        json.loads(line)["release"] for line in (run / "ledger.jsonl").read_text().splitlines()[1:]
    ]


def killed_and_resumed(
    tmp_path: Path,
    reference: Path,
    arguments: tuple[str | Path, ...],
    moments: list[tuple[When, float]],
) -> Path:
    """Kill a run at each of the moments, resume it after each, and compare it with the
    uninterrupted one."""
    run, kills = tmp_path / "run", 0
    command: tuple[str | Path, ...] = ("train", *arguments, *SETTINGS, "--out", run)
    for when, then in moments:
        kills += kill_when(start(*command), run, when, then)
        names = Counter(releases(run) if (run / "ledger.jsonl").exists() else [])
        assert all(count == 1 for count in names.values())
        command = ("resume", run)
    succeeds(*command)
    assert kills >= max(1, len(moments) - 1), "the run was too quick for this test"
    same_as(run, reference)
    return run


def same_as(run: Path, reference: Path) -> None:
    for name in ("model.safetensors", "plan.json", "evaluation.json"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    assert releases(run) == releases(reference) and len(set(releases(run))) == len(releases(run))
    plan, ledger = read_plan(run / "plan.json"), Ledger.read(run)
    assert ledger.tally == plan.tally
    assert accountants.epsilon(ledger.tally, ledger.delta) == plan.spends <= plan.epsilon
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == FILES
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps, epsilons = ([line[name] for line in lines] for name in ("step", "epsilon"))
    before = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    assert steps == [line["step"] for line in before] and steps == sorted(set(steps))
    assert epsilons == sorted(epsilons) == [line["epsilon"] for line in before]
    assert [line["accuracy"] for line in lines] == [line["accuracy"] for line in before]


SETTINGS = ("--insecure-seed", "1", "--checkpoint-seconds", "0.001", "--log", "quiet")


@pytest.fixture(scope="module")
def network(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupted."""
    run = tmp_path_factory.mktemp("network") / "run"
    succeeds("train", "--data", folder, *NETWORK, *SETTINGS, "--out", run)
    return run


@pytest.mark.slow
def test_killed_four_times(folder: Path, tmp_path: Path, network: Path) -> None:
    """Dozens of kills more: `make test-faults`."""
    stream = np.random.default_rng(4)
    moments: list[tuple[When, float]] = [
        (paid(0), 0.0),
        (paid(7), stream.uniform(0, 0.02)),
        (during_checkpoint_after(15), 0.0),
        (exists("model.safetensors"), 0.0),
    ]
    run = killed_and_resumed(tmp_path, network, ("--data", folder, *NETWORK), moments)
    assert "report" in (run / "report.html").read_text()
    again = shutil.copytree(run, tmp_path / "again")
    succeeds("resume", again)
    assert (again / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_killed_on_features(folder: Path, tmp_path: Path) -> None:
    """DP-FC recomputes its features and its whitening comes back from the checkpoint."""
    reference = tmp_path / "reference"
    features = ("--data", folder, *FEATURES)
    succeeds("train", *features, *SETTINGS, "--out", reference)
    last = len(releases(reference))
    moments: list[tuple[When, float]] = [
        (paid(1), 0.001),
        (during_checkpoint_after(last // 2), 0.0),
    ]
    killed_and_resumed(tmp_path, reference, features, moments)
