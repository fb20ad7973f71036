"""Every file operation of a short run, one after the other: kill -9 before it, kill -9 with half of
a write done, and a power cut before it that leaves only what was flushed. The laws are those of
`test_faults.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_bench import SAME_BITS, Bench, Figures, Reference, check_paid, finish, place, undisturbed

pytest_plugins = ("fault_bench",)
pytestmark = pytest.mark.slow
STEPS = 3
"""Of gradients, after one release of a mean: the first release writes a checkpoint, the second
replaces it."""


@pytest.fixture(scope="module")
def short(bench: Bench) -> Reference:
    return undisturbed(bench, "short", steps=STEPS)


FAULTS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "before": ("kill -9 before a file operation, every one", lambda operation: True),
    "half": (
        "kill -9 in the middle of a write, every one",
        lambda operation: operation.startswith("write"),
    ),
    "power": ("power cut before a file operation, every one", lambda operation: True),
}


@pytest.mark.parametrize("how", FAULTS)
def test_stopped_at_every_file_operation(
    bench: Bench, short: Reference, figures: Figures, how: str
) -> None:
    fault, chosen = FAULTS[how]
    done, kills = figures.timed(fault), 0
    for at, operation in enumerate(short[1]["operations"], start=1):
        if not chosen(operation):
            continue
        run = place(bench, f"{how}{at}")
        stopped = bench.train(run, steps=STEPS, fault={"at": at, "how": how})
        assert stopped["status"] == -9, f"{operation} {at}: {stopped['err']}"
        check_paid(bench, run)
        finish(bench, run, short[0], STEPS)
        kills += 1
    assert kills > (100 if how != "half" else 20)
    done(kills, SAME_BITS)


@pytest.mark.parametrize("how", ["before", "power"])
def test_a_resumed_run_is_stopped_at_every_file_operation(
    bench: Bench, short: Reference, figures: Figures, how: str
) -> None:
    """Stopped after its second payment, then again at each operation of what `sfumato resume` does."""
    done = figures.timed(f"{FAULTS[how][0]}, of a resumed run")
    first = {"at": nth_payment(short, 2), "how": how}
    run = place(bench, f"measure-{how}")
    bench.train(run, steps=STEPS, fault=first)
    operations = bench.resume(run)["operations"]
    for at in range(1, len(operations) + 1):
        run = place(bench, f"again-{how}{at}")
        bench.train(run, steps=STEPS, fault=first)
        assert bench.resume(run, fault={"at": at, "how": how})["status"] == -9
        check_paid(bench, run)
        finish(bench, run, short[0], STEPS)
    done(len(operations), SAME_BITS)


def nth_payment(short: Reference, n: int) -> int:
    """The operation that follows the flush of the ledger's n-th payment."""
    operations = short[1]["operations"]
    written = [
        at for at, operation in enumerate(operations, start=1) if operation == "write ledger.jsonl"
    ]
    assert len(written) > n and operations[written[n - 1]] == "fsync ledger.jsonl"
    return written[n - 1] + 2


@pytest.mark.parametrize("forget", ["directories", "ledger"])
def test_control_a_program_that_does_not_flush_is_found_out(
    bench: Bench, short: Reference, forget: str
) -> None:
    """The same power cuts on a run whose flushes of directories, or of the ledger, never reach the
    disk."""
    stopped: list[Path] = []
    with pytest.raises(AssertionError, match="released but not paid for"):
        for at in range(nth_payment(short, 1), len(short[1]["operations"]), 5):
            stopped.append(place(bench, f"control-{forget}{at}"))
            bench.train(
                stopped[-1], steps=STEPS, fault={"at": at, "how": "power", "forget": forget}
            )
            check_paid(bench, stopped[-1])
