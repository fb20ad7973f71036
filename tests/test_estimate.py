"""The memory that a dry run tells, where rows and classes are many."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_helpers import succeeds

from sfumato.core import files
from sfumato.data.source import DataInfo
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.runs.cost import CELL, head_memory

RUN = """
import sys
from sfumato.cli import main
from sfumato.core.machine import peak_memory
main(sys.argv[1:])
print(peak_memory())
"""


def plan(classes: int, d: int = 64, method: str = "sgd", n_test: int = 8000) -> Plan:
    info = DataInfo(
        "rows", "", tuple(map(str, range(classes))), (1, 1, d), {"train": 20_000, "test": n_test}
    )
    return make_plan(
        TrainConfig(DataConfig("rows"), PrivacyConfig(8.0, 1e-6), MethodConfig(method, "rows")),
        info,
    )


@pytest.mark.parametrize("method", ["sgd", "ls", "fc", "newton"])
def test_memory_grows_with_rows_times_classes(method: str) -> None:
    """2,000 classes of 64 features are 128,000 parameters; their float32 scores of 8,000 test rows
    are 64 MB."""
    few, many, untested = (
        plan(2, method=method),
        plan(2000, method=method),
        plan(2000, method=method, n_test=0),
    )
    assert many.parameters == 128_000
    assert head_memory(few) < 5e6
    assert head_memory(many) > 4 * 8000 * 2000 + 4 * 128_000 + 8 * 2000**2
    assert head_memory(untested) > 4 * 2048 * 2000 + 4 * 128_000, (
        "the scores of the rows that are looked at together"
    )
    assert head_memory(replace(many, n_test=16_000)) - head_memory(many) == 4 * 8000 * 2000


@pytest.mark.slow
def test_what_a_confusion_matrix_takes_while_it_is_written(tmp_path: Path) -> None:
    c = 300
    tracemalloc.start()
    files.write_json(
        tmp_path / "evaluation.json", {"confusion": np.zeros((c, c), np.int64).tolist()}
    )
    taken = tracemalloc.get_traced_memory()[1] / c**2
    tracemalloc.stop()
    assert taken < 1.3 * CELL


@pytest.mark.slow
def test_the_estimate_is_near_what_is_taken(tmp_path: Path) -> None:
    classes, stream = 1000, np.random.default_rng(0)
    parts = {"train": 20_000, "test": 8000}
    rows = {
        f"x_{part}": stream.normal(size=(n, 64)).astype(np.float32) for part, n in parts.items()
    }
    np.savez(
        tmp_path / "many.npz",
        **rows,
        **{f"y_{part}": np.arange(n) % classes for part, n in parts.items()},
    )
    command = (
        "fit",
        "--features",
        tmp_path / "many.npz",
        "--method",
        "sgd",
        "--steps",
        "2",
        "--epsilon",
        "8",
        "--out",
        tmp_path / "run",
    )
    told = json.loads(succeeds(*command, "--dry-run", "--log", "json"))["estimated_memory_bytes"]
    arguments = [sys.executable, "-c", RUN, *map(str, command), "--log", "quiet"]
    taken = int(
        subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()[-1]
    )
    assert 0.7 < told / taken < 1.8, (told, taken)
