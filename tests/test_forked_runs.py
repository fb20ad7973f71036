"""A run that is really forked, from the command line: stopped, its directory copied, both copies
resumed, one of them by a program that rounds otherwise. And the record of what a run's bits depend
on.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_helpers import N, ctrl_c_after, refused, sfumato, succeeds
from safetensors.numpy import load_file

from sfumato.data.decode import decoder_name
from sfumato.privacy.ledger import Ledger
from sfumato.runs import environment

OTHER_ROUNDING = "--xla_cpu_max_isa=SSE4_2 --xla_backend_optimization_level=0"
"""For XLA on processors of the x86 family: no fused multiply-add, no reordering. Nothing of it is
in a run's record."""


def train(folder: Path, out: Path) -> tuple[object, ...]:
    return (
        "train",
        "--data",
        folder,
        "--method",
        "dp-sgd",
        "--model",
        "cnn",
        "--steps",
        5,
        "--batch",
        N,
        "--log",
        "quiet",
        "--checkpoint-seconds",
        1e-6,
        "--out",
        out,
    )


def weights(run: Path) -> np.ndarray:
    return np.concatenate(
        [
            leaf.astype(np.float64).ravel()
            for _, leaf in sorted(load_file(run / "model.safetensors").items())
        ]
    )


@pytest.mark.slow
def test_copies_of_a_run_that_round_differently_have_noise_of_their_own(
    folder: Path, tmp_path: Path
) -> None:
    """Two runs that share one step of noise out of five differ almost as much as two that share
    none. Sharing all of it, they would differ by rounding alone. Where the processor rounds alike
    whatever it is told, the copies are the same run.
    """
    with ctrl_c_after(1):
        assert sfumato(*train(folder, tmp_path / "run")).code == 130
    copies = {
        name: shutil.copytree(tmp_path / "run", tmp_path / name) for name in ("same", "other")
    }
    done = subprocess.run(
        [sys.executable, "-m", "sfumato.cli", "resume", str(copies["other"])],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {OTHER_ROUNDING}"},
    )
    assert done.returncode == 0, done.stderr
    for run in (tmp_path / "run", copies["same"]):
        succeeds("resume", run)
    succeeds(*train(folder, tmp_path / "stranger"))
    run, same, other, stranger = (
        weights(tmp_path / name) for name in ("run", "same", "other", "stranger")
    )
    assert np.array_equal(run, same), "control: the same program makes the same releases"
    apart, unrelated = (other - run).std(), (stranger - run).std()
    assert apart == 0 or 0.3 * unrelated < apart < 2 * unrelated, "two releases share noise"
    tallies = [Ledger.read(tmp_path / name).tally for name in ("run", "same", "other")]
    assert tallies[0] == tallies[1] == tallies[2] and sum(tallies[0].values()) == 5, (
        "each has paid for what it released"
    )


def test_a_run_records_what_its_bits_depend_on_and_refuses_to_go_on_with_another(
    interrupted: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    path = run / "work" / "began.json"
    began = json.loads(path.read_text())
    recorded = began["environment"]
    assert recorded == environment.environment(decoder_name())
    assert set(recorded) == {
        *environment.PACKAGES,
        "decoder",
        "devices",
        "noise",
        "processor",
    } and all(recorded.values())
    for part, here in recorded.items():
        path.write_text(json.dumps(began | {"environment": recorded | {part: "another"}}))
        refused(
            tmp_path,
            "resume",
            run,
            says=(f"{part}: it began with another, here is {here}", "start a new run"),
        )
    path.write_text(json.dumps(began))
    succeeds("resume", run)


@pytest.mark.parametrize(
    "began, says",
    [
        ({"jax": "1"}, "jax: it began with 1, here is 2; numpy: it began with None, here is 3"),
        ({"jax": "2", "numpy": "3"}, ""),
        ("CPU", "it began with CPU, here is"),
        (None, "it began with None, here is"),
    ],
)
def test_differences_are_named(began: object, says: str) -> None:
    found = environment.differences(began, {"jax": "2", "numpy": "3"})
    assert found.startswith(says) and (says or not found)
