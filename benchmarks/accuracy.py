"""Accuracy, time and memory of `sfumato train` as a user runs it: fresh noise in every run, three public seeds.

    python benchmarks/accuracy.py [--data-dir DIR] [--only NAME] [--seeds N]

Data sets are looked for in --data-dir (default: ../shared/data, then the user's cache). The test set is used once per
run, for the figure reported here; no setting was chosen on it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from record import machine, write_section

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Case:
    """A row of the table: what is run, and the figure to reach."""

    title: str
    arguments: tuple[str, ...]
    target: float
    minutes: float


CASES = {
    "fashion_mnist": Case("Fashion-MNIST", ("--data", "fashion_mnist", "--epsilon", "3", "--delta", "1e-5"), 89.4, 4),
    "cifar10": Case("CIFAR-10", ("--data", "cifar10", "--epsilon", "3", "--delta", "1e-5"), 68.0, 8),
    "digits": Case("digits (`make demo`)", ("--data", "digits", "--epsilon", "8", "--delta", "1e-4"), 88.0, 20 / 60),
}


def run(case: Case, seed: int, data_dir: Path) -> dict:
    """One `sfumato train`; its last JSON line."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "sfumato.cli", "train", *case.arguments, "--seed", str(seed), "--log", "json",
                   "--out", f"{directory}/run"]
        command += ["--data-dir", str(data_dir)] if data_dir.is_dir() else []
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])


def row(case: Case, results: list[dict]) -> str:
    accuracies = [100 * each["evaluation"]["accuracy"] for each in results]
    spread = " / ".join(f"{each:.2f}" for each in accuracies)
    parts = [mean(each["seconds"][name] for each in results) for name in ("features", "training", "total")]
    spent = max(each["epsilon"] for each in results)
    delta = results[0]["delta"]
    memory = max(each["peak_memory_bytes"] for each in results) / 1e9
    return (f"| {case.title} | {spent:.4f} | {delta:g} | **{mean(accuracies):.2f}** ({spread}) | {case.target} | "
            f"{parts[0]:.0f} + {parts[1]:.0f} s, {parts[2] / 60:.1f} min in all | {case.minutes:.1f} min | {memory:.1f} GB |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for name, case in CASES.items():
        if options.only in (None, name):
            rows.append(row(case, [run(case, seed, options.data_dir) for seed in range(options.seeds)]))
            print(rows[-1], flush=True)
    if options.only is None:
        head = ("| data | ε spent | δ | test accuracy, % (each run) | to reach | features + training | time to reach | "
                "peak memory |\n|---|---|---|---|---|---|---|---|")
        write_section("Default method, no public data",
                      f"`python benchmarks/accuracy.py`: `sfumato train` with its defaults (patches+scattering, dp-fc), mean "
                      f"of {options.seeds} runs, add-or-remove-one.\n\n{head}\n" + "\n".join(rows) + f"\n\nOn {machine()}.")


if __name__ == "__main__":
    main()
