"""Linear heads on fixed features: accuracy of every method and baseline, and the speed of the sums they need.

    python benchmarks/heads.py [--data-dir DIR] [--only accuracy|speed] [--features FILE_OR_STORE ...] [--full]

Accuracy: fresh noise in every fit, delta = 1e-5, three fits per point; the test set is used for these figures alone. Rows
without public data use scattering features; the row `auto` is `sfumato train` as it is. --features adds a table for rows
that were computed elsewhere, such as those of a pretrained network. Speed: --full streams 1,281,167 x 2,048 float16 rows
of 1,000 classes (5.2 GB on disk); without it, a sixteenth of them.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
from record import machine, write_section

from sfumato import data
from sfumato.core.keys import SecretKey
from sfumato.data.split import ReadOptions
from sfumato.features import extract
from sfumato.models import registry
from sfumato.models.heads import Sphere
from sfumato.privacy.calibration import gaussian_mu_for
from sfumato.privacy.ledger import Ledger
from sfumato.runs.sweep import accuracy_of, fit_once
from sfumato.solve.budget import METHODS, linear_rule
from sfumato.solve.quadratic import Balance, least_clip, quadratic
from sfumato.solve.rows import Rows

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EPSILONS, DELTA, FITS = (0.1, 0.5, 1.0, 3.0, 8.0), 1e-5, 3
WASTED = ((0.01, 1.97), (1.0, 1.31), (8.0, 1.15))
"""Noise of the published implementation of DP-FC over the exact noise, by epsilon."""

Split = tuple[np.ndarray, np.ndarray]


def wasted(epsilon: float) -> float:
    return float(np.interp(math.log(epsilon), [math.log(at) for at, _ in WASTED], [factor for _, factor in WASTED]))


def ours(train: Split, test: Split, method: str, epsilon: float, waste: float = 1.0) -> float:
    """Test accuracy of one private fit."""
    rows = Rows(train[0], train[1], int(train[1].max()) + 1)
    mu = gaussian_mu_for(epsilon, DELTA) / waste
    recipe = linear_rule(method, len(rows), rows.features + 1, rows.classes, mu)
    with tempfile.TemporaryDirectory() as directory, Ledger.create(directory, delta=DELTA, epsilon_max=epsilon) as ledger:
        head = fit_once(rows, recipe, recipe.releases(mu), ledger)
    return accuracy_of(head, *test)


def as_it_is(name: str, data_dir: Path, epsilon: float) -> float:
    """`sfumato train` with nothing chosen."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "sfumato.cli", "train", "--data", name, "--data-dir", str(data_dir), "--epsilon",
                   str(epsilon), "--delta", str(DELTA), "--log", "json", "--out", f"{directory}/run"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])["evaluation"]["accuracy"]


def without_privacy(train: Split, test: Split) -> list[str]:
    """Ridge and logistic regression of scikit-learn."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.preprocessing import normalize

    rows = normalize(train[0].astype(np.float32))
    centre = rows.mean(0)
    rows, shown = normalize(rows - centre), normalize(normalize(test[0].astype(np.float32)) - centre)
    models = {"ridge": RidgeClassifier(1.0), "logistic regression": LogisticRegression(C=3.0, max_iter=200)}
    scores = {name: 100 * model.fit(rows, train[1]).score(shown, test[1]) for name, model in models.items()}
    return [f"| without privacy: {name} |" + f" {score:.2f} |" * len(EPSILONS) for name, score in scores.items()]


def diffprivlib(train: Split, test: Split, epsilon: float) -> float:
    """Pure epsilon-DP, one class against the others. Raises ImportError where the library is missing."""
    from diffprivlib.models import LogisticRegression
    from sklearn.preprocessing import normalize

    model = LogisticRegression(epsilon=epsilon, data_norm=1.0, max_iter=200)
    return float(model.fit(normalize(train[0]), train[1]).score(normalize(test[0]), test[1]))


def row(title: str, fit: Callable[[float], float]) -> str:
    cells = []
    for epsilon in EPSILONS:
        found = [100 * fit(epsilon) for _ in range(FITS)]
        cells.append(f"{mean(found):.2f} ± {(max(found) - min(found)) / 2:.2f}")
    line = f"| {title} | " + " | ".join(cells) + " |"
    print(line, flush=True)
    return line


def accuracy_table(title: str, train: Split, test: Split, automatic: Callable[[float], float] | None) -> None:
    lines = [f"| method | {' | '.join(f'ε = {epsilon:g}' for epsilon in EPSILONS)} |", "|---" * (len(EPSILONS) + 1) + "|"]
    if automatic is not None:
        lines.append(row("auto (patches+scattering, dp-fc)", automatic))
    lines += [row(method, lambda epsilon, method=method: ours(train, test, method, epsilon)) for method in METHODS]
    lines.append(row("fc, published noise calibration", lambda epsilon: ours(train, test, "fc", epsilon, wasted(epsilon))))
    try:
        lines.append(row("diffprivlib LogisticRegression", lambda epsilon: diffprivlib(train, test, epsilon)))
    except ImportError:
        lines.append("| diffprivlib LogisticRegression | (not installed) |")
    lines += without_privacy(train, test)
    n, d = train[0].shape
    intro = (f"`python benchmarks/heads.py`: {n:,} rows of {d:,} features, δ = {DELTA:g}, add-or-remove-one, mean of {FITS} "
             "fits ± half their range, test accuracy in %.")
    write_section(title, "\n\n".join((intro, "\n".join(lines), f"On {machine()}.")))


def of_images(name: str, data_dir: Path) -> tuple[Split, Split]:
    splits = data.open(name, data_dir=data_dir)
    assert splits.test is not None
    features = registry.features("scattering", splits.train.shape)
    train, test = ((extract(features, source), source.labels) for source in (splits.train, splits.test))
    return train, test


def of_rows(path: Path) -> tuple[Split, Split]:
    splits = data.open_rows(path, 0.0, ReadOptions())
    assert splits.test is not None
    train, test = ((source.raw(np.arange(len(source)))[:, 0, 0], source.labels) for source in (splits.train, splits.test))
    return train, test


def matmul_rate(d: int, rows: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of a rows x d by d x d product of NumPy, the best of some."""
    a, b = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((rows, d), (d, d)))
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * rows * d * d / best


