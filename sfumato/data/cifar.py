"""CIFAR-10 and CIFAR-100 as distributed: the python and the binary version, in an archive or
unpacked.

Binary: per image one label byte (CIFAR-100: a coarse and a fine one), then 3072 bytes, the red,
green, blue planes. Python: pickled dictionaries with `data` (n, 3072) in the same order, and
`labels` or `fine_labels`.
"""

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from jaxtyping import UInt8

from sfumato.core.archive import GROWTH, most
from sfumato.core.errors import DataError
from sfumato.data.pickles import PickledArray, read_batch
from sfumato.data.published_sets import Published
from sfumato.data.shelf import Arrays, Held

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Form:
    """One of the four distributed forms: the folder, the archive, and the files of each split."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 0  # binary version: labels before the pixels, the fine one last
    label_key: str = ""  # python version


_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
_FORMS = {
    ("cifar10", "binary"): _Form(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        tuple(f"{batch}.bin" for batch in _BATCHES),
        ("test_batch.bin",),
        label_bytes=1,
    ),
    ("cifar10", "python"): _Form(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        _BATCHES,
        ("test_batch",),
        label_key="labels",
    ),
    ("cifar100", "binary"): _Form(
        "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",), label_bytes=2
    ),
    ("cifar100", "python"): _Form(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        ("test",),
        label_key="fine_labels",
    ),
}


def find_folder(row: Published, place: Path, version: str) -> Held | None:
    """The unpacked folder, in `place` or `place` itself; None where it is not. Raises DataError on
    damaged files."""
    form = _FORMS[row.name, version]
    for folder in (place / form.folder, place):
        if (folder / form.train[0]).is_file():
            missing = [name for name in form.train + form.test if not (folder / name).is_file()]
            if missing:
                raise DataError(
                    f"{folder}: {', '.join(missing)} is missing; unpack {form.archive} here again"
                )
            return _held(form, folder)
    return None


def find_archive(row: Published, place: Path, version: str) -> Held | None:
    """The .tar.gz in `place`, read in passing (nothing is unpacked); None where it is not. Raises
    DataError."""
    form = _FORMS[row.name, version]
    path = place / form.archive
    return _held(form, path) if path.is_file() else None


def _held(form: _Form, path: Path) -> Held:
    counts = {}
    with _members(form, path) as members:
        for name, file, size in members:
            counts[name] = _count(form, file, size, path / name)
    _check_complete(form, path, set(counts))
    n_train, n_test = (sum(counts[name] for name in part) for part in (form.train, form.test))
    return Held(str(path), n_train, n_test, lambda: _read(form, path))


def _read(form: _Form, path: Path) -> tuple[Arrays, Arrays]:
    parts: dict[str, Arrays] = {}
    with _members(form, path) as members:
        for name, file, _ in members:
            parts[name] = _decode(form, file, path / name)
    _check_complete(form, path, set(parts))
    train, test = ([parts[name] for name in names] for names in (form.train, form.test))
    return _join(train), _join(test)


def _join(parts: list[Arrays]) -> Arrays:
    return np.concatenate([images for images, _ in parts]), np.concatenate(
        [labels for _, labels in parts]
    )


@contextmanager
def _members(form: _Form, path: Path) -> Iterator[Iterator[tuple[str, io.BufferedIOBase, int]]]:
    """The wanted files as (name, file, size), in the order they come; errors of the container
    become DataError."""
    wanted = form.train + form.test
    try:
        if path.is_dir():
            yield _from_folder(path, wanted)
        else:
            with tarfile.open(
                path, "r|gz"
            ) as archive:  # a stream: the archive is decompressed once
                yield _from_archive(archive, wanted, most(path))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); the file is damaged, fetch it again"
        ) from None


def _from_folder(
    path: Path, wanted: tuple[str, ...]
) -> Iterator[tuple[str, io.BufferedIOBase, int]]:
    for name in wanted:
        with (path / name).open("rb") as file:
            yield name, file, (path / name).stat().st_size


def _from_archive(
    archive: tarfile.TarFile, wanted: tuple[str, ...], left: int
) -> Iterator[tuple[str, io.BufferedIOBase, int]]:
    for member in archive:
        left -= member.size
        if left < 0:
            raise tarfile.ReadError(f"it unpacks to more than {GROWTH} times its size")
        name = PurePosixPath(member.name).name
        file = archive.extractfile(member) if member.isfile() and name in wanted else None
        if file is not None:
            yield name, cast(io.BufferedIOBase, file), member.size


def _check_complete(form: _Form, path: Path, found: set[str]) -> None:
    missing = [name for name in form.train + form.test if name not in found]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} is missing; fetch {form.archive} again")


def _count(form: _Form, file: io.BufferedIOBase, size: int, path: Path) -> int:
    """The number of images in a file, from its size or its array's announced shape."""
    if not form.label_bytes:
        return len(_batch(form, file, path)[1])
    record = form.label_bytes + PIXELS
    if size % record or size == 0:
        raise DataError(
            f"{path}: {size} bytes are no whole number of {record}-byte images; the file is truncated, "
            "fetch it again"
        )
    return size // record


def _decode(form: _Form, file: io.BufferedIOBase, path: Path) -> Arrays:
    """Images (n, 32, 32, 3) and labels (n,) of a file."""
    if form.label_bytes:
        data = file.read()
        n = _count(form, file, len(data), path)
        records = np.frombuffer(data, np.uint8).reshape(n, form.label_bytes + PIXELS)
        return _from_planes(records[:, form.label_bytes :]), records[:, form.label_bytes - 1]
    pickled, labels = _batch(form, file, path)
    try:
        return _from_planes(pickled.array()), np.array(labels, np.int32)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path}: damaged ({error}); fetch the file again") from None


def _batch(form: _Form, file: io.BufferedIOBase, path: Path) -> tuple[PickledArray, list[int]]:
    batch = read_batch(file, path)
    data, labels = batch.get("data"), batch.get(form.label_key)
    if (
        not isinstance(data, PickledArray)
        or not isinstance(labels, list)
        or set(map(type, labels)) != {int}
    ):
        raise DataError(
            f"{path}: has no 'data' with {form.label_key!r}; this is no batch of it, fetch it again"
        )
    if data.shape != (len(labels), PIXELS):
        raise DataError(
            f"{path}: data of shape {data.shape} for {len(labels)} labels; the file is damaged, fetch it "
            "again"
        )
    return data, labels


def _from_planes(planes: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
