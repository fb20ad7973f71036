"""DP-SGD's learning rate where images and budget are few: accuracy over r T / (n mu), the deviation of the
random walk that the noise of T steps makes of a parameter (`train/sgd_settings.py`), into RESULTS.md.

    python benchmarks/rates.py [--data-dir DIR] [--seeds 3]

Fresh noise each time; accuracies are on held-out training images, so that nothing is chosen by test images.
"""

import argparse
from pathlib import Path
from statistics import mean

from ingredients import accuracy
from record import machine, write_section

from sfumato.core.checks import privacy_target
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, RunConfig, TrainConfig
from sfumato.privacy.calibration import gaussian_mu_for
from sfumato.train.sgd_settings import default_settings

CASES = (("digits", 1.0, 1_164, 1.0), ("digits", 1.0, 1_164, 3.0), ("digits", 1.0, 1_164, 8.0))
CASES += (("fashion_mnist", 0.1, 4_876, 3.0),)
"""Data, the share of its training images, how many are trained on, epsilon."""
WALKS = (0.06, 0.12, 0.24, 0.4)
PUBLISHED = 2.0
"""The small network's learning rate for 60,000 images (Papernot et al. 2021)."""


def fits(case: tuple[str, float, int, float], rate: float, options: argparse.Namespace) -> str:
    name, share, _, epsilon = case
    method = MethodConfig(method="dp-sgd", model="cnn", learning_rate=rate)
    source = DataConfig(data=name, data_dir=options.data_dir, share=share, validation=0.2)
    found = [
        accuracy(
            TrainConfig(
                source, PrivacyConfig(epsilon=epsilon), method, RunConfig(seed=seed, log="quiet")
            )
        )
        for seed in range(options.seeds)
    ]
    return f"**{mean(found):.1f}** ({' / '.join(f'{each:.1f}' for each in found)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    head = f"| data, n | ε | {' | '.join(f'{each:g}' for each in WALKS)} | r = {PUBLISHED:g} |"
    table = [head, "|---" * (len(WALKS) + 3) + "|"]
    for case in CASES:
        name, _, n, epsilon = case
        mu = gaussian_mu_for(*privacy_target(epsilon, None, n))
        steps = default_settings("cnn", n, epsilon, mu).steps
        rates = [each * n * mu / steps for each in WALKS] + [PUBLISHED]
        cells = " | ".join(fits(case, rate, options) for rate in rates)
        table.append(f"| {name}, {n:,} | {epsilon:g} | {cells} |")
        print(table[-1], flush=True)
        intro = (
            "`python benchmarks/rates.py`: the small network by DP-SGD, accuracy in % on held-out training images, the mean and "
            f"each of {options.seeds} runs, for learning rates r in units of r T / (n μ); the default is at most 0.18."
        )
        write_section(
            "Learning rates of DP-SGD", "\n\n".join((intro, "\n".join(table), f"On {machine()}."))
        )


if __name__ == "__main__":
    main()