def disk_rate(path: Path) -> float:
    """Bytes per second of reading a file once, not from memory where the system allows to drop it."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began, total, buffer = time.perf_counter(), 0, bytearray(1 << 24)
        while read := file.readinto(buffer):
            total += read
        return total / (time.perf_counter() - began)


def write_synthetic(path: Path, n: int, d: int) -> np.ndarray:
    """n rows of float16 in a file, written in blocks that repeat."""
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(n, d))
    block = np.random.default_rng(0).standard_normal((8192, d), np.float32).astype(np.float16)
    for start in range(0, n, len(block)):
        rows[start : start + len(block)] = block[: min(len(block), n - start)]
    rows.flush()
    return np.load(path, mmap_mode="r")


def speed(full: bool) -> None:
    n, d, classes = (1_281_167 if full else 80_000), 2048, 1000
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.npy"
        matrix = write_synthetic(path, n, d)
        labels = SecretKey.from_insecure_seed(0).stream("labels").integers(classes, size=n).astype(np.int32)
        sphere, balance = Sphere.plain(d), Balance(0.3, least_clip(classes))
        weight = np.zeros((d + 1, classes), np.float32)
        import jax.numpy as jnp

        quadratic(Rows(matrix[:2048], labels[:2048], classes), sphere, jnp.asarray(weight), balance)  # compile
        flops, disk = matmul_rate(d), disk_rate(path)
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        quadratic(Rows(matrix, labels, classes), sphere, jnp.asarray(weight), balance)
        seconds = time.perf_counter() - began
    work = 2 * n * d * d + 2 * n * d * classes * 2  # Gram matrix, scores and label sums
    ideal = n * d * 2 / disk + work / flops
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    body = (f"`python benchmarks/heads.py --only speed{' --full' if full else ''}`: one pass over {n:,} x {d:,} float16 rows "
            f"of {classes:,} classes on disk, Gram matrix and label sums.\n\n| | |\n|---|---|\n| the pass | {seconds:.1f} s |\n"
            f"| bytes / disk rate + flops / matmul rate | {ideal:.1f} s |\n| ratio | {seconds / ideal:.2f} |\n"
            f"| rate, all of it counted as {work / n / 1e6:.1f} MFLOP a row | {work / seconds / 1e9:.0f} GFLOP/s |\n"
            f"| the machine's matmul rate | {flops / 1e9:.0f} GFLOP/s |\n| disk rate | {disk / 1e9:.2f} GB/s |\n"
            f"| peak memory | {memory:.2f} GB |\n\nOn {machine()}.")
    print(body)
    write_section("Speed of the linear heads", body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--only", choices=("accuracy", "speed"))
    parser.add_argument("--features", type=Path, nargs="*", default=[])
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    if options.only in (None, "speed"):
        speed(options.full)
    if options.only in (None, "accuracy"):
        for path in options.features:
            accuracy_table(f"Linear heads on {path.stem}", *of_rows(path), None)
        for title, name in (("CIFAR-10", "cifar10"), ("Fashion-MNIST", "fashion_mnist")):
            accuracy_table(f"Linear heads, no public data, {title}", *of_images(name, options.data_dir),
                           lambda epsilon, name=name: as_it_is(name, options.data_dir, epsilon))  # fmt: skip


if __name__ == "__main__":
    main()
