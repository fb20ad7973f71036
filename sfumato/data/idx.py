"""The IDX format of MNIST and Fashion-MNIST, plain or gzipped.

Big-endian: two zero bytes, a type (8 = uint8), the number of dimensions d, then d 32-bit sizes,
then the bytes.
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sfumato.core.archive import most
from sfumato.core.errors import DataError, data_error
from sfumato.data.lazy import ArrayFiles, ImagesAndLabels
from sfumato.data.published_sets import REGISTRY, NamedDataset

UINT8 = 8
PARTS = {"train": "train", "test": "t10k"}


def find_idx(row: NamedDataset, place: Path) -> ArrayFiles | None:
    """The four IDX files in `place`, or None where one of them is missing. Raises DataError on
    damaged ones."""
    keys = [(part, kind) for part in PARTS for kind in ("images", "labels")]
    paths = {(part, kind): _path(place, PARTS[part], kind) for part, kind in keys}
    files = {key: path for key, path in paths.items() if path is not None}
    if len(files) < len(paths) or _is_another(row, files["test", "labels"]):
        return None
    counts = {}
    for part in PARTS:
        (n, h, w), (n_labels,) = header(files[part, "images"], 3), header(files[part, "labels"], 1)
        if n != n_labels:
            raise DataError(
                f"{files[part, 'images']}: {n} images, but {files[part, 'labels'].name} has {n_labels} "
                "labels; fetch both files again"
            )
        if (h, w) != row.shape[:2]:
            raise DataError(
                f"{files[part, 'images']}: images of {h}x{w}, but those of {row.name} are "
                f"{row.shape[0]}x{row.shape[1]}; fetch the file again"
            )
        counts[part] = n

    def read_part(part: str) -> ImagesAndLabels:
        return read_idx(files[part, "images"], 3)[..., None], read_idx(files[part, "labels"], 1)

    return ArrayFiles(
        str(place), counts["train"], counts["test"], lambda: (read_part("train"), read_part("test"))
    )


def header(path: Path, dimensions: int) -> tuple[int, ...]:
    """The sizes an IDX file of uint8 announces. Raises DataError if it is not one of that many
    dimensions."""
    with _open(path) as file:
        return _header(file, path, dimensions)


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """The array of an IDX file. Raises DataError if it is shorter or longer than its header says."""
    with _open(path) as file:
        sizes = _header(file, path, dimensions)
        expected = math.prod(sizes)
        data = file.read(expected)
        surplus = file.read(1)
    if len(data) != expected or surplus:
        found = f"{len(data)} bytes" if not surplus else "more"
        raise DataError(
            f"{path}: its header announces {expected} bytes of data, but it holds {found}; the file is "
            "truncated or damaged, fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(sizes)


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file, unzipped; raises DataError where it cannot be read."""
    kinds = (OSError, EOFError, zlib.error)
    refused = data_error(f"{path}: cannot be read", "fetch the file again", kinds)
    with refused, gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield file


def _header(file: io.BufferedIOBase, path: Path, dimensions: int) -> tuple[int, ...]:
    magic = file.read(4)
    if magic != bytes((0, 0, UINT8, dimensions)):
        raise DataError(
            f"{path}: begins with 0x{magic.hex()}, but an IDX file of {dimensions} dimensions begins "
            f"with 0x{bytes((0, 0, UINT8, dimensions)).hex()}; fetch the right file"
        )
    raw = file.read(4 * dimensions)
    if len(raw) < 4 * dimensions:
        raise DataError(f"{path}: ends within its header; the file is truncated, fetch it again")
    sizes = tuple(int(size) for size in np.frombuffer(raw, ">u4"))
    if (
        math.prod(sizes) > (most(path) if path.suffix == ".gz" else path.stat().st_size)
        or 0 in sizes
    ):
        raise DataError(
            f"{path}: its header announces sizes {sizes}; the file is damaged, fetch it again"
        )
    return sizes


def _path(place: Path, prefix: str, kind: str) -> Path | None:
    dimensions = 3 if kind == "images" else 1
    for joint in ("-", "."):  # both spellings are in use
        for ending in (".gz", ""):
            path = place / f"{prefix}-{kind}{joint}idx{dimensions}-ubyte{ending}"
            if path.is_file():
                return path
    return None


def _is_another(row: NamedDataset, test_labels: Path) -> bool:
    """MNIST and Fashion-MNIST use the same file names: do these labels begin like another data
    set's?"""
    try:
        with _open(test_labels) as file:
            first = tuple(file.read(8 + 10)[8:])
    except DataError:
        return False  # reading the header will say what is wrong
    return any(
        other.first_test_labels == first for other in REGISTRY.values() if other.name != row.name
    )
