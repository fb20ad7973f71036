"""What public pre-training is worth: a small network pre-trained on CIFAR-100, then trained
privately on CIFAR-10 at several depths, beside the same network from scratch at the same epsilon
and at least as much private compute.

    python benchmarks/transfer.py [--data-dir DIR] [--epsilon 3] [--model wrn-10-2] [--epochs 6]
                                  [--steps 40] [--share 1]

About 20 minutes on 2 cores. The test set of CIFAR-10 is used once per row; no setting was chosen on
it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from record import machine, write_section

from sfumato.data.named import default_data_dir

TITLE = "Transfer: CIFAR-100 to CIFAR-10"


@dataclass(frozen=True)
class Case:
    """A row: arguments of `sfumato train` besides data and epsilon. public: uses the pre-trained
    weights."""

    title: str
    public: bool
    arguments: tuple[str, ...]


def cases(steps: int) -> tuple[Case, ...]:
    """All networks see the same batches of 1,024 images, in as many steps; the head sees all images
    in its own 20 steps."""
    network = (
        "--method",
        "dp-sgd",
        "--batch",
        "1024",
        "--steps",
        str(steps),
        "--views",
        "0",
        "--physical-batch-size",
        "64",
    )
    return (
        Case("from scratch, all", False, (*network, "--learning-rate", "2")),
        Case(
            "from scratch, all, twice the steps",
            False,
            (*_with(network, steps=2 * steps), "--learning-rate", "2"),
        ),
        Case("pre-trained, head (fc, on features computed once)", True, ("--train", "head")),
        Case("pre-trained, last:1", True, (*network, "--train", "last:1", "--learning-rate", "1")),
        Case("pre-trained, norms", True, (*network, "--train", "norms", "--learning-rate", "1")),
        Case("pre-trained, all", True, (*network, "--train", "all", "--learning-rate", "1")),
    )


def _with(arguments: tuple[str, ...], steps: int) -> tuple[str, ...]:
    at = arguments.index("--steps") + 1
    return (*arguments[:at], str(steps), *arguments[at + 1 :])


def sfumato(*arguments: object) -> dict:
    """One command in a process of its own; its last JSON line and how long it took, in seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "sfumato.cli", *map(str, arguments), "--log", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": time.monotonic() - began}


def row(case: Case, options: argparse.Namespace, weights: Path, out: Path) -> str:
    start = ("--weights", weights) if case.public else ("--model", options.model)
    result = sfumato(
        "train",
        "--data",
        "cifar10",
        "--data-dir",
        options.data_dir,
        "--share",
        options.share,
        "--epsilon",
        options.epsilon,
        "--delta",
        1e-5,
        *start,
        *case.arguments,
        "--out",
        out,
    )
    plan = json.loads((out / "plan.json").read_text())
    return (
        f"| {case.title} | {plan['parameters']:,} | {result['epsilon']:.4f} | "
        f"**{100 * result['evaluation']['accuracy']:.2f}** | {result['wall'] / 60:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--model", default="wrn-10-2")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the training images of both sets"
    )
    parser.add_argument("--only-print", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory) / "cifar100.safetensors"
        public = sfumato(
            "pretrain",
            "--data",
            "cifar100",
            "--data-dir",
            options.data_dir,
            "--share",
            options.share,
            "--model",
            options.model,
            "--epochs",
            options.epochs,
            "--out",
            weights,
        )
        print(
            f"pre-trained: {100 * public['accuracy']:.2f} % on CIFAR-100, {public['wall'] / 60:.1f} min",
            flush=True,
        )
        rows = []
        for number, case in enumerate(cases(options.steps)):
            rows.append(row(case, options, weights, Path(directory) / str(number)))
            print(rows[-1], flush=True)
    head = "| CIFAR-10 | trained parameters | ε spent | test accuracy, % | minutes |\n|---|---|---|---|---|"
    intro = (
        f"`python benchmarks/transfer.py`: {options.model}, ε = {options.epsilon:g}, δ = 10⁻⁵, {100 * options.share:g} % "
        f"of the training images of both sets, fresh noise. Pre-training (not private): CIFAR-100, {options.epochs} "
        f"epochs, {100 * public['accuracy']:.2f} % test accuracy there, {public['wall'] / 60:.1f} min. DP-SGD: batches of "
        "1,024."
    )
    if not options.only_print:
        write_section(TITLE, "\n\n".join((intro, "\n".join((head, *rows)), f"On {machine()}.")))


if __name__ == "__main__":
    main()
