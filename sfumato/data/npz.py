"""A NumPy archive with `x_train`, `y_train` and perhaps `x_test`, `y_test`.

Units of several images: an array with an entry for each image, `NAME_train` (or just `NAME`) and perhaps `NAME_test`.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from sfumato.core.archive import Archive
from sfumato.core.errors import ArgumentError, DataError, SfumatoError
from sfumato.data.shelf import Arrays, Loaded, Shelf, positions
from sfumato.data.source import from_arrays
from sfumato.data.units import column

WANTED = "expected x_train and y_train, and optionally x_test and y_test"


def find_npz(path: Path) -> Shelf:
    """The data set in a .npz file; of the images only the header is read. Raises DataError."""
    parts = _parts(path)
    labels = {part: read_member(path, f"y_{part}") for part in parts}
    shapes = {part: _image_shape(path, f"x_{part}") for part in parts}
    shape = shapes["train"]
    for part, (n, *_) in shapes.items():
        if labels[part].shape != (n,):
            raise DataError(f"{path}: y_{part} has shape {labels[part].shape} for {n} images in x_{part}; give one "
                            "label per image")
        if shapes[part][1:] != shape[1:]:
            raise DataError(f"{path}: images of x_{part} are {shapes[part][1:]}, those of x_train {shape[1:]}; store "
                            "one size")
    classes = _classes(path, labels)

    def load() -> Loaded:
        arrays: dict[str, Arrays] = {part: (read_member(path, f"x_{part}"), labels[part]) for part in parts}
        try:
            sources = {part: from_arrays(*arrays[part], classes, path.stem, part) for part in parts}
        except SfumatoError as error:
            raise DataError(f"{path}: {error}") from None
        return Loaded(sources["train"], positions(shape[0]), sources.get("test"))

    n_test = shapes["test"][0] if "test" in parts else None
    sizes = {part: n for part, (n, *_) in shapes.items()}
    return Shelf(path.stem, str(path), classes, shape[1:], positions(shape[0]), n_test, load,
                 lambda name: _owners(path, name, sizes))  # fmt: skip


def _owners(path: Path, name: str, sizes: dict[str, int]) -> dict[str, list[str]]:
    """The unit of each image of every part that has the column. sizes: images of the parts."""
    stored = _stored(path)
    candidates = {"train": (f"{name}_train", name), "test": (f"{name}_test",)}
    keys = {part: key for part in sizes if (key := next((each for each in candidates[part] if each in stored), None))}
    if "train" not in keys:
        raise ArgumentError("unit", name, f"{path} has no array {name}_train or {name} (found {', '.join(sorted(stored))})")
    return {part: column(read_member(path, key), sizes[part], f"{path}: {key}") for part, key in keys.items()}


def _stored(path: Path) -> set[str]:
    return {name.removesuffix(".npy") for name in members(path)}


def _parts(path: Path) -> list[str]:
    stored = _stored(path)
    parts = ["train", "test"] if stored & {"x_test", "y_test"} else ["train"]
    missing = [f"{kind}_{part}" for part in parts for kind in "xy" if f"{kind}_{part}" not in stored]
    if missing:
        raise DataError(f"{path}: has no {missing[0]} (found {', '.join(sorted(stored)) or 'nothing'}); {WANTED}")
    refuse_ignored_test(path, stored, {f"{kind}_{part}" for part in parts for kind in "xy"})
    return parts


def refuse_ignored_test(path: Path, stored: set[str], read: set[str]) -> None:
    """Test examples under a name that is not read would be left out without a word, and training examples tested on."""
    for name in sorted(stored - read):
        if name.lower() in ("x_test", "y_test"):
            raise DataError(f"{path}: {name} would not be read; test examples are x_test, y_test beside x_train, y_train")


def read_images(path: Path) -> np.ndarray:
    """Images without labels, (n, h, w, c): of a .npy, or x_test, X, images, x_train (the first there is) of a .npz.

    Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"images={str(path)!r}: no such file")
    if path.suffix.lower() == ".npy":
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # as in read_member
            raise DataError(f"{path}: cannot be read ({_said(error)}); write it with numpy.save") from None
    else:
        stored = _stored(path)
        name = next((name for name in ("x_test", "X", "images", "x_train") if name in stored), None)
        if name is None:
            raise DataError(f"{path}: has none of x_test, X, images, x_train (found {', '.join(sorted(stored)) or 'nothing'})")
        images = read_member(path, name)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[3] not in (1, 3) or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise DataError(f"{path}: {images.dtype} {images.shape} are no images; give (n, h, w) or (n, h, w, c), uint8 or floats "
                        "in [0, 1]")
    return images


def members(path: Path) -> dict[str, int]:
    """The sizes of an archive's members by name, which are not those of a bomb. Raises DataError."""
    try:
        with Archive(path) as archive:
            return {name: archive.size(name) for name in archive.names}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as .npz ({error}); write it with numpy.savez") from None


def read_member(path: Path, key: str) -> np.ndarray:
    """One array, whose header asks for no more memory than the archive holds bytes of it. Raises DataError."""
    try:
        _header(path, key)
        with np.load(path, allow_pickle=False) as archive:  # a pickle could run anything
            return np.asarray(archive[key])
    except Exception as error:  # zip, each compression and NumPy have their own
        raise DataError(f"{path}: {key} cannot be read ({_said(error)}); store plain numeric or string arrays") from None


def _header(path: Path, key: str) -> tuple[int, ...]:
    """The shape that an array announces. Raises ValueError where its member is of another size."""
    name = f"{key}.npy"
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file)
        bytes_left = archive.getinfo(name).file_size - file.tell()
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != bytes_left:
        raise ValueError(f"it announces {dtype} {shape} and holds {bytes_left} bytes")
    return shape


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _image_shape(path: Path, key: str) -> tuple[int, int, int, int]:
    """(n, h, w, c) from the array's header."""
    try:
        shape = _header(path, key)
    except Exception as error:  # as in read_member
        raise DataError(f"{path}: {key} cannot be read ({_said(error)}); write it with numpy.savez") from None
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
        raise DataError(f"{path}: {key} has shape {shape}; give (n, h, w), or (n, h, w, c) with c = 1 or 3, n > 0")
    n, h, w, c = (int(size) for size in shape)
    return n, h, w, c


def _classes(path: Path, labels: dict[str, np.ndarray]) -> tuple[str, ...]:
    """The classes of the training part; the test part may have no other."""
    known, unknown = set(labels["train"].tolist()), []
    if "test" in labels:
        unknown = sorted(set(labels["test"].tolist()) - known)
    if unknown:
        raise DataError(f"{path}: class {unknown[0]!r} is in y_test but not in y_train ({len(unknown)} such); add "
                        "training images of it or remove it from the test part")
    if len(known) < 2:
        raise DataError(f"{path}: y_train has only one class ({', '.join(map(repr, known)) or 'none'}); a classifier "
                        "needs two or more")
    try:
        placeholder = np.zeros((len(labels["train"]), 1, 1), np.uint8)
        return from_arrays(placeholder, labels["train"]).class_names
    except SfumatoError as error:
        raise DataError(f"{path}: y_train: {error}") from None
