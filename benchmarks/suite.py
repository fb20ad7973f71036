"""Is the default the best that is shipped? The features that dp-fc may be given, on many kinds of
images, for few and many of them, into RESULTS.md.

    python benchmarks/suite.py [--data-dir DIR] [--only SET ...] [--most 20000] [--shown 5000] [--fits 1] [--keep DIR]
    python benchmarks/suite.py --features centered-cells centered-cells=.9+scattering=.1 --into TITLE   # other shares

Rows of each map are computed once for a set; a joined map's are theirs side by side. --keep holds rows and accuracies, so that a run
that was stopped goes on, and one set after the other (--only) ends in a table of all; empty it when a method has changed. Sets are those
that `sfumato train` knows by name, two classes of one, and letters and signs drawn here by fonts,
where left and right matter. No photograph's test image is used: the images shown to a model are the
last of the training images.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from glyphs import letters, signs
from on_rows import accuracy, rows_of
from record import machine, write_section

from sfumato import data
from sfumato.core.checks import privacy_target
from sfumato.data.named import default_data_dir
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.feature_map import FeatureMap, Joined
from sfumato.solve.covariance_settings import CovarianceSettings

FEATURES = (
    "centered-cells+patches+handed-if-shown",
    "centered-cells+patches+handed",
    "centered-cells+patches+scattering",
    "centered-cells+handed-if-shown",
    "centered-cells+handed",
    "centered-cells+scattering",
    "centered-cells",
    "centered-handed",
    "centered-scattering",
)
COUNTS = (500, 5_000)
"""Training images, besides all."""
FITS = "fits.json"
EPSILONS = (0.3, 1.0, 3.0, 8.0)

Rows = dict[str, np.ndarray]


def named(name: str, classes: int | None = None) -> Callable[[Path], Source]:
    """The training images of a set, or those of its first `classes` classes."""

    def opened(data_dir: Path) -> Source:
        source = data.open(name, data_dir=data_dir).train
        if classes is None:
            return source
        kept = source.subset(np.flatnonzero(source.labels < classes), "train")
        return Source(
            kept.name, "train", kept.labels, kept.class_names[:classes], kept.shape, kept.images
        )

    return opened


def drawn(images: np.ndarray, labels: np.ndarray, classes: str) -> Source:
    return Source("drawn", "train", labels, tuple(classes), images.shape[1:], lambda at: images[at])


SETS: dict[str, Callable[[Path], Source]] = {
    "digits": named("digits"),
    "fashion_mnist": named("fashion_mnist"),
    "cifar10": named("cifar10"),
    "cifar10, 2 classes": named("cifar10", 2),
    "cifar100": named("cifar100"),
    "letters": lambda _: drawn(*letters(7_000)),
    "signs": lambda _: drawn(*signs(7_000)),
}


def parts_of(name: str) -> dict[str, float]:
    """The maps that a name joins, and their shares, its own or those that stand behind "="."""
    own = name.removeprefix(by_name.CENTERED)
    parts = [each.partition("=") for each in own.split("+")]
    shares = by_name.SHARES.get(own) or [float(share or 1) for _, _, share in parts]
    return dict(zip([part for part, _, _ in parts], shares, strict=True))


def map_of(name: str, shape: by_name.Shape) -> FeatureMap:
    parts = parts_of(name)
    maps = [by_name.features(by_name.CENTERED + part, shape) for part in parts]
    return Joined(maps, list(parts.values()))


def joined(name: str, parts: Rows) -> np.ndarray:
    each = parts_of(name).items()
    return np.concatenate([np.float32(share**0.5) * parts[part] for part, share in each], axis=1)


def fit(name: str, source: Source, n: int, epsilon: float, train: Rows, shown: Rows) -> float:
    """Accuracy, in %, on the images after the first n of `source` that are shown."""
    _, delta = privacy_target(epsilon, None, n)
    own, count = map_of(name, source.shape), len(next(iter(shown.values())))
    return accuracy(
        own,
        (joined(name, train)[:n], source.labels[:n]),
        (joined(name, shown), source.labels[-count:]),
        len(source.class_names),
        epsilon,
        delta,
    )


class Fits:
    """Accuracies, kept in a file."""

    def __init__(self, keep: Path | None):
        self._path = None if keep is None else keep / FITS
        there = self._path is not None and self._path.exists()
        self._known: dict[str, float] = json.loads(self._path.read_text()) if there else {}  # type: ignore[union-attr]

    def mean(self, what: tuple[object, ...], count: int, one: Callable[[], float]) -> float:
        """Of so many fits. what: names them."""
        found = []
        for k in range(count):
            key = " ".join(map(str, (*what, k)))
            if key not in self._known:
                self._known[key] = one()
                if self._path is not None:
                    self._path.write_text(json.dumps(self._known, indent=0))
            found.append(self._known[key])
        return float(np.mean(found))


def compared(title: str, source: Source, options: argparse.Namespace) -> Iterator[str]:
    """A row of the table for every n and ε."""
    fits = Fits(options.keep)
    stream = np.random.default_rng(0)
    order = stream.permutation(len(source))[: options.most + options.shown]
    source = source.subset(order, "train")
    enough = len(source) == options.most + options.shown
    shown = options.shown if enough else len(source) // 5
    count = len(source) - shown
    rows = {
        part: rows_of(by_name.CENTERED + part, title, source, options.keep)
        for part in {part: None for name in options.features for part in parts_of(name)}
    }
    train, rest = (
        {part: each[at] for part, each in rows.items()}
        for at in (slice(0, count), slice(count, None))
    )
    for n in sorted({*(each for each in options.counts if each < count), count}):
        default = CovarianceSettings.default_model(n, source.shape)
        for epsilon in options.epsilons:
            found = {}
            for name in options.features:
                one = partial(fit, name, source, n, epsilon, train, rest)
                found[name] = fits.mean((title, n, epsilon, name), options.fits, one)
            behind = max(found.values()) - found.get(default, math.nan)
            cells = " | ".join(
                f"**{each:.1f}**" if name == default else f"{each:.1f}"
                for name, each in found.items()
            )
            yield f"| {title} | {n:,} | {epsilon:g} | {cells} | {behind:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--most", type=int, default=20_000, help="training images of a set")
    parser.add_argument("--shown", type=int, default=5_000)
    parser.add_argument("--fits", type=int, default=1)
    parser.add_argument("--features", nargs="+", default=FEATURES, metavar="MAPS")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="besides all")
    parser.add_argument("--into", default="Suite", help="the section's title")
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS)
    parser.add_argument("--keep", type=Path, help="a folder for rows and accuracies")
    options = parser.parse_args()
    head = f"| set | n | ε | {' | '.join(options.features)} | behind the best by |"
    table = [head, "|---" * (len(options.features) + 4) + "|"]
    for title in options.only:
        for line in compared(title, SETS[title](options.data_dir), options):
            table.append(line)
            print(line, flush=True)
    intro = (
        f"`make bench-suite`: accuracy in % of dp-fc on {options.shown:,} held-out *training* images "
        "(a fifth of small sets); bold: the default for that n. δ is the default one; "
        f"{options.fits} fit{'s' if options.fits > 1 else ''} of each, with fresh noise, so that "
        "differences of a point or two say nothing where n is 500."
    )
    write_section(options.into, "\n\n".join((intro, "\n".join(table), f"On {machine()}.")))


if __name__ == "__main__":
    main()
