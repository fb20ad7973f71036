"""Linear heads on fixed features: accuracy of every method and baseline, and the speed of the sums
they need.

    python benchmarks/heads.py [--data-dir DIR] [--only accuracy|speed] [--data NAME ...]
                               [--features STORE ... [--rooted]] [--public FILE]
                               [--fits N] [--quick] [--full]

Accuracy: fresh noise in every fit, delta = 1e-5, three fits per point; the test set is used for
these figures alone. Rows without public data use scattering features; their row `auto` is what
`sfumato train` does when nothing is chosen (dp-fc). Features are computed
once per data set. --features makes a table for rows that were computed elsewhere, such as those of
a pretrained network, and leaves out the data sets unless --data names some. --quick: 2,000 rows,
one fit, two epsilons, nothing written. Speed: --full streams 1,281,167 x 2,048 float16 rows of
1,000 classes (5.2 GB on disk); without it, a sixteenth of them.
"""

import argparse
import math
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
from record import machine, write_section

from sfumato import data
from sfumato.core.keys import SecretKey
from sfumato.data.named import default_data_dir
from sfumato.data.rows import read_features
from sfumato.data.source import DataInfo
from sfumato.data.split import ReadOptions
from sfumato.features import by_name
from sfumato.features.extraction import extract
from sfumato.features.heads import Sphere
from sfumato.plan.config import DataConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.privacy.calibration import gaussian_mu_for
from sfumato.privacy.ledger import Ledger
from sfumato.report import curve
from sfumato.runs.sweeping import accuracy_of, fit_once
from sfumato.solve.covariance_settings import CovarianceSettings
from sfumato.solve.fc import FeatureCovariance
from sfumato.solve.labeled_rows import Rows
from sfumato.solve.linear_settings import METHODS, automatic, linear_rule
from sfumato.solve.public_rows import directions, public_sphere
from sfumato.solve.quadratic import Balance, least_clip, quadratic
from sfumato.train.loop import run

DOCS = Path(__file__).resolve().parents[1] / "docs"
EPSILONS, DELTA = (0.1, 0.5, 1.0, 3.0, 8.0), 1e-5
DATA = {
    "cifar10": ("CIFAR-10", (51.5, 62.5, 66.5, 72.0, 74.0)),
    "fashion_mnist": ("Fashion-MNIST", (83.0, 87.2, 88.2, 89.7, 90.2)),
}
"""Name -> title, and the accuracy to reach at each epsilon."""
STORES = {
    "mobilenetv2_160": ("CIFAR-10, frozen MobileNetV2 at 160 px", (80.5, 84.5, 85.5, 86.5, 87.0)),
    "mobilenetv2_128": ("CIFAR-10, frozen MobileNetV2 at 128 px", ()),
}
"""The same for stores of that name. `sfumato features --data cifar10 --weights
mobilenet_v2_imagenet_folded.npz --model tf_mobilenetv2_100 --size 160 --out mobilenetv2_160` makes
the first; its rows are square roots already.
"""
WASTED = ((0.01, 1.97), (1.0, 1.31), (8.0, 1.15))
"""Noise of the published implementation of DP-FC over the exact noise, by epsilon."""
MARGIN = 0.5
"""Points that `auto` may be behind the best method."""
QUICK = 2_000
PEER = "diffprivlib LogisticRegression (one fit)"
"""A fit takes minutes."""

Split = tuple[np.ndarray, np.ndarray]
Fit = Callable[[float], float]
"""epsilon -> test accuracy of one private fit."""


@dataclass(frozen=True)
class Table:
    """Rows of both splits; public: features of public examples; automatic: what "auto" does, None
    if it is a linear head."""

    name: str
    title: str
    train: Split
    test: Split
    rooted: bool = False
    public: np.ndarray | None = None
    automatic: Fit | None = None
    to_reach: tuple[float, ...] = ()

    def sphere(self, mu: float) -> Sphere:
        n, d = self.train[0].shape
        if self.public is None:
            return Sphere.plain(d, self.rooted)
        return public_sphere(self.public.astype(np.float64), directions(n, mu), self.rooted)

    def fit(self, method: str, epsilon: float, waste: float = 1.0) -> float:
        """waste: noise over the noise that the budget asks for."""
        rows, mu = (
            Rows(*self.train, int(self.train[1].max()) + 1),
            gaussian_mu_for(epsilon, DELTA) / waste,
        )
        sphere = self.sphere(mu)
        recipe = linear_rule(method, len(rows), sphere.size, rows.classes, mu)
        with Ledger.temporary(DELTA, epsilon) as ledger:
            head = fit_once(
                rows, sphere, recipe, recipe.releases(mu), ledger, SecretKey.from_entropy()
            )
            return accuracy_of(head, *self.test)


