"""The parity tests, and what they measured as a table in RESULTS.md. Needs torch, timm and
transformers (`make test-parity`).

.venv-parity/bin/python benchmarks/parity.py
"""

import re
import subprocess
import sys
from pathlib import Path

from record import machine, write_section

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/test_parity_convs.py", "tests/test_parity_vits.py")
_LINE = re.compile(r"parity: (\S+) at (\d+) px with (\w+): (\S+)")


def main() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", *TESTS], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-4000:] + done.stderr[-1000:])
    found = _LINE.findall(done.stdout)
    rows = [f"| {name} | {side} | {layout} | {error} |" for name, side, layout, error in found]
    names = len({row[0] for row in found})
    words = (
        f"`python benchmarks/parity.py`: {names} networks full of random weights and BatchNorm statistics, saved by timm "
        "or transformers and read by us: largest difference of any score, relative to the largest score, in float32."
    )
    table = "\n".join(
        ("| network | pixels | layout of the file | difference |", "|---|---|---|---|", *rows)
    )
    body = f"{words}\n\n{table}\n\nOn {machine()}."
    print(body)
    write_section("Parity with the reference implementations", body)


if __name__ == "__main__":
    main()
