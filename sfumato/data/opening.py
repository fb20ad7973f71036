"""A name or a path -> the data set. `open` reads it, `describe` only says what is publicly known of
it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from sfumato.core import plugins
from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.decode import fitted_shape, refit
from sfumato.data.download import Progress
from sfumato.data.formats.arrow_files import is_hub
from sfumato.data.formats.recognized import FORMATS, find_listing
from sfumato.data.from_records import dataset_of
from sfumato.data.function import find_function
from sfumato.data.lazy import LazyDataset
from sfumato.data.named import find_named
from sfumato.data.npz import find_npz
from sfumato.data.published_sets import REGISTRY, names, published
from sfumato.data.source import DataInfo, Source, Splits
from sfumato.data.split import ReadOptions, check_fraction

_DEFAULTS = ReadOptions()


def open(
    name_or_path: str | Path,
    *,
    data_dir: Path | None = None,
    validation: float = 0.0,
    options: ReadOptions = _DEFAULTS,
    download: bool = True,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Read a data set: a name (see `names()`), a folder of images, or a .npz file.

    data_dir    where named data sets are looked for first, and downloaded to; then $SFUMATO_DATA or the user's cache
    validation  share of the training images split off for tuning, where the data set has no validation split of its own
    mirror      base address that replaces the official one ($SFUMATO_MIRROR too); data sets lie below it by name
    Raises DataError where the data are missing, unreadable or unusable, ArgumentError for arguments
    out of range.
    """
    check_fraction("validation", validation)
    return find(name_or_path, data_dir, options, download, mirror, progress).open(
        validation, options
    )


def describe(
    name_or_path: str | Path,
    *,
    data_dir: Path | None = None,
    validation: float = 0.0,
    options: ReadOptions = _DEFAULTS,
    download: bool = False,
) -> DataInfo:
    """The public facts of what `open` would read with the same arguments. No image is decoded.
    Raises as `open` does.

    Its counts are those of `open`.
    """
    check_fraction("validation", validation)
    return find(name_or_path, data_dir, options, download).describe(validation, options)


def find(
    name_or_path: str | Path,
    data_dir: Path | None,
    options: ReadOptions,
    download: bool,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> LazyDataset:
    """The data set, listed: whoever both describes and opens it lists it once. As `open`."""
    found = _found(name_or_path, data_dir, options, download, mirror, progress)
    if options.findings is not None and found.task.exclusive:
        raise ArgumentError(
            "findings",
            options.findings,
            f"{name_or_path} has one class an image; findings are columns of a table of image files, or a matrix",
        )
    return found


def _found(
    name_or_path: str | Path,
    data_dir: Path | None,
    options: ReadOptions,
    download: bool,
    mirror: str | None,
    progress: Progress | None,
) -> LazyDataset:
    if str(name_or_path) in REGISTRY:  # a folder of that name is meant by ./name
        row = published(str(name_or_path))
        where = None if data_dir is None else Path(data_dir).expanduser()
        return _fitted(find_named(row, where, download, mirror, progress), options)
    path = Path(name_or_path).expanduser()
    there = path.exists() or is_hub(path)
    if plugins.is_name(str(name_or_path)) and not there:
        return _fitted(find_function(str(name_or_path)), options)
    listing = find_listing(path, options)
    if listing is not None:
        return dataset_of(listing, options)
    if path.suffix == ".npz" and path.is_file():
        return _fitted(find_npz(path, options.findings), options)
    if path.is_file():
        raise DataError(
            f"data={str(path)!r}: this is a file; give {', '.join(each.words for each in FORMATS)}, "
            f"or a .npz file, or one of {', '.join(names())}"
        )
    looks_like_path = os.sep in str(name_or_path) or path.suffix
    problem = (
        "no such folder or file"
        if looks_like_path
        else "neither a named data set nor a folder or .npz file"
    )
    raise ArgumentError(
        "data", str(name_or_path), f"{problem}; the named data sets are {', '.join(names())}"
    )


def _fitted(found: LazyDataset, options: ReadOptions) -> LazyDataset:
    """Resize and gray for images that are stored as arrays, done when they are read."""
    if found.shape is None or fitted_shape(found.shape, options) == found.shape:
        return found
    shape = fitted_shape(found.shape, options)

    def refitted(source: Source) -> Source:
        refit(source.raw([0]), options)  # fail now rather than in the middle of a run
        return replace(
            source, shape=shape, read=lambda at: refit(source.read(np.asarray(at)), options)
        )

    def load() -> Splits:
        loaded = found.load()
        test, validation = (
            None if part is None else refitted(part) for part in (loaded.test, loaded.validation)
        )
        return replace(loaded, train=refitted(loaded.train), test=test, validation=validation)

    return replace(found, shape=shape, load=load)