@dataclass(frozen=True)
class Effort:
    epsilons: tuple[float, ...] = EPSILONS
    fits: int = 3
    most: int | None = None
    """Rows of each split."""


def wasted(epsilon: float) -> float:
    return float(
        np.interp(
            math.log(epsilon), [math.log(at) for at, _ in WASTED], [factor for _, factor in WASTED]
        )
    )


def of_images(name: str, data_dir: Path, effort: Effort) -> Table:
    """The default features, and the scattering rows that heads are fitted to."""
    splits = data.open(name, data_dir=data_dir)
    assert splits.test is not None
    sources = [
        source if effort.most is None else source.subset(np.arange(effort.most), source.split)
        for source in (splits.train, splits.test)
    ]
    default = CovarianceSettings.default_model(len(sources[0]), sources[0].shape)
    features, plain = (
        by_name.features(each, splits.train.shape) for each in (default, "scattering")
    )
    (rows, shown), (labels, truth) = (
        [extract(features, each) for each in sources],
        [each.labels for each in sources],
    )
    info = DataInfo(
        name,
        "",
        splits.train.class_names,
        splits.train.shape,
        {"train": len(labels), "test": len(truth)},
    )

    def as_it_is(epsilon: float) -> float:
        """`sfumato train` with nothing chosen."""
        plan = make_plan(
            TrainConfig(DataConfig(name, data_dir), PrivacyConfig(epsilon, DELTA)), info
        )
        assert plan.method == "dp-fc" and isinstance(plan.settings, CovarianceSettings)
        procedure = FeatureCovariance(
            rows, labels, len(plan.classes), features.groups, plan.mu, plan.settings
        )
        with Ledger.temporary(DELTA, epsilon) as ledger:
            state = run(procedure, ledger, SecretKey.from_entropy())
        scores = procedure.transform(shown.copy(), state) @ np.asarray(state["weight"])
        return float(np.mean(scores.argmax(1) == truth))

    train, test = ((extract(plain, each), each.labels) for each in sources)
    title, to_reach = DATA.get(name, (name, ()))
    return Table(
        name, f"no public data, {title}", train, test, automatic=as_it_is, to_reach=to_reach
    )


def of_rows(path: Path, rooted: bool, public: Path | None, effort: Effort) -> Table:
    splits = data.open_rows(path, 0.0, ReadOptions())
    assert splits.test is not None
    most = slice(0, effort.most)
    train, test = (
        (source.raw(np.arange(len(source))[most])[:, 0, 0], source.labels[most])
        for source in (splits.train, splits.test)
    )
    given = None if public is None else np.asarray(read_features(public))
    title, to_reach = STORES.get(path.stem, (path.stem, ()))
    title += (", square roots" if rooted else "") + ("" if given is None else ", public directions")
    return Table(path.stem, title, train, test, rooted, given, to_reach=to_reach)


def without_privacy(table: Table) -> dict[str, float]:
    """Ridge and logistic regression of scikit-learn, in percent."""
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.preprocessing import normalize

    def prepared(rows: np.ndarray) -> np.ndarray:
        rows = rows.astype(np.float32)
        return normalize(np.sign(rows) * np.sqrt(np.abs(rows)) if table.rooted else rows)

    rows, shown = prepared(table.train[0]), prepared(table.test[0])
    center = rows.mean(0)
    rows, shown = normalize(rows - center), normalize(shown - center)
    models = {
        "ridge": RidgeClassifier(1.0),
        "logistic regression": LogisticRegression(C=3.0, max_iter=100),
    }
    return {
        name: 100 * model.fit(rows, table.train[1]).score(shown, table.test[1])
        for name, model in models.items()
    }


def diffprivlib(table: Table, epsilon: float) -> float:
    """Pure epsilon-DP, one class against the others."""
    from diffprivlib.models import LogisticRegression
    from sklearn.preprocessing import normalize

    model = LogisticRegression(epsilon=epsilon, data_norm=1.0, max_iter=100)
    rows, shown = (normalize(each.astype(np.float32)) for each in (table.train[0], table.test[0]))
    return float(model.fit(rows, table.train[1]).score(shown, table.test[1]))


