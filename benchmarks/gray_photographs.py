"""The default and a small network on few gray photographs: cats and dogs of CIFAR-10 in gray, 28 x 28,
as X-rays come in public sets, by `sfumato train` as it is, into RESULTS.md.

    python benchmarks/gray_photographs.py [--data-dir DIR] [--seeds 3]

All are training images of CIFAR-10, those that are shown to the models, too.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from accuracy import Case, run
from PIL import Image
from record import machine, write_section

from sfumato import data
from sfumato.data.named import default_data_dir

CAT, DOG = 3, 5
COUNT, SHOWN, SIDE = 4_700, 2_000, 28
METHODS = {
    "the default": (),
    "cnn by DP-SGD": ("--method", "dp-sgd", "--model", "cnn"),
    "scatternet by DP-SGD": ("--method", "dp-sgd", "--model", "scatternet"),
}


def gray(image: np.ndarray) -> np.ndarray:
    """Of an image in color, bytes or numbers in [0, 1]."""
    pixels = image if image.dtype == np.uint8 else np.uint8(np.round(255 * image))
    return np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.LANCZOS))


def write(data_dir: Path, path: Path) -> None:
    source = data.open("cifar10", data_dir=data_dir).train
    of_both = np.flatnonzero(np.isin(source.labels, (CAT, DOG)))
    at = np.random.default_rng(0).permutation(of_both)[: COUNT + SHOWN]
    images = np.stack([gray(each) for each in source.images(at)])
    labels = np.int64(source.labels[at] == DOG)
    train, test = slice(COUNT), slice(COUNT, None)
    np.savez(
        path, x_train=images[train], y_train=labels[train], x_test=images[test], y_test=labels[test]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    table = ["| method | accuracy, % (each run) |", "|---|---|"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "photographs.npz")
        write(options.data_dir, path)
        for title, flags in METHODS.items():
            arguments = ("--data", str(path), "--epsilon", "3", "--delta", "1e-5", *flags)
            runs = [run(Case(title, arguments), k, options.data_dir) for k in range(options.seeds)]
            found = [100 * each["evaluation"]["accuracy"] for each in runs]
            each = " / ".join(f"{one:.1f}" for one in found)
            table.append(f"| {title} | **{np.mean(found):.1f}** ({each}) |")
            print(table[-1], flush=True)
    intro = (
        f"`python benchmarks/gray_photographs.py`: {COUNT:,} photographs of cats and dogs (training images of CIFAR-10 in "
        f"gray, {SIDE} x {SIDE}), ε = 3, δ = 1e-05, accuracy on {SHOWN:,} others, by `sfumato train`."
    )
    write_section(
        "Small gray photographs: the default and a small network",
        "\n\n".join((intro, "\n".join(table), f"On {machine()}.")),
    )


if __name__ == "__main__":
    main()
