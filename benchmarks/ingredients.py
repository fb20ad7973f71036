"""What each ingredient of DP-SGD is worth: one on or off at a time, some seeds, a table with
intervals, into RESULTS.md.

    python benchmarks/ingredients.py                                  # a small network on the bundled digits
    python benchmarks/ingredients.py --model scatternet
    python benchmarks/ingredients.py --data cifar10 --data-dir DIR --share 0.1 --resize 16 --model wrn-10-1 \\
        --batch 256 --steps 60 --views 4

Fresh noise each time; accuracies are on held-out training images (--validation), so that nothing here is
chosen by test images. The table is written after every row: what is stopped loses nothing.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
from record import machine, write_section
from scipy.stats import t as student

from sfumato.core.files import read_json
from sfumato.features.by_name import is_features
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, RunConfig, TrainConfig
from sfumato.runs.training import train

NETWORKS, FEATURES, WIDE = "networks", "features", "wide residual networks"
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Variant:
    """flags: set in place of the defaults. of: of what it can be asked. behind: of the network's name.
    views: several, as many as this benchmark is told."""

    flags: dict[str, object]
    of: tuple[str, ...] = (NETWORKS, FEATURES, WIDE)
    behind: str = ""
    views: bool = False


ONLY_NETWORKS = (NETWORKS, WIDE)
VARIANTS = {
    AS_IT_IS: Variant({}),
    "views": Variant({}, ONLY_NETWORKS, views=True),
    "views, half of them mixed": Variant({"augment": "shift+mix"}, ONLY_NETWORKS, views=True),
    "norm, then ReLU": Variant({}, (WIDE,), behind="-norm-first"),
    "cosine": Variant({"schedule": "cosine"}),
    "linear": Variant({"schedule": "linear"}),
    "warm-up of a tenth": Variant({"warmup": 0.1}),
    "learning rate 2": Variant({"learning_rate": 2.0}, (NETWORKS,)),
    "weight decay 0.01": Variant({"weight_decay": 0.01}),
    "Adam": Variant({"optimizer": "adam"}),
    "no averaging": Variant({"ema": 0.0}, ONLY_NETWORKS),
    "averaging, 0.95": Variant({"ema": 0.95}, (FEATURES,)),
    "bf16": Variant({"precision": "bf16"}, (NETWORKS,)),
}


def accuracy(config: TrainConfig) -> float:
    """In %, on held-out training images."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(replace(config, run=replace(config.run, out=out)))
        return 100 * float(read_json(out / "evaluation.json")["accuracy"])


def half_width(found: dict[str, list[float]], runs: int) -> float:
    """Of a 95 % interval of a mean of so many runs: all rows have one standard deviation, that of
    their runs about their own means."""
    free = sum(len(each) - 1 for each in found.values())
    if not free:
        return float("nan")
    squares = sum(float(np.var(each)) * len(each) for each in found.values())
    return float(student.ppf(0.975, free)) * (squares / free / runs) ** 0.5


def table(found: dict[str, list[float]], seconds: dict[str, float]) -> str:
    rows, base = [], mean(found[AS_IT_IS])
    for name, each in found.items():
        width, gain = half_width(found, len(each)), mean(each) - base
        beside = "" if name == AS_IT_IS else f"{gain:+.1f} ± {2**0.5 * width:.1f}"
        rows.append(f"| {name} | {mean(each):.1f} ± {width:.1f} | {beside} | {seconds[name]:.0f} |")
    return "\n".join(
        ["| ingredient | accuracy, % | gain | seconds a run |", "|---|---|---|---|", *rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--views", type=int, default=8, help="where there are several")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    asked = parser.parse_args()
    kind = FEATURES if is_features(asked.model) else WIDE if "wrn" in asked.model else NETWORKS
    data = DataConfig(
        data=asked.data,
        data_dir=asked.data_dir,
        share=asked.share,
        resize=asked.resize,
        validation=0.2,
    )
    base = {"method": "dp-sgd", "batch": asked.batch, "steps": asked.steps}
    views = {} if kind == FEATURES else {"views": 0}
    found: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for name in dict.fromkeys([AS_IT_IS, *asked.only]):
        variant = VARIANTS[name]
        if kind not in variant.of:
            continue
        own = base | views | ({"views": asked.views} if variant.views else {}) | variant.flags
        method = MethodConfig(**own, model=asked.model + variant.behind)
        began, found[name] = time.monotonic(), []
        for seed in range(asked.seeds):
            run = RunConfig(seed=seed, log="quiet")
            config = TrainConfig(data, PrivacyConfig(epsilon=asked.epsilon), method, run)
            found[name].append(accuracy(config))
        seconds[name] = (time.monotonic() - began) / asked.seeds
        size = "" if asked.resize is None else f", {asked.resize} px"
        several = (
            "" if kind == FEATURES else f" Several views are {asked.views}, else the image itself."
        )
        write_section(
            f"Ingredients of DP-SGD: {asked.data}, {asked.model}",
            f"""`python benchmarks/ingredients.py`: ε = {asked.epsilon:g}, {asked.share:g} of the training images{size}, a fifth of
them held out, on which accuracies are; {asked.seeds} runs each, fresh noise. Batch: {asked.batch or "the default"}; steps:
{asked.steps or "the default"}.{several} Intervals are of 95 %, with one standard deviation for all rows.

{table(found, seconds)}

{machine()}""",
        )
        print(name, found[name], flush=True)


if __name__ == "__main__":
    main()
