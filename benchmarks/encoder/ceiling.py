"""What feature maps are worth before any noise: ridge regression without privacy, on CIFAR-10's
training images.

    python benchmarks/encoder/ceiling.py [--data-dir DIR] [--train 20000] [--held-out 5000]

The held-out images are the last of the training images; the test set is not touched.
"""

import argparse
from pathlib import Path

import numpy as np

from sfumato import data
from sfumato.data.named import default_data_dir
from sfumato.data.split import ReadOptions
from sfumato.features import by_name
from sfumato.features.extraction import extract

SHARES = (0.2, 0.4, 0.6)
"""Of the encoder's rows, joined to patches and scattering."""


def ridge(rows: np.ndarray, labels: np.ndarray, train: int) -> float:
    """Best held-out accuracy over ridges from 1e-4 to 1 of the mean eigenvalue, in %."""
    rows = rows - rows[:train].mean(0)
    gram = (rows[:train].T @ rows[:train]).astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    sums = vectors.T @ (rows[:train].T @ (np.eye(10)[labels[:train]] - 0.1))
    turned = rows[train:] @ vectors
    found = []
    for share in 10.0 ** np.arange(-4, 0.5, 0.5):
        scores = turned @ (sums / (np.maximum(values, 0) + share * values.mean())[:, None])
        found.append(100 * float(np.mean(scores.argmax(1) == labels[train:])))
    return max(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--held-out", type=int, default=5_000)
    options = parser.parse_args()
    source = data.open("cifar10", data_dir=options.data_dir, options=ReadOptions()).train
    source = source.subset(
        np.r_[: options.train, len(source) - options.held_out : len(source)], "train"
    )
    labels = np.asarray(source.labels)
    rows = {
        name: extract(by_name.features(name, source.shape), source)
        for name in ("encoder", "patches+scattering")
    }
    for name, each in rows.items():
        print(f"{name}: {ridge(each, labels, options.train):.2f} %", flush=True)
    for share in SHARES:
        both = np.concatenate(
            [share**0.5 * rows["encoder"], (1 - share) ** 0.5 * rows["patches+scattering"]], 1
        )
        print(
            f"joined, share {share} of the encoder: {ridge(both, labels, options.train):.2f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