Points = dict[str, list[tuple[float, float, float]]]
"""Row title -> (epsilon, mean accuracy, half the range), as `curve.draw` wants it."""


def measure(table: Table, effort: Effort) -> tuple[Points, str]:
    """All fits, and what could not be measured."""
    note, points = "", {}
    fits: dict[str, Fit] = {} if table.automatic is None else {"auto (dp-fc)": table.automatic}
    fits |= {
        method: lambda epsilon, method=method: table.fit(method, epsilon) for method in METHODS
    }
    fits["fc, published noise calibration"] = lambda epsilon: table.fit(
        "fc", epsilon, wasted(epsilon)
    )
    try:
        diffprivlib(replace(table, train=(table.train[0][:50], table.train[1][:50])), 1.0)
        fits[PEER] = lambda epsilon: diffprivlib(table, epsilon)
    except Exception as error:  # not installed, or of another scikit-learn
        note = f"diffprivlib is left out: {type(error).__name__}: {str(error).splitlines()[0]}."
    for title, fit in fits.items():
        began, points[title] = time.perf_counter(), []
        for epsilon in effort.epsilons:
            found = [fit(epsilon) for _ in range(1 if title == PEER else effort.fits)]
            points[title].append((epsilon, mean(found), (max(found) - min(found)) / 2))
        print(
            f"{title:<34}",
            *(f"{100 * middle:6.2f}" for _, middle, _ in points[title]),
            f"  {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    return points, note


def accuracy_table(table: Table, effort: Effort, write: bool) -> None:
    began = time.perf_counter()
    points, note = measure(table, effort)
    plain = without_privacy(table)
    n, d = table.train[0].shape
    chosen = (
        next(iter(points))
        if table.automatic is not None
        else automatic("auto", table.sphere(1.0).size - 1)
    )
    lines = [
        f"| method | {' | '.join(f'ε = {epsilon:g}' for epsilon in effort.epsilons)} |",
        "|---" * (len(effort.epsilons) + 1) + "|",
    ]
    lines += [
        f"| {title} | "
        + " | ".join(f"{100 * middle:.2f} ± {100 * spread:.2f}" for _, middle, spread in found)
        + " |"
        for title, found in points.items()
    ]
    if table.to_reach and effort.epsilons == EPSILONS:
        lines.append(
            "| to reach | " + " | ".join(f"{figure:g}" for figure in table.to_reach) + " |"
        )
    lines += [
        f"| without privacy: {name} |" + f" {score:.2f} |" * len(effort.epsilons)
        for name, score in plain.items()
    ]
    behind = [
        100 * (max(points[method][k][1] for method in METHODS) - found[1])
        for k, found in enumerate(points[chosen])
    ]
    verdict = "everywhere" if max(behind) <= MARGIN else "NOT everywhere"
    check = (
        f"`auto` is {chosen}; behind the best method by {', '.join(f'{each:.2f}' for each in behind)} points (less than "
        f"nothing: ahead): within {MARGIN} {verdict}."
    )
    intro = (
        f"`python benchmarks/heads.py`: {n:,} rows of {d:,} features, δ = {DELTA:g}, add-or-remove-one, mean of "
        f"{effort.fits} fits ± half their range, test accuracy in %."
    )
    took = f"All of it took {(time.perf_counter() - began) / 60:.1f} minutes on {machine()}."
    picture = f"../docs/curve_{table.name}.png"
    parts = (
        intro,
        "\n".join(lines),
        " ".join((check, note)).strip(),
        f"![Accuracy over ε]({picture})",
        took,
    )
    print("\n\n".join(parts))
    if write:
        drawn = {title: found for title, found in points.items() if "published" not in title}
        (DOCS / f"curve_{table.name}.png").write_bytes(
            curve.draw(drawn, max(plain.values()) / 100, table.title)
        )
        write_section(f"Linear heads, {table.title}", "\n\n".join(parts))


def matmul_rate(d: int, rows: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of a rows x d by d x d product of NumPy, the best of
    some."""
    a, b = (
        np.random.default_rng(0).standard_normal(shape, np.float32) for shape in ((rows, d), (d, d))
    )
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
    """n rows of float16 in a file, in blocks that repeat. Not written through a map, whose pages
    would count as memory."""
    block = np.random.default_rng(0).standard_normal((8192, d), np.float32).astype(np.float16)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": (n, d)}
        )
        for start in range(0, n, len(block)):
            file.write(block[: min(len(block), n - start)].tobytes())
        os.fsync(file.fileno())
    return np.load(path, mmap_mode="r")


def speed_line(
    name: str, seconds: float, work: float, strict: float, flops: float, reading: float
) -> str:
    rate, loose, tight = work / seconds, reading + work / flops, reading + strict / flops
    return (
        f"| {name} | {seconds:.1f} | {rate / 1e9:.0f} | {rate / flops:.0%} | "
        f"{seconds / loose:.2f} | {seconds / tight:.2f} |"
    )


def speed(full: bool) -> None:
    import jax.numpy as jnp

    n, d, classes = (1_281_167 if full else 80_000), 2048, 1000
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.npy"
        matrix = write_synthetic(path, n, d)
        labels = (
            SecretKey.from_insecure_seed(0)
            .stream("labels")
            .integers(classes, size=n)
            .astype(np.int32)
        )
        sphere, balance = Sphere.plain(d), Balance(0.3, least_clip(classes))
        start = jnp.zeros((d + 1, classes))
        later = start + 1e-3 * jnp.arange(classes)  # no shortcut: every row has its scores
        few = Rows(matrix[:2048], labels[:2048], classes)
        for weight in (start, later):
            quadratic(few, sphere, weight, balance)  # compile
        flops, disk = matmul_rate(d), disk_rate(path)
        gram, scores = 2 * n * d * d, 2 * n * d * classes
        counts = {
            "at W = 0 (`ls`, the first step of `fc`)": (start, gram),
            "at another W (`newton`, later steps)": (later, gram + 2 * scores),
        }
        lines = []
        for name, (weight, work) in counts.items():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            quadratic(Rows(matrix, labels, classes), sphere, weight, balance)
            lines.append(
                speed_line(
                    name,
                    time.perf_counter() - began,
                    work,
                    work - gram / 2,
                    flops,
                    n * d * 2 / disk,
                )
            )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    timeout = os.environ.get("OPENBLAS_THREAD_TIMEOUT")
    setting, size = (
        f"OPENBLAS_THREAD_TIMEOUT={timeout} " if timeout else "",
        " --full" if full else "",
    )
    body = (
        f"`{setting}python benchmarks/heads.py --only speed{size}`: one pass over {n:,} x {d:,} float16 rows "
        f"of {classes:,} classes on disk, Gram matrix and the label sums or gradients of all classes.\n\n"
        "| pass | seconds | rate, GFLOP/s | of the matmul rate | over disk + flops | over disk + flops, one triangle |\n"
        "|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\nThe rate counts the Gram matrix as a whole product, 2 d² a row, and nothing for label sums at W = 0; "
        "elsewhere also the scores and the gradient, 4 d a row and class. *Disk + flops* is bytes over the disk's rate "
        f"({disk / 1e9:.2f} GB/s) plus these flops over the machine's own matmul rate ({flops / 1e9:.0f} GFLOP/s); "
        "*one triangle* counts only the half of the Gram matrix that is computed. "
        f"Peak memory {memory:.2f} GB.\n\nOn {machine()}."
    )
    print(body)
    write_section("Speed of the linear heads", body)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--only", choices=("accuracy", "speed"))
    parser.add_argument("--data", nargs="*")
    parser.add_argument("--features", type=Path, nargs="*", default=[])
    parser.add_argument("--rooted", action="store_true")
    parser.add_argument("--public", type=Path)
    parser.add_argument("--fits", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    effort = Effort((1.0, 8.0), 1, QUICK) if options.quick else Effort(fits=options.fits)
    names = options.data if options.data is not None else () if options.features else DATA
    if options.only == "speed" or (
        options.only is None and not options.features and not options.quick
    ):
        speed(options.full)
    if options.only != "speed":
        for path in options.features:
            accuracy_table(
                of_rows(path, options.rooted, options.public, effort), effort, not options.quick
            )
        for name in names:
            accuracy_table(of_images(name, options.data_dir, effort), effort, not options.quick)


if __name__ == "__main__":
    main()
