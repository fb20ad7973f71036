"""The packed form of CIFAR: `index.csv.gz` and a few large images, each a grid of 32 x 32 tiles,
row by row.

A row of the index names its mosaic (`file`, without ending) and the labels of one tile; the rows of
one mosaic come in tile order. Mosaics whose name begins with "test" are the test split. WebP is
lossless; AVIF may be lossy.
"""

import csv
import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sfumato.core.archive import gunzipped
from sfumato.core.errors import DataError
from sfumato.data.decode import THREADS, open_image
from sfumato.data.published_sets import Published
from sfumato.data.shelf import Arrays, Held

TILE = 32
ENDINGS = (".webp", ".png", ".avif")  # lossless first
LABEL_COLUMN = {"cifar10": "label", "cifar100": "fine"}


def find_mosaic(row: Published, place: Path) -> Held | None:
    """The packed data set in `place`, or None where there is none. Raises DataError on damaged or
    missing files."""
    index = place / "index.csv.gz"
    if not index.is_file():
        return None
    labels = _read_index(index, LABEL_COLUMN[row.name])
    if labels is None:  # the index of another data set
        return None
    paths = {name: _mosaic_path(place, name) for name in labels}
    train = [name for name in labels if not name.startswith("test")]
    test = [name for name in labels if name.startswith("test")]
    if not train or not test:
        raise DataError(
            f"{index}: names no {'training' if not train else 'test'} images; fetch it again"
        )

    def read_part(names: list[str]) -> Arrays:
        with ThreadPoolExecutor(THREADS) as pool:
            images = pool.map(lambda name: _read_mosaic(paths[name], len(labels[name])), names)
            return np.concatenate(list(images)), np.concatenate([labels[name] for name in names])

    n_train, n_test = (sum(len(labels[name]) for name in part) for part in (train, test))
    return Held(str(place), n_train, n_test, lambda: (read_part(train), read_part(test)))


def _read_index(path: Path, column: str) -> dict[str, np.ndarray] | None:
    """Labels by mosaic name, in tile order."""
    try:
        reader = csv.DictReader(io.StringIO(gunzipped(path).decode(), newline=""))
        if column not in (reader.fieldnames or ()) or "file" not in (reader.fieldnames or ()):
            return None
        labels: dict[str, list[int]] = {}
        for line in reader:
            labels.setdefault(line["file"], []).append(int(line[column]))
    except (OSError, EOFError, zlib.error, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as an index ({error}); fetch it again") from None
    try:
        return {name: np.array(numbers, np.int32) for name, numbers in labels.items()}
    except OverflowError:
        raise DataError(f"{path}: has a label that is no class number; fetch it again") from None


def _mosaic_path(place: Path, name: str) -> Path:
    if Path(name).name == name:  # an index must not lead out of its folder
        for ending in ENDINGS:
            if (place / (name + ending)).is_file():
                return place / (name + ending)
    raise DataError(
        f"{place / name}.webp: the index names it and it is missing; fetch it (or its .avif) again"
    )


def _read_mosaic(path: Path, n: int) -> UInt8[np.ndarray, "n 32 32 3"]:
    try:
        with open_image(path, ("WEBP", "PNG", "AVIF")) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # whatever a decoder makes of damaged bytes
        hint = "; AVIF needs Pillow >= 11.3" if path.suffix == ".avif" else ""
        raise DataError(f"{path}: cannot be decoded ({error}){hint}; fetch it again") from None
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    if pixels.shape[:2] != (rows * TILE, columns * TILE) or rows * columns != n:
        raise DataError(
            f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels do not hold the {n} tiles that the index "
            "lists; fetch both files again"
        )
    tiles = pixels.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).reshape(n, TILE, TILE, 3)
