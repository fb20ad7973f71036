"""A folder of images -> `LazyDataset`. What lies in it is `listing`'s matter, one file's pixels are
`decode`'s."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.errors import DataError
from sfumato.data.decode import THREADS, decode, decode_many, fitted_shape, upright_size
from sfumato.data.lazy import LazyDataset, LoadedDataset
from sfumato.data.listing import Files, Listing, list_folder
from sfumato.data.source import Read, Source
from sfumato.data.split import ReadOptions
from sfumato.data.units import owners_by_pattern

PRELOAD_BYTES = (
    2**31
)  # decoded pixels up to this size are kept; beyond it every image is decoded when it is read
NAMED_AT_MOST = 5
Shape = tuple[int, int, int]
Reasons = dict[str, str]  # relative path -> why it cannot be read


def find_folder(root: Path, options: ReadOptions) -> LazyDataset:
    """The data set in `root`; only directory entries and one header are read. Raises DataError.

    Its counts include files that will turn out unreadable: `open` with `skip_unreadable` may then
    have fewer.
    """
    listing = list_folder(root, options.unit)
    name = root.resolve().name
    shape = _first_shape([root / path for path in listing.train.paths], options)
    n = {split: len(files.paths) for split, files in listing.parts.items()}

    def load() -> LoadedDataset:
        return _load(listing, name, options)

    def owners(pattern: str) -> dict[str, list[str]]:
        return {
            split: owners_by_pattern(files.names, pattern, every=split == "train")
            for split, files in listing.parts.items()
        }

    return LazyDataset(
        name,
        str(root),
        listing.classes,
        shape,
        listing.train.names,
        n.get("test"),
        load,
        owners,
        n_validation=n.get("validation"),
        left_out=listing.left_out,
        named=True,
    )


def _first_shape(paths: Sequence[Path], options: ReadOptions) -> Shape | None:
    """The shape of the first image whose header can be read; None where none can. `load` will name
    those that cannot. Raises DataError where the only headers that can be read are of images of too
    many pixels.
    """
    too_large = None
    for path in paths:
        try:
            return fitted_shape((*upright_size(path, options.max_pixels), 3), options)
        except DataError as error:
            too_large = too_large or DataError(f"{path}: {error}")
        except Exception:  # Pillow raises many kinds
            continue
    if too_large:
        raise too_large
    return None


def _load(listing: Listing, name: str, options: ReadOptions) -> LoadedDataset:
    """Read every file once: to keep its pixels, or (too many to keep) to know that it can be read."""
    paths = [path for files in listing.parts.values() for path in files.paths]
    unreadable: Reasons = {}
    shape = _common_shape(listing.root, paths, options, unreadable)
    good = [path for path in paths if path not in unreadable]
    keep = (
        np.empty((len(good), *shape), np.uint8)
        if len(good) * math.prod(shape) <= PRELOAD_BYTES
        else None
    )

    def visit(item: tuple[int, str]) -> None:
        pixels = decode(listing.root / item[1], options)
        if keep is not None:
            keep[item[0]] = pixels

    unreadable |= _attempt(visit, enumerate(good), key=lambda item: item[1])
    if unreadable and not options.skip_unreadable:
        raise DataError(
            f"{listing.root}: {len(unreadable)} of {len(paths)} images cannot be read: "
            f"{_some(unreadable)}; repair or remove them, or leave them out with --skip-unreadable "
            "(skip_unreadable=True)"
        )
    rows = {path: k for k, path in enumerate(good) if path not in unreadable}
    if not rows:
        raise DataError(
            f"{listing.root}: none of the {len(paths)} images can be read ({_some(unreadable)})"
        )

    def source(files: Files, split: str) -> Source:
        kept = [k for k, path in enumerate(files.paths) if path in rows]
        labels = np.array([files.labels[k] for k in kept], np.int32)
        chosen = [files.paths[k] for k in kept]
        read = (
            _stored(keep, [rows[path] for path in chosen])
            if keep is not None
            else _lazy([listing.root / path for path in chosen], shape, options)
        )
        return Source(name, split, labels, listing.classes, shape, read)

    sources = {split: source(files, split) for split, files in listing.parts.items()}
    names = tuple(
        name
        for path, name in zip(listing.train.paths, listing.train.names, strict=True)
        if path in rows
    )
    return LoadedDataset(
        sources["train"],
        names,
        sources.get("test"),
        tuple(sorted(unreadable)),
        sources.get("validation"),
    )


def _common_shape(
    root: Path, paths: Sequence[str], options: ReadOptions, unreadable: Reasons
) -> Shape:
    """The shape of every image, from the headers. Raises DataError where two differ; notes
    unreadable headers."""
    if options.resize:
        return fitted_shape((options.resize, options.resize, 3), options)
    sizes: dict[str, tuple[int, int]] = {}

    def visit(path: str) -> None:
        sizes[path] = upright_size(root / path, options.max_pixels)

    unreadable |= _attempt(visit, paths, key=str)
    readable = [path for path in paths if path in sizes]
    if not readable:
        raise DataError(
            f"{root}: none of the {len(paths)} images can be read ({_some(unreadable)})"
        )
    first = readable[0]
    other = next((path for path in readable if sizes[path] != sizes[first]), None)
    if other is not None:
        (h1, w1), (h2, w2) = sizes[first], sizes[other]
        raise DataError(
            f"{root}: images differ in size: {first!r} is {w1}x{h1} and {other!r} is {w2}x{h2}; give one "
            "size with --resize N (resize=N)"
        )
    return fitted_shape((*sizes[first], 3), options)


def _attempt(
    visit: Callable[[Any], None], items: Iterable[Any], key: Callable[[Any], str]
) -> Reasons:
    """Visit all items on a few threads; which ones failed, and why."""

    def try_one(item: Any) -> tuple[str, str] | None:
        try:
            visit(item)
        except Exception as error:  # on hostile bytes a decoder may raise almost anything
            first_line = (str(error).splitlines() or [""])[0]
            return key(
                item
            ), "not an image of a known format" if "cannot identify" in first_line else first_line
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(failure for failure in pool.map(try_one, items) if failure is not None)


def _some(reasons: Reasons) -> str:
    named = [f"{path!r} ({why})" for path, why in sorted(reasons.items())[:NAMED_AT_MOST]]
    return ", ".join(named) + (
        f" and {len(reasons) - len(named)} more" if len(reasons) > len(named) else ""
    )


def _stored(pixels: np.ndarray, rows: list[int]) -> Read:
    at_rows = np.array(rows, np.int64)
    return lambda at: pixels[at_rows[at]]


def _lazy(paths: list[Path], shape: Shape, options: ReadOptions) -> Read:
    def read(at: np.ndarray) -> np.ndarray:
        if len(at) == 0:
            return np.zeros((0, *shape), np.uint8)
        try:
            return decode_many([paths[k] for k in at], options)
        except OSError as error:  # readable when the run began, not now
            raise DataError(
                f"an image can no longer be read ({error}); restore it and resume"
            ) from None

    return read
