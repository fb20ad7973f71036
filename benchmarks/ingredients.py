"""What each ingredient of DP-SGD is worth: one on or off at a time, some seeds, a table with intervals.

    python benchmarks/ingredients.py                                  # a small network on the bundled digits
    python benchmarks/ingredients.py --data cifar10 --share 0.1 --model wrn-10-1 --seeds 3

Fresh noise each time; accuracies are on held-out training images (--validation), so that nothing here is
chosen by test images.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from sfumato.core.files import read_json
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, RunConfig, TrainConfig
from sfumato.runs.training import train

BASE = {"method": "dp-sgd", "views": 0}
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "8 views": {"views": 8},
    "8 views, mixed": {"views": 8, "augment": "shift+mix"},
    "cosine": {"schedule": "cosine"},
    "linear": {"schedule": "linear"},
    "warm-up of a tenth": {"warmup": 0.1},
    "weight decay 0.01": {"weight_decay": 0.01},
    "Adam": {"optimizer": "adam"},
    "no averaging": {"ema": 0.0},
}


def accuracy(config: TrainConfig) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(replace(config, run=replace(config.run, out=out)))
        return float(read_json(out / "evaluation.json")["accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    asked = parser.parse_args()
    data = DataConfig(data=asked.data, data_dir=asked.data_dir, share=asked.share, validation=0.2)
    print(f"{asked.data}, {asked.model}, epsilon {asked.epsilon:g}, {asked.seeds} seeds\n")
    print(
        "| ingredient | accuracy, % | 95 % interval of the mean | seconds a run |\n|---|---|---|---|"
    )
    for name in asked.only:
        began, found = time.monotonic(), []
        for seed in range(asked.seeds):
            method = MethodConfig(**{**BASE, "model": asked.model, **VARIANTS[name]})
            privacy, run = PrivacyConfig(epsilon=asked.epsilon), RunConfig(seed=seed, log="quiet")
            found.append(100 * accuracy(TrainConfig(data, privacy, method, run)))
        width = (
            student.ppf(0.975, len(found) - 1) * stdev(found) / len(found) ** 0.5
            if len(found) > 1
            else 0
        )
        seconds = (time.monotonic() - began) / len(found)
        middle = mean(found)
        print(
            f"| {name} | {middle:.1f} | {middle - width:.1f} to {middle + width:.1f} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
