"""Which images a folder holds, from its directory entries alone.

Two layouts: `path/class/*.jpg`, or `path/train/class/*.jpg` and `path/test/class/*.jpg`. Classes are the sorted folder
names of the training part. What begins with a dot is ignored, and so are files that are no images.
"""

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import DataError
from sfumato.data.decode import SUFFIXES

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Files:
    """The images of one split: paths relative to the data set's folder, and class indices."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Stable names. File systems differ in how they compose accents; a name must not."""
        return tuple(unicodedata.normalize("NFC", path) for path in self.paths)


@dataclass(frozen=True)
class Listing:
    root: Path
    classes: tuple[str, ...]
    train: Files
    test: Files | None


def list_folder(root: Path) -> Listing:
    """List a folder. Raises DataError where it is no data set for a classifier."""
    folders = _folders(root)
    if not set(folders) & set(SPLITS):
        classes, train = _list_split(root, "", folders)
        return Listing(root, classes, train, None)
    extra = [name for name in folders if name not in SPLITS]
    if extra or "train" not in folders:
        problem = f"has {extra[0]!r} beside them" if extra else "has no train/"
        raise DataError(f"{root}: {problem}; expected train/ and test/ (the latter may be absent) with one sub-folder "
                        "per class in each, or class folders only")
    classes, train = _list_split(root, "train", _folders(root / "train"))
    if "test" not in folders:
        return Listing(root, classes, train, None)
    return Listing(root, classes, train, _list_test(root, classes))


def _list_split(root: Path, split: str, folders: list[str]) -> tuple[tuple[str, ...], Files]:
    place = root / split
    by_class = {name: _images(root, place / name) for name in folders}
    if not any(by_class.values()):
        raise DataError(f"{place}: no images found; expected one sub-folder per class with files ending in "
                        f"{', '.join(SUFFIXES)}{_seen(place)}")
    empty = [name for name, paths in by_class.items() if not paths]
    if len(by_class) - len(empty) == 1:
        only = next(name for name, paths in by_class.items() if paths)
        raise DataError(f"{place}: only one class has images ({only!r}); a classifier needs two or more")
    if empty:
        raise DataError(f"{place / empty[0]}: no images in this class folder ({len(empty)} such); add some "
                        f"({', '.join(SUFFIXES)}) or remove the folder{_seen(place / empty[0])}")
    return tuple(folders), _files(list(by_class.values()))


def _list_test(root: Path, classes: tuple[str, ...]) -> Files:
    by_class = {name: _images(root, root / "test" / name) for name in _folders(root / "test")}
    unknown = [name for name, paths in by_class.items() if paths and name not in classes]
    if unknown:
        raise DataError(f"{root / 'test' / unknown[0]}: class {unknown[0]!r} is in test/ but not in train/ "
                        f"({len(unknown)} such); add training images of it or remove it from test/")
    if not any(by_class.values()):
        raise DataError(f"{root / 'test'}: no images found; add some, or remove test/ to have a share of train/ "
                        "held out")
    return _files([by_class.get(name, []) for name in classes])


def _files(by_class: list[list[str]]) -> Files:
    paths = tuple(path for paths in by_class for path in paths)
    return Files(paths, tuple(label for label, paths in enumerate(by_class) for _ in paths))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check the path and its permissions") from None
    return sorted(visible, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _images(root: Path, folder: Path) -> list[str]:
    entries = _entries(folder)
    nested = [entry.name for entry in entries if entry.is_dir()]
    if nested:
        raise DataError(f"{folder}: a class folder with a folder {nested[0]!r} in it; images must lie directly in "
                        "class/ or train/class/ and test/class/")
    base = folder.relative_to(root).as_posix()
    return [f"{base}/{entry.name}" for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES]


def _seen(folder: Path) -> str:
    """What lies there instead, for the message."""
    files = [Path(entry.name) for entry in _entries(folder) if entry.is_file()]
    if not files:
        return ""
    if any(path.suffix.lower() in SUFFIXES for path in files):
        return "; there are images directly in it, which have no class"
    return f"; found {', '.join(sorted({path.suffix or path.name for path in files})[:5])} instead"
