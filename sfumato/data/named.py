"""A named data set -> where its files lie -> `Shelf`."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.cifar import find_archive, find_folder
from sfumato.data.download import Progress, fetch
from sfumato.data.idx import find_idx
from sfumato.data.mosaic import find_mosaic
from sfumato.data.published_sets import Published, RemoteFile
from sfumato.data.shelf import Arrays, Held, Shelf, shelve

MIRROR_VARIABLE, DATA_VARIABLE = "SFUMATO_MIRROR", "SFUMATO_DATA"

_FIND: dict[str, Callable[[Published, Path], Held | None]] = {
    "idx": find_idx,
    "binary": partial(find_folder, version="binary"),
    "python": partial(find_folder, version="python"),
    "binary_archive": partial(find_archive, version="binary"),
    "python_archive": partial(find_archive, version="python"),
    "mosaic": find_mosaic,
}


def default_data_dir() -> Path:
    """$SFUMATO_DATA, else sfumato/data in the user's cache."""
    if os.environ.get(DATA_VARIABLE):
        return Path(os.environ[DATA_VARIABLE]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has a relative path ignored.
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "sfumato" / "data"


def find_named(
    row: Published,
    data_dir: Path | None,
    download: bool,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Shelf:
    """The named data set, from `data_dir` or the default one, or from the network if allowed.
    Raises DataError."""
    if not row.layouts:
        return shelve(_digits(row), row.name, row.classes, row.shape)
    if data_dir is not None and data_dir.exists() and not data_dir.is_dir():
        raise ArgumentError(
            "data_dir", str(data_dir), "this is a file; give the directory that holds the data sets"
        )
    held = _find(row, data_dir)
    if held is None:
        why = _download(row, data_dir, mirror, progress) if download else ""
        held = _find(row, data_dir)
        if held is None:
            raise DataError(_how_to_get(row, _roots(data_dir), why))
    return shelve(held, row.name, row.classes, row.shape)


def _roots(data_dir: Path | None) -> list[Path]:
    return list(dict.fromkeys([data_dir or default_data_dir(), default_data_dir()]))


def _find(row: Published, data_dir: Path | None) -> Held | None:
    """The first layout that is there; in a directory, exact forms come before the packed one."""
    for root in _roots(data_dir):
        for layout in row.layouts:
            for place in (root, *(root / folder for folder in row.folders)):
                held = _FIND[layout](row, place) if place.is_dir() else None
                if held is not None:
                    return held
    return None


def _download(
    row: Published, data_dir: Path | None, mirror: str | None, progress: Progress | None
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


def _how_to_get(row: Published, roots: list[Path], why: str) -> str:
    def listed(files: tuple[RemoteFile, ...]) -> str:
        return ", ".join(file.name for file in files)

    failed = f"; the download failed: {why}" if why else ""
    others = f" (or {listed(row.alternatives)})" if row.alternatives else ""
    return (
        f"data={row.name!r}: not found in {' or '.join(map(str, roots))}{failed}; put {listed(row.files)}{others} "
        f"from {row.address} into {roots[0] / row.name}, or name another place with --data-dir"
    )


def _digits(row: Published) -> Held:
    """scikit-learn's digits have values 0 to 16 and no test split of their own."""

    def read() -> tuple[Arrays, None]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return (
            np.rint(bunch.images * (255 / 16)).astype(np.uint8),
            bunch.target.astype(np.int32),
        ), None

    return Held(row.address, row.counts["train"], None, read)
