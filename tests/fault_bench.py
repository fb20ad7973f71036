"""What the fault campaign works with: servers of `faults.py`, a short run, the laws, and the table
of what was done.

Runs are light (`faults.Light`: NumPy of a few numbers, so that hundreds take minutes) unless a test
asks for whole ones; what they write, and when, is the shipped code's.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
STEPS = 8
SAME_BITS = "all resumed, to the same bits"
SAME = ("model.safetensors", "plan.json", "evaluation.json")
Reference = tuple[Path, dict[str, Any]]


class Server:
    """`faults.py` in a process of its own."""

    def __init__(self, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, HERE / "faults.py"],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def begin(self, **request: Any) -> None:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)

    def end(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Bench:
    servers: list[Server]
    home: Path
    data: Path

    def train(self, out: Path, server: int = 0, steps: int = STEPS, **more: Any) -> dict[str, Any]:
        return self.do(
            [
                "fit",
                "--features",
                str(self.data),
                "--method",
                "adam",
                "--steps",
                str(steps),
                "--epsilon",
                "4",
                "--insecure-seed",
                "1",
                "--checkpoint-seconds",
                "1e-6",
                "--log",
                "quiet",
                "--out",
                str(out),
            ],
            out,
            server,
            **more,
        )

    def resume(self, out: Path, server: int = 0, **more: Any) -> dict[str, Any]:
        return self.do(["resume", str(out)], out, server, **more)

    def do(
        self,
        arguments: list[str],
        out: Path,
        server: int,
        wait: bool = True,
        light: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        request = {
            "arguments": arguments,
            "root": str(out.parent),
            "notes": str(self.notes(out)),
            "light": light,
        }
        self.servers[server].begin(**request, **more)
        return self.servers[server].end() if wait else {}

    def go_on(self, out: Path, steps: int = STEPS, **more: Any) -> dict[str, Any]:
        """Resume if there is a run, else begin it."""
        return self.resume(out, **more) if out.exists() else self.train(out, steps=steps, **more)

    def notes(self, out: Path) -> Path:
        return self.home / f"{out.parent.name}.notes"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("faults")
    home.chmod(0o777)
    stream = np.random.default_rng(0)
    labels = np.arange(240) % 3
    rows = (stream.standard_normal((240, 8)) + 2 * np.eye(8)[labels]).astype(np.float32)
    np.savez(
        home / "rows.npz",
        x_train=rows[:200],
        y_train=labels[:200],
        x_test=rows[200:],
        y_test=labels[200:],
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    servers = [Server(environment) for _ in range(2)]
    yield Bench(servers, home, home / "rows.npz")
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def reference(bench: Bench) -> Reference:
    """The light run that nobody disturbed, and which operations and how many seconds it took."""
    return undisturbed(bench, "reference")


def undisturbed(bench: Bench, name: str, **more: Any) -> Reference:
    """The second of two: code is compiled by then."""
    for each in (f"{name}-first", name):
        done = bench.train(place(bench, each), **more)
        assert done["status"] == 0, done["err"]
    return bench.home / name / "run", done


def place(bench: Bench, name: str) -> Path:
    folder = bench.home / name
    folder.mkdir()
    folder.chmod(0o777)
    return folder / "run"


def ledger_names(run: Path) -> list[str]:
    ledger = run / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True) if ledger.exists() else []
    return [json.loads(line)["release"] for line in lines[1:] if line.endswith(b"\n")]


def check_paid(bench: Bench, run: Path) -> None:
    """Whatever was released is in the ledger on disk, once."""
    notes = bench.notes(run)
    made = set(notes.read_text().splitlines()) if notes.exists() else set()
    paid = Counter(ledger_names(run))
    assert made <= set(paid), f"released but not paid for: {made - set(paid)}"
    assert all(count == 1 for count in paid.values())


def check_same(run: Path, reference: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    assert ledger_names(run) == ledger_names(reference)
    assert learning_curve(run) == learning_curve(reference)
    assert not (run / "secret.key").exists() and not (run / "work").exists()


def learning_curve(run: Path) -> list[tuple[int, float]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(each["step"], each["accuracy"]) for each in found]


def one_line(answer: dict[str, Any]) -> str:
    assert answer["status"] == 2, answer["err"]
    assert answer["err"].count("\n") == 1 and answer["err"].startswith("sfumato: "), answer["err"]
    return answer["err"]


def finish(bench: Bench, run: Path, reference: Path, steps: int = STEPS, **more: Any) -> None:
    done = bench.go_on(run, steps, **more)
    assert done["status"] == 0, done["err"]
    check_paid(bench, run)
    check_same(run, reference)


@pytest.fixture
def halfway(bench: Bench, reference: Reference) -> Callable[[str], Path]:
    """A run that was killed in the middle of its steps."""

    def make(name: str) -> Path:
        run = place(bench, name)
        killed = bench.train(
            run, fault={"at": len(reference[1]["operations"]) // 2, "how": "before"}
        )
        assert killed["status"] == -9 and 1 < len(ledger_names(run)) < STEPS
        return run

    return make


class Figures:
    """The table for docs/attacks.md."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def add(self, fault: str, moments: int, outcome: str, seconds: float) -> None:
        self.rows.append(f"| {fault} | {moments} | {outcome} | {seconds:.0f} |")

    def timed(self, fault: str) -> Callable[[int, str], None]:
        """A row whose seconds begin now."""
        began = time.monotonic()
        return lambda moments, outcome: self.add(fault, moments, outcome, time.monotonic() - began)


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    found = Figures()
    yield found
    print("\n| fault | moments | outcome | seconds |", "|---|---|---|---|", *found.rows, sep="\n")
