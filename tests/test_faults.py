"""The campaign of `make test-faults`: kill -9 at random moments, full and read-only disks, damaged
files, clocks that leap, two processes on one directory (`test_faults_everywhere.py`: every file
operation, power cuts). The laws:

* every release that was made is in the ledger (it never under-counts), and none is there twice;
* the resumed run ends in the bits of the run that nobody disturbed;
* what cannot go on says so in one line, and leaves the ledger as it was.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_bench import (
    SAME_BITS,
    Bench,
    Figures,
    Reference,
    check_paid,
    check_same,
    finish,
    one_line,
    place,
    undisturbed,
)

pytest_plugins = ("fault_bench",)
pytestmark = pytest.mark.slow
KILLS = 100
Halfway = Callable[[str], Path]


# -- kill -9


def test_killed_at_a_hundred_random_moments(bench: Bench, figures: Figures) -> None:
    """Up to eight kills of a whole run, each at a random moment of a process, until there were a
    hundred."""
    reference = undisturbed(bench, "whole", light=False)
    done, stream = (
        figures.timed("kill -9 at a random moment of a process, up to 8 times a run"),
        np.random.default_rng(2024),
    )
    kills = runs = 0
    while kills < KILLS:
        run = place(bench, f"random{runs}")
        for _ in range(8):
            killed = bench.go_on(
                run,
                light=False,
                seconds=float(stream.uniform(0.02, 1.05) * reference[1]["seconds"]),
            )
            assert killed["status"] in (0, -9), killed["err"]
            kills += killed["status"] == -9
            check_paid(bench, run)
        finish(bench, run, reference[0], light=False)
        runs += 1
    done(kills, f"{runs} runs, {SAME_BITS}")


def test_killed_in_the_middle_of_a_ledger_line(
    bench: Bench, reference: Reference, halfway: Halfway, figures: Figures
) -> None:
    done = figures.timed("a last ledger line torn by a crash")
    run = halfway("torn")
    with open(run / "ledger.jsonl", "ab") as ledger:
        ledger.write(b'{"event":{"kind":"gauss')
    finish(bench, run, reference[0])
    done(1, SAME_BITS)


# -- full and read-only disks


@pytest.mark.parametrize("how", ["ENOSPC", "EROFS", "EIO"])
def test_a_disk_that_fails_in_the_middle_is_one_line_and_the_run_goes_on_later(
    bench: Bench, reference: Reference, how: str, figures: Figures
) -> None:
    done = figures.timed(f"every call fails with {how} from some file operation on")
    places = np.linspace(1, len(reference[1]["operations"]), 9).astype(int)[:-1]
    for at in places:
        run = place(bench, f"{how}{at}")
        one_line(bench.train(run, fault={"at": int(at), "how": how}))
        check_paid(bench, run)
        finish(bench, run, reference[0])
    done(len(places), f"one line; {SAME_BITS}")


def test_a_file_system_that_takes_no_more_bytes(
    bench: Bench, reference: Reference, figures: Figures
) -> None:
    """No simulation: the kernel refuses to let any file grow past a limit, here that of a ledger of
    a few lines."""
    done, run = figures.timed("the kernel lets no file grow (RLIMIT_FSIZE)"), place(bench, "limit")
    size = (
        len(b"".join((reference[0] / "ledger.jsonl").read_bytes().splitlines(keepends=True)[:4]))
        + 20
    )
    one_line(bench.train(run, fault={"bytes": max(size, 1100)}))
    check_paid(bench, run)
    finish(bench, run, reference[0])
    done(1, f"one line; {SAME_BITS}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """A file system of its own: grow("64k") mounts it, or makes it larger."""

    def grow(size: str) -> None:
        again = (
            ["-o", f"remount,size={size}"] if os.path.ismount(tmp_path) else ["-o", f"size={size}"]
        )
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", *again, "none", tmp_path], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("may not mount a file system here")

    yield grow
    if os.path.ismount(tmp_path):
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("pages", range(4, 13, 2))
def test_a_disk_that_is_full(
    bench: Bench,
    reference: Reference,
    figures: Figures,
    tmp_path: Path,
    pages: int,
    small_disk: Callable[[str], None],
) -> None:
    """No simulation either: a small file system, full sooner or later; then it is made larger."""
    done, run = figures.timed(f"a file system of {pages} pages"), tmp_path / "run"
    small_disk(f"{4 * pages}k")
    one_line(bench.train(run))
    check_paid(bench, run)
    small_disk("4m")
    finish(bench, run, reference[0])
    bench.notes(run).unlink()
    done(1, f"one line; {SAME_BITS}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become nobody")
def test_a_directory_that_may_not_be_written(
    bench: Bench, reference: Reference, halfway: Halfway, figures: Figures
) -> None:
    done = figures.timed("a directory that may not be written, as another user")
    run = halfway("readonly")
    before = (run / "ledger.jsonl").read_bytes()
    run.chmod(0o555)
    one_line(bench.resume(run, fault={"how": "nobody"}))
    assert (run / "ledger.jsonl").read_bytes() == before
    run.chmod(0o700)
    finish(bench, run, reference[0])
    done(1, f"one line; {SAME_BITS}")


# -- damaged files


FILES = (
    "work/checkpoint/state.safetensors",
    "work/checkpoint/facts.json",
    "work/sums.jsonl",
    "work/began.json",
    "ledger.jsonl",
    "config.json",
    "plan.json",
    "secret.key",
)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_and_nothing_is_spent(
    bench: Bench, reference: Reference, halfway: Halfway, name: str, figures: Figures
) -> None:
    """But for hashes of sums that the checkpoint has made needless, and digits of the key changed
    from lower to upper case: a run may end well with them.
    """
    done, stream = (
        figures.timed(f"a bit flipped, half cut off, noise in {name}"),
        np.random.default_rng(len(name)),
    )
    origin = halfway(name.replace("/", "-"))
    content = (origin / name).read_bytes()
    flips = [flipped(content, int(at)) for at in stream.integers(0, 8 * len(content), 6)]
    ended = 0
    for number, damaged in enumerate(
        [*flips, content[: len(content) // 2], stream.bytes(len(content)), b""]
    ):
        run = place(bench, f"{number}-{name.replace('/', '-')}")
        shutil.copytree(origin, run)
        (run / name).write_bytes(damaged)
        before = (run / "ledger.jsonl").read_bytes()
        answer = bench.resume(run)
        if answer["status"] == 0 and name in ("work/sums.jsonl", "secret.key"):
            check_paid(bench, run)
            check_same(run, reference[0])
            ended += 1
            continue
        one_line(answer)
        after = (run / "ledger.jsonl").read_bytes()
        assert after in (before, before[: before.rfind(b"\n") + 1]), (
            "a torn last line may go: it was never confirmed"
        )
    done(
        9,
        f"refused in one line, nothing spent{f'; {ended} ended in the same bits' if ended else ''}",
    )


def flipped(content: bytes, bit: int) -> bytes:
    at = bit // 8
    return content[:at] + bytes([content[at] ^ (1 << bit % 8)]) + content[at + 1 :]


def test_without_its_checkpoint_a_run_repeats_its_steps_and_pays_nothing_twice(
    bench: Bench, reference: Reference, halfway: Halfway, figures: Figures
) -> None:
    done = figures.timed("the checkpoint deleted")
    run = halfway("no-checkpoint")
    shutil.rmtree(run / "work" / "checkpoint")
    finish(bench, run, reference[0])
    done(1, SAME_BITS)


# -- clocks and rivals


@pytest.mark.parametrize("leap", [-3e8, 3e8])
def test_a_clock_that_leaps_and_runs_backwards_changes_nothing(
    bench: Bench, reference: Reference, halfway: Halfway, leap: float, figures: Figures
) -> None:
    done = figures.timed(f"the clock leaps by {leap / 3.15576e7:+.1f} years, then runs backwards")
    run = halfway(f"clock{leap}")
    ended = bench.resume(run, fault={"how": "clock", "leap": leap})
    assert ended["status"] == 0, ended["err"]
    times = [json.loads(line)["time"] for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert len({each[:4] for each in times}) > 1, "control: the clock did leap"
    check_paid(bench, run)
    check_same(run, reference[0])
    done(1, SAME_BITS)


@pytest.mark.parametrize("command", ["train", "resume"])
def test_of_two_processes_on_one_directory_one_is_sent_away(
    bench: Bench, reference: Reference, halfway: Halfway, command: str, figures: Figures
) -> None:
    done = figures.timed(f"two processes {command} one directory at once")
    sent_away = 0
    for number in range(5):
        run = halfway(f"rivals{number}") if command == "resume" else place(bench, f"twins{number}")
        for server in (0, 1):
            {"train": bench.train, "resume": bench.resume}[command](run, server, wait=False)
        ended = sorted(
            (server.end() for server in bench.servers), key=lambda answer: answer["status"]
        )
        assert ended[0]["status"] == 0, ended[0]["err"]
        if ended[1]["status"] != 0:  # else the first had ended before the second began
            assert any(
                words in one_line(ended[1]) for words in ("another process", "exists already")
            )
            sent_away += 1
        check_paid(bench, run)
        check_same(run, reference[0])
    done(5, f"{sent_away} sent away in one line, one ended in the same bits")
