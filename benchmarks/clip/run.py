"""Per-example clipping against the ordinary gradient step, jax_privacy and Opacus, all timed in one
run.

    make bench-clip                       (installs the peers into a venv of their own)
    python benchmarks/clip/run.py [--case NAME ...] [--contestant NAME ...] [--runs 5]
                                    [--no-write] [--figures FILE]

The same script runs on a GPU, where bf16 cases join in. Peers that are not installed are left out
by name. RESULTS.md is written by complete runs only; with --figures, cases that FILE holds count as
run, and what is run is added to it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from cases import CASES, GPU_CASES
from measure import SIDE_RUNS
from programs import CONTESTANTS
from table import reasons, tables

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from record import machine, write_section  # noqa: E402

INTRO = (
    "`make bench-clip`: a gradient step with per-example clipping, in units of the ordinary step: `jax.grad` of the mean loss, "
    "same network, compiled. Bold: the figure to reach was reached. Medians of {runs} rounds in which all contestants take "
    "turns, one process per case ({side} rounds for those no target speaks of). Memory is XLA's own "
    "figure: temporary buffers + outputs - outputs in an argument's buffer. jax_privacy stands for the fastest of its "
    "microbatch settings, Opacus for the fastest of hooks, ew and ghost, chosen in the same process; the clipped sums of all "
    "JAX contestants agree to 1 %. Opacus runs forward, backward, clip and sum, no noise; its WRN has plain convolutions where "
    "ours standardize their weights, because it has no rule for these. That spares it work."
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case", nargs="+", choices=[*CASES, *GPU_CASES], help="default: all that fit the device"
    )
    parser.add_argument(
        "--contestant",
        nargs="+",
        choices=CONTESTANTS,
        help="default: all; the ordinary step always runs",
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-write", action="store_true", help="only print the tables")
    parser.add_argument(
        "--figures", type=Path, help="JSON file of cases already run on this machine"
    )
    options = parser.parse_args()
    backend, device = devices()
    everything = CASES if backend == "cpu" else {**CASES, **GPU_CASES}
    if unknown := set(options.case or ()) - everything.keys():
        sys.exit(f"--case {' '.join(sorted(unknown))}: for a GPU only")
    results = (
        json.loads(options.figures.read_text())
        if options.figures and options.figures.exists()
        else {}
    )
    for name in options.case or [name for name in everything if name not in results]:
        print(f"{everything[name].title} ({device})", flush=True)
        results[name] = measure(name, options.runs, options.contestant)
        print(
            f"  peak resident memory of this case: {results[name]['peak_rss'] / 1e9:.1f} GB",
            flush=True,
        )
        if options.figures:
            options.figures.write_text(json.dumps(results))
    cases = {name: case for name, case in everything.items() if name in results}
    text = tables(cases, results)
    print(f"\n{text}\n\n{reasons(cases, results)}")
    if not (options.no_write or options.contestant or cases.keys() != everything.keys()):
        peers = ", ".join(
            f"{name} {number}" for name, number in next(iter(results.values()))["versions"].items()
        )
        on = f"On {machine()}{f'; {device}' if backend != 'cpu' else ''}{f'; {peers}' if peers else ''}."
        parts = (
            INTRO.format(runs=options.runs, side=min(SIDE_RUNS, options.runs)),
            text,
            reasons(cases, results),
            on,
        )
        write_section(
            "Clipping engine" if backend == "cpu" else f"Clipping engine, {device}",
            "\n\n".join(filter(None, parts)),
        )


def devices() -> tuple[str, str]:
    """(backend, kind of device), asked of another process: this one must not hold an accelerator's
    memory."""
    code = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    backend, kind = done.stdout.splitlines()[-2:]
    return backend, kind


def measure(name: str, runs: int, contestants: list[str] | None) -> dict:
    command = [sys.executable, str(HERE / "measure.py"), name, "--runs", str(runs)]
    command += ["--contestant", *contestants] if contestants else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{name}: measure.py failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
