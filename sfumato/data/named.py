"""A named data set -> where its files lie -> `LazyDataset`."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.program_cache import user_cache
from sfumato.data.cifar import find_cifar
from sfumato.data.download import Progress, fetch
from sfumato.data.idx import find_idx
from sfumato.data.lazy import ArrayFiles, ImagesAndLabels, LazyDataset, lazy_arrays
from sfumato.data.published_sets import NamedDataset

MIRROR_VARIABLE, DATA_VARIABLE = "SFUMATO_MIRROR", "SFUMATO_DATA"

_FIND: dict[str, Callable[[NamedDataset, Path], ArrayFiles | None]] = {
    "idx": find_idx,
    "cifar": find_cifar,
}


def default_data_dir() -> Path:
    """$SFUMATO_DATA, else sfumato/data in the user's cache."""
    if os.environ.get(DATA_VARIABLE):
        return Path(os.environ[DATA_VARIABLE]).expanduser()
    return user_cache("data")


def find_named(
    row: NamedDataset,
    data_dir: Path | None,
    download: bool,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> LazyDataset:
    """The named data set, from `data_dir` or the default one, or from the network if allowed.
    Raises DataError."""
    if not row.layout:
        return lazy_arrays(_digits(row), row.name, row.classes, row.shape)
    if data_dir is not None and data_dir.exists() and not data_dir.is_dir():
        raise ArgumentError(
            "data_dir", str(data_dir), "this is a file; give the directory that holds the data sets"
        )
    files = _find(row, data_dir)
    if files is None:
        why = _download(row, data_dir, mirror, progress) if download else ""
        files = _find(row, data_dir)
        if files is None:
            raise DataError(_how_to_get(row, data_dir, why))
    return lazy_arrays(files, row.name, row.classes, row.shape)


def _roots(data_dir: Path | None) -> list[Path]:
    return list(dict.fromkeys([data_dir or default_data_dir(), default_data_dir()]))


def _places(row: NamedDataset, data_dir: Path | None) -> list[Path]:
    """The directories in which the data set may lie."""
    roots = _roots(data_dir)
    places = [place for root in roots for place in (root, *(root / name for name in row.folders))]
    return [place for place in places if place.is_dir()]


def _find(row: NamedDataset, data_dir: Path | None) -> ArrayFiles | None:
    found = (_FIND[row.layout](row, place) for place in _places(row, data_dir))
    return next((files for files in found if files is not None), None)


def _download(
    row: NamedDataset, data_dir: Path | None, mirror: str | None, progress: Progress | None
) -> str:
    """Fetch what is missing; returns why it failed, or nothing. A mirror holds each data set under
    its name."""
    mirror = mirror or os.environ.get(MIRROR_VARIABLE)
    base = f"{mirror.rstrip('/')}/{row.name}/" if mirror else row.address
    folder = _roots(data_dir)[0] / row.name
    try:
        for file in row.files:
            if not (folder / file.name).exists():
                fetch(file, base, folder, progress)
    except DataError as error:
        return str(error)
    return ""


def _how_to_get(row: NamedDataset, data_dir: Path | None, why: str) -> str:
    roots, files = _roots(data_dir), ", ".join(file.name for file in row.files)
    refused = [
        place / name
        for place in _places(row, data_dir)
        for name in row.not_read
        if (place / name).exists()
    ]
    found = (
        f"; {refused[0]} is not read: it is made of pickles, which can run code" if refused else ""
    )
    failed = f"; the download failed: {why}" if why else ""
    return (
        f"data={row.name!r}: not found in {' or '.join(map(str, roots))}{found}{failed}; put {files} "
        f"from {row.address} into {roots[0] / row.name}, or name another place with --data-dir"
    )


def _digits(row: NamedDataset) -> ArrayFiles:
    """scikit-learn's digits have values 0 to 16 and no test split of their own."""

    def read() -> tuple[ImagesAndLabels, None]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return (
            np.rint(bunch.images * (255 / 16)).astype(np.uint8),
            bunch.target.astype(np.int32),
        ), None

    return ArrayFiles(row.address, row.counts["train"], None, read)
