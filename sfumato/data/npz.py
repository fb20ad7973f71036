"""A NumPy archive with `x_train`, `y_train` and perhaps `x_val`, `y_val`, `x_test`, `y_test` (other
spellings: `array_names.py`).

Units of several images: an array with an entry for each image, `NAME_train` (or just `NAME`),
perhaps `NAME_val`, `NAME_test`.
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from sfumato.core.archive import Archive, npy_header
from sfumato.core.errors import ArgumentError, DataError, SfumatoError, data_error
from sfumato.core.tasks import task_of
from sfumato.data.array_names import find_keys, key_of
from sfumato.data.findings import encode_matrices, is_matrix
from sfumato.data.labels import encode_parts
from sfumato.data.lazy import ImagesAndLabels, LazyDataset, positions
from sfumato.data.source import Splits, from_arrays
from sfumato.data.units import column


def encoded_arrays(
    labels: dict[str, np.ndarray], where: str, called: dict[str, str], findings: str | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Names, and labels of each part: of classes, or of findings where the labels are a matrix. findings:
    the names of its columns. Raises DataError."""
    if is_matrix(labels["train"]):
        return encode_matrices(labels, where, called, findings)
    return encode_parts(labels, where, called)


def find_npz(path: Path, findings: str | None = None) -> LazyDataset:
    """The data set in a .npz file; of the images only the header is read. findings: as
    `encoded_arrays`. Raises DataError."""
    parts = find_keys(path, _stored(path))
    labels = {part: read_member(path, y) for part, (_, y) in parts.items()}
    shapes = {part: _image_shape(path, x) for part, (x, _) in parts.items()}
    shape = shapes["train"]
    for part, (n, *_) in shapes.items():
        if labels[part].shape[:1] != (n,):
            raise DataError(
                f"{path}: {parts[part][1]} has shape {labels[part].shape} for {n} images in {parts[part][0]}; give "
                "one label per image"
            )
        if shapes[part][1:] != shape[1:]:
            raise DataError(
                f"{path}: images of {parts[part][0]} are {shapes[part][1:]}, those of {parts['train'][0]} "
                f"{shape[1:]}; store one size"
            )
    called = {part: y for part, (_, y) in parts.items()}
    classes, numbers = encoded_arrays(labels, str(path), called, findings)

    def load() -> Splits:
        arrays: dict[str, ImagesAndLabels] = {
            part: (read_member(path, x), numbers[part]) for part, (x, _) in parts.items()
        }
        try:
            sources = {part: from_arrays(*arrays[part], classes, path.stem, part) for part in parts}
        except SfumatoError as error:
            raise DataError(f"{path}: {error}") from None
        return Splits(sources["train"], sources.get("validation"), sources.get("test"))

    sizes = {part: n for part, (n, *_) in shapes.items()}
    return LazyDataset(
        path.stem,
        str(path),
        classes,
        shape[1:],
        positions(shape[0]),
        sizes.get("test"),
        load,
        lambda name: _owners(path, name, sizes),
        sizes.get("validation"),
        task=task_of(numbers["train"]),
    )


def _owners(path: Path, name: str, sizes: dict[str, int]) -> dict[str, Sequence[str]]:
    """The unit of each image of every part that has the column. sizes: images of the parts."""
    stored = _stored(path)
    keys = {part: key for part in sizes if (key := key_of(stored, name, part))}
    if "train" not in keys and name in stored:
        keys["train"] = name
    if "train" not in keys:
        raise ArgumentError(
            "unit",
            name,
            f"{path} has no array {name}_train or {name} (found {', '.join(sorted(stored))})",
        )
    return {
        part: column(read_member(path, key), sizes[part], f"{path}: {key}")
        for part, key in keys.items()
    }


def _stored(path: Path) -> set[str]:
    return {name.removesuffix(".npy") for name in members(path)}


def read_images(path: Path) -> np.ndarray:
    """Images without labels, (n, h, w, c): of a .npy, or x_test, X, images, x_train (the first
    there is) of a .npz.

    Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"images={str(path)!r}: no such file")
    if path.suffix.lower() == ".npy":
        with data_error(f"{path}: cannot be read", "write it with numpy.save"):
            images = np.load(path, mmap_mode="r", allow_pickle=False)
    else:
        stored = _stored(path)
        name = next((name for name in ("x_test", "X", "images", "x_train") if name in stored), None)
        if name is None:
            raise DataError(
                f"{path}: has none of x_test, X, images, x_train (found {', '.join(sorted(stored)) or 'nothing'})"
            )
        images = read_member(path, name)
    images = images[..., None] if images.ndim == 3 else images
    if (
        images.ndim != 4
        or images.shape[3] not in (1, 3)
        or (images.dtype != np.uint8 and images.dtype.kind != "f")
    ):
        raise DataError(
            f"{path}: {images.dtype} {images.shape} cannot be images; give (n, h, w) or (n, h, w, c), uint8 or floats "
            "in [0, 1]"
        )
    return images


def members(path: Path) -> dict[str, int]:
    """The sizes of an archive's members by name, which are not those of a bomb. Raises DataError."""
    kinds = (OSError, ValueError, zipfile.BadZipFile, NotImplementedError)
    # the last: of another version of zip
    refused = data_error(f"{path}: cannot be read as .npz", "write it with numpy.savez", kinds)
    with refused, Archive(path) as archive:
        return {name: archive.size(name) for name in archive.names}


def read_member(path: Path, key: str) -> np.ndarray:
    """One array, whose header asks for no more memory than the archive holds bytes of it. Raises
    DataError."""
    with data_error(
        f"{path}: {key} cannot be read", "store plain numeric or string arrays"
    ):  # zip, each compression and NumPy have their own errors
        _shape(path, key)
        with np.load(path, allow_pickle=False) as archive:  # a pickle could run anything
            return np.asarray(archive[key])


def _shape(path: Path, key: str) -> tuple[int, ...]:
    """The shape that an array announces. Raises ValueError where its member is of another size."""
    name = f"{key}.npy"
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return npy_header(cast(io.BufferedIOBase, file), archive.getinfo(name).file_size)[0]


def _image_shape(path: Path, key: str) -> tuple[int, int, int, int]:
    """(n, h, w, c) from the array's header."""
    with data_error(f"{path}: {key} cannot be read", "write it with numpy.savez"):
        shape = _shape(path, key)
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise DataError(
            f"{path}: {key} has shape {shape}; give (n, h, w), or (n, h, w, c) with c = 1 or 3, n > 0"
        )
    n, h, w, c = (int(size) for size in shape)
    return n, h, w, c
