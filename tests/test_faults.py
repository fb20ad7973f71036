"""The campaign of `make test-faults`: kill -9 at random moments and at every file operation, full and read-only disks,
damaged files, clocks that run backwards, two processes on one directory. The laws:

* every release that was made is in the ledger (it never under-counts), and none is there twice;
* the resumed run ends in the bits of the run that nobody disturbed;
* what cannot go on says so in one line, and leaves the ledger as it was.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
STEPS = 8
KILLS = 100
pytestmark = pytest.mark.slow
SAME = ("model.safetensors", "plan.json", "evaluation.json")


class Server:
    """`faults.py` in a process of its own."""

    def __init__(self, environment: dict[str, str]):
        self._process = subprocess.Popen([sys.executable, HERE / "faults.py"], env=environment, text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip

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

    def train(self, out: Path, server: int = 0, **more: Any) -> dict[str, Any]:
        return self.do(["fit", "--features", str(self.data), "--method", "adam", "--steps", str(STEPS), "--epsilon", "4",
                        "--insecure-seed", "1", "--checkpoint-seconds", "1e-6", "--log", "quiet", "--out", str(out)],
                       out, server, **more)  # fmt: skip

    def resume(self, out: Path, server: int = 0, **more: Any) -> dict[str, Any]:
        return self.do(["resume", str(out)], out, server, **more)

    def do(self, arguments: list[str], out: Path, server: int, wait: bool = True, **more: Any) -> dict[str, Any]:
        self.servers[server].begin(arguments=arguments, root=str(out.parent), notes=str(self.notes(out)), **more)
        return self.servers[server].end() if wait else {}

    def go_on(self, out: Path, **more: Any) -> dict[str, Any]:
        """Resume if there is a run, else begin it."""
        return self.resume(out, **more) if out.exists() else self.train(out, **more)

    def notes(self, out: Path) -> Path:
        return self.home / f"{out.parent.name}.notes"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home = tmp_path_factory.mktemp("faults")
    home.chmod(0o777)
    stream = np.random.default_rng(0)
    labels = np.arange(240) % 3
    rows = (stream.standard_normal((240, 8)) + 2 * np.eye(8)[labels]).astype(np.float32)
    np.savez(home / "rows.npz", x_train=rows[:200], y_train=labels[:200], x_test=rows[200:], y_test=labels[200:])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]), "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip
    servers = [Server(environment) for _ in range(2)]
    yield Bench(servers, home, home / "rows.npz")
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def reference(bench: Bench) -> tuple[Path, dict[str, Any]]:
    """The run that nobody disturbed, and how many operations and seconds it took (code compiled before)."""
    for name in ("first", "reference"):
        done = bench.train(place(bench, name))
        assert done["status"] == 0, done["err"]
    return bench.home / "reference" / "run", done


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
    assert not (run / "secret.key").exists() and not (run / "work").exists()


def one_line(answer: dict[str, Any]) -> str:
    assert answer["status"] == 2, answer["err"]
    assert answer["err"].count("\n") == 1 and answer["err"].startswith("sfumato: "), answer["err"]
    return answer["err"]


def finish(bench: Bench, run: Path, reference: Path) -> None:
    done = bench.go_on(run)
    assert done["status"] == 0, done["err"]
    check_paid(bench, run)
    check_same(run, reference)


@pytest.fixture
def halfway(bench: Bench, reference: tuple[Path, dict[str, Any]]) -> Callable[[str], Path]:
    """A run that was killed in the middle of its steps."""

    def make(name: str) -> Path:
        run = place(bench, name)
        killed = bench.train(run, fault={"at": reference[1]["operations"] // 2, "how": "before"})
        assert killed["status"] == -9 and 1 < len(ledger_names(run)) < STEPS
        return run

    return make


# -- kill -9


def test_killed_at_a_hundred_random_moments(bench: Bench, reference: tuple[Path, dict[str, Any]]) -> None:
    """Up to eight kills a run, each at a random moment of a process, until there were a hundred."""
    stream = np.random.default_rng(2024)
    kills = runs = 0
    while kills < KILLS:
        run = place(bench, f"random{runs}")
        for _ in range(8):
            killed = bench.go_on(run, seconds=float(stream.uniform(0.02, 1.05) * reference[1]["seconds"]))
            assert killed["status"] in (0, -9), killed["err"]
            kills += killed["status"] == -9
            check_paid(bench, run)
        finish(bench, run, reference[0])
        runs += 1
    print(f"{kills} kills at random moments of {runs} runs")


@pytest.mark.parametrize("how", ["before", "half", "after"])
def test_killed_at_file_operations(bench: Bench, reference: tuple[Path, dict[str, Any]], how: str) -> None:
    """Before, in the middle of and after operations spread over the run: ledger lines, checkpoints, renames, the end."""
    stride = 15
    kills = 0
    for at in range(1 + len(how) % stride, reference[1]["operations"], stride):
        run = place(bench, f"{how}{at}")
        killed = bench.train(run, fault={"at": at, "how": how})
        kills += killed["status"] == -9
        check_paid(bench, run)
        finish(bench, run, reference[0])
    assert kills > 0.5 * reference[1]["operations"] / stride
    print(f"{kills} kills at operations, {how}")


def test_killed_in_the_middle_of_a_ledger_line(bench: Bench, reference: tuple[Path, dict[str, Any]],
                                               halfway: Callable[[str], Path]) -> None:  # fmt: skip
    run = halfway("torn")
    with open(run / "ledger.jsonl", "ab") as ledger:
        ledger.write(b'{"event":{"kind":"gauss')
    finish(bench, run, reference[0])


# -- full and read-only disks


@pytest.mark.parametrize("how", ["ENOSPC", "EROFS"])
def test_a_disk_that_fails_in_the_middle_is_one_line_and_the_run_goes_on_later(
    bench: Bench, reference: tuple[Path, dict[str, Any]], how: str
) -> None:
    every = reference[1]["operations"]
    for at in np.linspace(1, every, 8).astype(int)[:-1]:
        run = place(bench, f"{how}{at}")
        failed = bench.train(run, fault={"at": int(at), "how": how})
        one_line(failed)
        check_paid(bench, run)
        finish(bench, run, reference[0])


def test_a_file_system_that_takes_no_more_bytes(bench: Bench, reference: tuple[Path, dict[str, Any]]) -> None:
    """No simulation: the kernel refuses to let any file grow past a limit, here that of a ledger of a few lines."""
    run = place(bench, "limit")
    size = len(b"".join((reference[0] / "ledger.jsonl").read_bytes().splitlines(keepends=True)[:4])) + 20
    one_line(bench.train(run, fault={"bytes": max(size, 1100)}))
    check_paid(bench, run)
    finish(bench, run, reference[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")
def test_a_directory_that_may_not_be_written(bench: Bench, reference: tuple[Path, dict[str, Any]],
                                             halfway: Callable[[str], Path]) -> None:  # fmt: skip
    run = halfway("readonly")
    before = (run / "ledger.jsonl").read_bytes()
    run.chmod(0o555)
    one_line(bench.resume(run, fault={"how": "nobody"}))
    assert (run / "ledger.jsonl").read_bytes() == before
    run.chmod(0o700)
    finish(bench, run, reference[0])


# -- damaged files


FILES = ("work/checkpoint/state.safetensors", "work/checkpoint/facts.json", "work/sums.jsonl", "work/began.json",
         "ledger.jsonl", "config.json", "plan.json", "secret.key")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["bit", "cut", "noise"])
def test_a_damaged_file_is_refused_and_nothing_is_spent(
    bench: Bench, reference: tuple[Path, dict[str, Any]], halfway: Callable[[str], Path], name: str, damage: str
) -> None:
    """But for hashes of sums that the checkpoint has made needless: a run may end well without them."""
    run = halfway(f"{damage}-{name.replace('/', '-')}")
    file, before = run / name, (run / "ledger.jsonl").read_bytes()
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes({"bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                      "cut": content[:middle], "noise": os.urandom(len(content))}[damage])  # fmt: skip
    if name == "ledger.jsonl":
        before = file.read_bytes()
    answer = bench.resume(run)
    if name == "work/sums.jsonl" and answer["status"] == 0:
        return check_same(run, reference[0])
    one_line(answer)
    after = (run / "ledger.jsonl").read_bytes()
    assert after in (before, before[: before.rfind(b"\n") + 1]), "a torn last line may go: it was never confirmed"


def test_without_its_checkpoint_a_run_repeats_its_steps_and_pays_nothing_twice(
    bench: Bench, reference: tuple[Path, dict[str, Any]], halfway: Callable[[str], Path]
) -> None:
    run = halfway("no-checkpoint")
    shutil.rmtree(run / "work" / "checkpoint")
    finish(bench, run, reference[0])


# -- clocks and rivals


def test_a_clock_that_runs_backwards_changes_nothing(bench: Bench, reference: tuple[Path, dict[str, Any]],
                                                     halfway: Callable[[str], Path]) -> None:  # fmt: skip
    run = halfway("clock")
    done = bench.resume(run, fault={"how": "clock"})
    assert done["status"] == 0, done["err"]
    times = [json.loads(line)["time"] for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert times != sorted(times), "control: the clock did jump"
    check_paid(bench, run)
    check_same(run, reference[0])


def test_of_two_processes_on_one_directory_one_is_sent_away(bench: Bench, reference: tuple[Path, dict[str, Any]],
                                                            halfway: Callable[[str], Path]) -> None:  # fmt: skip
    run = halfway("rivals")
    for server in (0, 1):
        bench.resume(run, server, wait=False)
    ended = sorted((server.end() for server in bench.servers), key=lambda answer: answer["status"])
    assert ended[0]["status"] == 0, ended[0]["err"]
    if ended[1]["status"] != 0:  # else the first had ended before the second began
        assert "another process" in one_line(ended[1]) or "missing" in ended[1]["err"]
    check_paid(bench, run)
    check_same(run, reference[0])
