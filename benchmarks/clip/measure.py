"""One case in a process of its own: time every contestant in turn, round after round. Prints its
result as a JSON line.

    python benchmarks/clip/measure.py CASE [--runs 5] [--contestant NAME ...]

`run.py` calls this once per case, so that one case's memory cannot disturb another's times.
Progress goes to stderr.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from cases import CASES, GPU_CASES, Case
from jaxtyping import PyTree
from programs import CONTESTANTS, OURS, Missing, Program, Programs, versions

SHORTEST = 0.3
"""Seconds that one timing should last at least; faster steps are repeated within it."""
NEAR = 1.5
"""A setting whose first run took this many times as long as the fastest one's is not tried again.
"""
SIDE = ("book_keeping", "two_pass", "materialize", "torch")
SIDE_RUNS = 3
"""Rounds for contestants that no target speaks of."""
AGREEMENT = 1e-2
BF16_AGREEMENT = 5e-2
"""Largest relative distance between two contestants' sums; one that is further off is not timed."""


@dataclass
class Entry:
    """A contestant with the setting that was fastest in the trial; `same` names who brought the
    same program before."""

    setting: str
    program: Program
    trial: float
    same: str | None = None


def measure(case: Case, runs: int, wanted: list[str]) -> dict:
    programs = Programs(case)
    entries: dict[str, Entry] = {}
    left_out: dict[str, str] = {}
    agrees = Agreement(BF16_AGREEMENT if case.precision == "bf16" else AGREEMENT)
    for name in CONTESTANTS:
        if name not in wanted:
            continue
        try:
            entry = best(programs, name, agrees)
        except Exception as reason:  # not installed, not written yet, out of memory: the table says so, the others go on
            left_out[name] = (
                f"{'' if isinstance(reason, Missing) else f'{type(reason).__name__}: '}{reason}".split(
                    "\n"
                )[0]
            )
            say(f"{name}: left out ({left_out[name]})")
            continue
        entry.same = next(
            (other for other, each in entries.items() if each.program is entry.program), None
        )
        entries[name] = entry
    seconds = rounds({name: entry for name, entry in entries.items() if entry.same is None}, runs)
    rows = {
        name: {
            "setting": entry.setting,
            "memory": entry.program.memory,
            "same": entry.same,
            "seconds": statistics.median(seconds[entry.same or name]),
        }
        for name, entry in entries.items()
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": rows,
        "left_out": left_out,
        "runs": runs,
        "peak_rss": peak,
        "versions": versions(),
    }


def best(programs: Programs, name: str, agrees: "Agreement") -> Entry:
    """Build every setting and run it once; if several come near the fastest, run these again, now
    warm. The fastest."""
    found: list[Entry] = []
    failed: list[Exception] = []
    for setting, build in programs.settings(name).items():
        try:
            found.append(
                first_run(build, setting, agrees if name == "jax_privacy" or name in OURS else None)
            )
        except Exception as reason:  # one setting may need too much memory
            failed.append(reason)
            continue
        memory = found[-1].program.memory
        say(
            f"{name} {setting}: {found[-1].trial:.3f} s"
            + ("" if memory is None else f", {memory / 1e6:.0f} MB")
        )
    if not found:
        raise failed[0]
    fastest = min(entry.trial for entry in found)
    near = [entry for entry in found if entry.trial < NEAR * fastest]
    if len(near) > 1:
        for entry in near:
            entry.trial = timed(entry.program.run)
            say(f"{name} {entry.setting}: {entry.trial:.3f} s, warm")
    return min(near, key=lambda entry: entry.trial)


def first_run(build: Callable[[], Program], setting: str, agrees: "Agreement | None") -> Entry:
    program = build()
    start = time.perf_counter()
    value = program.run()
    trial = time.perf_counter() - start
    if agrees is not None:
        agrees.check(value)
    return Entry(setting, program, trial)


class Agreement:
    """The clipped sums of a batch must agree: a fast wrong answer is no contestant."""

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self.reference: list[np.ndarray] | None = None

    def check(self, value: PyTree) -> None:
        leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(value)]
        if self.reference is None:
            self.reference = leaves
        norm = math.sqrt(sum(float(np.vdot(leaf, leaf)) for leaf in self.reference))
        parts = (a - b for a, b in zip(leaves, self.reference, strict=True))
        distance = math.sqrt(sum(float(np.vdot(part, part)) for part in parts)) / norm
        if not distance <= self.tolerance:
            raise ArithmeticError(f"its sum is off by {distance:.1e}")


def rounds(entries: dict[str, Entry], runs: int) -> dict[str, list[float]]:
    """Seconds per step of everyone in every round; every other round goes backwards, so that
    neighbors change."""
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    for index in range(runs):
        for name in list(entries)[:: -1 if index % 2 else 1]:
            if name in SIDE and index >= SIDE_RUNS:
                continue
            repeats = max(1, math.ceil(SHORTEST / entries[name].trial))
            seconds[name].append(timed(entries[name].program.run, repeats))
        latest = (
            f"{name} {each[index]:.3f}" for name, each in seconds.items() if len(each) > index
        )
        say(f"round {index + 1} of {runs}: {', '.join(latest)}")
    return seconds


def timed(run: Callable[[], PyTree], repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=[*CASES, *GPU_CASES])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--contestant", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    options = parser.parse_args()
    case = {**CASES, **GPU_CASES}[options.case]
    print(json.dumps(measure(case, options.runs, ["ordinary", *options.contestant])))


if __name__ == "__main__":
    main()
