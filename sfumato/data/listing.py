"""Which images a folder holds, from its directory entries alone.

Two layouts: `path/class/*.jpg`, or `path/train/class/*.jpg` beside `path/val/...` and
`path/test/...`, which may be absent and may be spelled in other ways (`split.SPELLINGS`). Classes
are the sorted folder names of the training part. Where the unit is a folder, images lie one folder
deeper: `class/patient/*.jpg`.

What `is_ignored` names is passed over everywhere. Other files that are not images are passed
over too, but counted.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import DataError
from sfumato.data.decode import SUFFIXES
from sfumato.data.split import split_of
from sfumato.data.units import FOLDER

Entries = list[os.DirEntry[str]]
_SYSTEM = frozenset(
    {
        "__macosx",
        "@eadir",
        "lost+found",
        "$recycle.bin",
        "#recycle",
        "@recycle",
        "system volume information",
        "__pycache__",
        "thumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
_WORDS = ("valid", "dev")  # also names of classes: a split only beside a training part
_ENDING = re.compile(r"\.[a-z0-9]{1,5}")  # a longer one may be a part of somebody's name
NO_ENDING, OTHER_ENDING, NO_CLASS = (
    "without an ending",
    "with other endings",
    "images that lie in no class folder",
)


def is_ignored(name: str) -> bool:
    """Whether an entry is hidden, or is one that operating systems, archives and storage servers
    put everywhere."""
    return name.startswith(".") or name.casefold() in _SYSTEM


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
    """parts: "train", and "validation" and "test" where the folder has them. left_out: files that
    are not read, by ending."""

    root: Path
    classes: tuple[str, ...]
    parts: dict[str, Files]
    left_out: dict[str, int]

    @property
    def train(self) -> Files:
        return self.parts["train"]


def list_folder(root: Path, unit: str | None = None) -> Listing:
    """List a folder. unit: as in `ReadOptions`. Raises DataError where it is no data set for a
    classifier."""
    walk = _Walk(root, by_folder=unit == FOLDER)
    splits = _splits(root, [entry.name for entry in walk.entries(root) if entry.is_dir()])
    walk.stray(root)
    classes, train = _list_train(walk, root / splits["train"])
    parts = {"train": train}
    for split in ("validation", "test"):
        if split in splits:
            parts[split] = _list_held_out(walk, root / splits[split], splits["train"], classes)
    return Listing(root, classes, parts, dict(walk.left_out.most_common()))


def _splits(root: Path, folders: list[str]) -> dict[str, str]:
    """Split -> its folder; all is training ("") in a folder of class folders. Raises DataError
    where it is neither."""
    found = {name: split for name in folders if (split := split_of(name)) is not None}
    if "train" not in found.values():
        found = {name: split for name, split in found.items() if name.casefold() not in _WORDS}
    if not found:
        return {"train": ""}
    first = next((name for name, split in found.items() if split == "train"), next(iter(found)))
    extra = [name for name in folders if name not in found]
    if extra:
        raise DataError(
            f"{root}: the folder {first!r} is taken for the {found[first]} split, not for a class, so {extra[0]!r} "
            f"beside it has no meaning; if {first!r} is a class, rename it (to 'class_{first}', say), else move "
            f"{extra[0]!r} away: beside train/ there may be val/ and test/, with one sub-folder per class in each"
        )
    by_split: dict[str, str] = {}
    for name, split in found.items():
        if split in by_split:
            raise DataError(
                f"{root}: {by_split[split]!r} and {name!r} are both taken for the {split} split; keep one of them"
            )
        by_split[split] = name
    if "train" not in by_split:
        raise DataError(
            f"{root}: the folder {first!r} is taken for the {found[first]} split, and the folder has no train/; "
            f"expected train/, val/ and test/ (the latter two may be absent), or class folders only; if {first!r} "
            "is a class, rename it"
        )
    return by_split


class _Walk:
    """Goes through the folders and counts what it leaves out."""

    def __init__(self, root: Path, by_folder: bool):
        self.root, self.by_folder = root, by_folder
        self.left_out: Counter[str] = Counter()

    def entries(self, folder: Path) -> Entries:
        return sorted(_visible(folder), key=lambda entry: entry.name)

    def by_class(self, place: Path) -> dict[str, list[str]]:
        """The images of each class folder in `place`."""
        return {
            entry.name: self.images(place / entry.name)
            for entry in self.entries(place)
            if entry.is_dir()
        }

    def stray(self, place: Path) -> None:
        """Count the images that lie beside the class folders or splits."""
        found = sum(entry.is_file() and _is_image(entry.name) for entry in _visible(place))
        self.left_out += Counter({NO_CLASS: found})

    def images(self, folder: Path) -> list[str]:
        """The images of one class, in order, as paths below the root."""
        entries = self.entries(folder)
        nested = [entry.name for entry in entries if entry.is_dir()]
        if not self.by_folder:
            if nested:
                raise DataError(
                    f"{folder}: this class folder has a folder {nested[0]!r} in it; if each such folder holds the "
                    "images of one unit (a patient, say), give --unit folder (unit='folder'), else move the images "
                    "up, as they must lie directly in class/ or train/class/, val/class/ and test/class/"
                )
            return self._sorted_out(folder, entries)
        direct = [entry.name for entry in entries if entry.is_file() and _is_image(entry.name)]
        if direct:
            raise DataError(
                f"{folder}: unit='folder' needs every image in a folder of its unit, class/FOLDER/*.jpg, and "
                f"{direct[0]!r} lies directly in its class; move it into one, or leave out --unit folder"
            )
        return [path for name in nested for path in self._unit(folder / name)]

    def _unit(self, folder: Path) -> list[str]:
        entries = self.entries(folder)
        deeper = next((entry.name for entry in entries if entry.is_dir()), None)
        if deeper is not None:
            raise DataError(
                f"{folder}: this is the folder of a unit, but it has a folder {deeper!r} in it; the images of a unit must lie "
                "directly in class/FOLDER/"
            )
        return self._sorted_out(folder, entries)

    def _sorted_out(self, folder: Path, entries: Entries) -> list[str]:
        base = folder.relative_to(self.root).as_posix()
        self.left_out.update(
            _ending(entry.name)
            for entry in entries
            if not entry.is_dir() and not _is_image(entry.name)
        )
        return [
            f"{base}/{entry.name}"
            for entry in entries
            if not entry.is_dir() and _is_image(entry.name)
        ]


def _list_train(walk: _Walk, place: Path) -> tuple[tuple[str, ...], Files]:
    by_class = walk.by_class(place)
    if not any(by_class.values()):
        raise DataError(
            f"{place}: no images found; expected one sub-folder per class with files ending in "
            f"{', '.join(SUFFIXES)}{_seen(place)}"
        )
    empty = [name for name, paths in by_class.items() if not paths]
    if len(by_class) - len(empty) == 1:
        only = next(name for name, paths in by_class.items() if paths)
        raise DataError(
            f"{place}: only one class has images ({only!r}); a classifier needs two or more"
        )
    if empty:
        raise DataError(
            f"{place / empty[0]}: no images in this class folder ({len(empty)} such); add some "
            f"({', '.join(SUFFIXES)}) or remove the folder{_seen(place / empty[0])}"
        )
    if place != walk.root:
        walk.stray(place)
    return tuple(by_class), _files(list(by_class.values()))


def _list_held_out(walk: _Walk, place: Path, train: str, classes: tuple[str, ...]) -> Files:
    """The images of a validation or test split. train: the folder of the training part, for the
    message."""
    by_class = walk.by_class(place)
    unknown = [name for name, paths in by_class.items() if paths and name not in classes]
    if unknown:
        raise DataError(
            f"{place / unknown[0]}: class {unknown[0]!r} is in {place.name}/ but not in {train}/ "
            f"({len(unknown)} such); add training images of it or remove it from {place.name}/"
        )
    if not any(by_class.values()):
        raise DataError(
            f"{place}: no images found{_seen(place)}; add some, with one sub-folder per class, or remove "
            f"{place.name}/ to have a share of {train}/ held out"
        )
    walk.stray(place)
    return _files([by_class.get(name, []) for name in classes])


def _files(by_class: list[list[str]]) -> Files:
    paths = tuple(path for paths in by_class for path in paths)
    return Files(paths, tuple(label for label, paths in enumerate(by_class) for _ in paths))


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not is_ignored(entry.name))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); check the path and its permissions"
        ) from None


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _ending(name: str) -> str:
    """The kind of a file that is not read. Only what looks like an ending is told: it is printed in
    the report."""
    suffix = Path(name).suffix.lower()
    return (
        NO_ENDING if suffix in ("", ".") else suffix if _ENDING.fullmatch(suffix) else OTHER_ENDING
    )


def left_out_words(left_out: dict[str, int]) -> str:
    """For people: "60 files that are not read: 40 .tif, 20 .gif"; empty if there are none."""
    total = sum(left_out.values())
    named = ", ".join(f"{count:,} {ending}" for ending, count in left_out.items())
    return (
        f"{total:,} {'file that is' if total == 1 else 'files that are'} not read: {named}"
        if total
        else ""
    )


def _seen(folder: Path) -> str:
    """What lies there instead, for the message."""
    files = [Path(entry.name) for entry in _visible(folder) if entry.is_file()]
    if not files:
        return ""
    if any(_is_image(path.name) for path in files):
        return "; there are images directly in it, which have no class"
    return f"; found {', '.join(sorted({path.suffix or path.name for path in files})[:5])} instead"
