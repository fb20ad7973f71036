"""CIFAR-10 and CIFAR-100 in their binary version, in the archive or unpacked.

Per image one label byte (CIFAR-100: a coarse and a fine one), then 3072 bytes: the red, green, blue
planes. The python version holds the same images as pickles, which are programs; it is not read.
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

from sfumato.core.archive import GROWTH, most
from sfumato.core.errors import DataError, data_error
from sfumato.data.lazy import ArrayFiles, ImagesAndLabels
from sfumato.data.published_sets import NamedDataset

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Form:
    """The folder, the archive, the files of each split, and the label bytes before the pixels (the
    fine label last)."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int


_FORMS = {
    "cifar10": _Form(
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
        ("test_batch.bin",),
        1,
    ),
    "cifar100": _Form(
        "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",), 2
    ),
}


def find_cifar(row: NamedDataset, place: Path) -> ArrayFiles | None:
    """The unpacked folder in `place`, `place` itself, or the .tar.gz in it, which is read in
    passing (nothing is unpacked); None where there is none of them. Raises DataError on damaged
    files."""
    form = _FORMS[row.name]
    for folder in (place / form.folder, place):
        if (folder / form.train[0]).is_file():
            there = {each.name for each in folder.iterdir() if each.is_file()}
            _check_complete(form, folder, there, f"unpack {form.archive} here again")
            return _announced(form, folder)
    archive = place / form.archive
    return _announced(form, archive) if archive.is_file() else None


def _announced(form: _Form, path: Path) -> ArrayFiles:
    counts = {}
    with _members(form, path) as members:
        for name, _, size in members:
            counts[name] = _count(form, size, path / name)
    _check_complete(form, path, set(counts), f"fetch {form.archive} again")
    n_train, n_test = (sum(counts[name] for name in part) for part in (form.train, form.test))
    return ArrayFiles(str(path), n_train, n_test, lambda: _read(form, path))


def _read(form: _Form, path: Path) -> tuple[ImagesAndLabels, ImagesAndLabels]:
    parts: dict[str, ImagesAndLabels] = {}
    with _members(form, path) as members:
        for name, file, _ in members:
            parts[name] = _decode(form, file.read(), path / name)
    _check_complete(form, path, set(parts), f"fetch {form.archive} again")
    train, test = ([parts[name] for name in names] for names in (form.train, form.test))
    return _join(train), _join(test)


def _join(parts: list[ImagesAndLabels]) -> ImagesAndLabels:
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


@contextmanager
def _members(form: _Form, path: Path) -> Iterator[Iterator[tuple[str, io.BufferedIOBase, int]]]:
    """The wanted files as (name, file, size), in the order they come; errors of the container
    become DataError."""
    wanted = form.train + form.test
    kinds = (tarfile.TarError, OSError, EOFError, zlib.error)
    with data_error(f"{path}: cannot be read", "the file is damaged, fetch it again", kinds):
        if path.is_dir():
            yield _from_folder(path, wanted)
        else:
            with tarfile.open(path, "r|gz") as archive:  # a stream: it is decompressed once
                yield _from_archive(archive, wanted, most(path))


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


def _check_complete(form: _Form, path: Path, found: set[str], way_out: str) -> None:
    missing = [name for name in form.train + form.test if name not in found]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} is missing; {way_out}")


def _count(form: _Form, size: int, path: Path) -> int:
    """The number of images in a file of that size."""
    record = form.label_bytes + PIXELS
    if size % record or size == 0:
        raise DataError(
            f"{path}: {size} bytes is not a whole number of {record}-byte images; the file is truncated, "
            "fetch it again"
        )
    return size // record


def _decode(form: _Form, content: bytes, path: Path) -> ImagesAndLabels:
    """Images (n, 32, 32, 3) and labels (n,) of a file."""
    n, before = _count(form, len(content), path), form.label_bytes
    records = np.frombuffer(content, np.uint8).reshape(n, before + PIXELS)
    planes = records[:, before:].reshape(n, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, before - 1]
