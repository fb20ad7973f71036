"""Which images a folder holds, from its directory entries alone, in time linear in their number.

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
from pathlib import Path

import numpy as np

from sfumato.core.errors import DataError
from sfumato.data.decode import SUFFIXES
from sfumato.data.listing import ListedPart, Listing
from sfumato.data.name_column import NameColumn
from sfumato.data.records import FileRecords
from sfumato.data.split import ReadOptions, split_of
from sfumato.data.units import FOLDER, owners_by_pattern

_ENDINGS = frozenset(suffix.removeprefix(".") for suffix in SUFFIXES)
Entries = list[os.DirEntry[str]]
NO_FILES = NameColumn.of(())
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


def list_folder(root: Path, options: ReadOptions) -> Listing:
    """List a folder. Raises DataError where it is no data set for a classifier, ArgumentError for an
    `options.unit` that says nothing of some image."""
    walk = _Walk(root, by_folder=options.unit == FOLDER)
    splits = _splits(root, [entry.name for entry in walk.entries(root) if _is_folder(entry)])
    walk.stray(root)
    by_class = {"train": _list_train(walk, root / splits["train"])}
    classes = tuple(by_class["train"])
    for split in ("validation", "test"):
        if split in splits:
            found = _list_held_out(walk, root / splits[split], splits["train"], classes)
            by_class[split] = {name: found.get(name, NO_FILES) for name in classes}
    parts = {
        split: _part(root, list(by_class.pop(split).values()), options.unit, every=split == "train")
        for split in tuple(by_class)
    }
    left_out = dict(walk.left_out.most_common())
    return Listing(root.resolve().name, str(root), classes, parts, left_out)


def _part(root: Path, by_class: list[NameColumn], unit: str | None, every: bool) -> ListedPart:
    paths = NameColumn.joined(by_class)
    labels = np.repeat(np.arange(len(by_class), dtype=np.int32), [len(each) for each in by_class])
    names = stable(paths)
    units = None if unit is None else owners_by_pattern(names, unit, every)
    return ListedPart(FileRecords(root, paths), labels, names, units)


def stable(paths: NameColumn) -> NameColumn:
    """File systems differ in how they compose accents; a name must not."""
    if paths.is_ascii or all(unicodedata.is_normalized("NFC", path) for path in paths):
        return paths
    return NameColumn.of(unicodedata.normalize("NFC", path) for path in paths)


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
        return sorted(visible(folder), key=lambda entry: entry.name)

    def by_class(self, place: Path) -> dict[str, NameColumn]:
        """The images of each class folder in `place`."""
        return {
            entry.name: NameColumn.of(self.images(place / entry.name))
            for entry in self.entries(place)
            if _is_folder(entry)
        }

    def stray(self, place: Path) -> None:
        """Count the images that lie beside the class folders or splits."""
        found = sum(entry.is_file() and _is_image(entry.name) for entry in visible(place))
        self.left_out += Counter({NO_CLASS: found})

    def images(self, folder: Path) -> list[str]:
        """The images of one class, in order, as paths below the root."""
        entries = self.entries(folder)
        nested = [entry.name for entry in entries if _is_folder(entry)]
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
        deeper = next((entry.name for entry in entries if _is_folder(entry)), None)
        if deeper is not None:
            raise DataError(
                f"{folder}: this is the folder of a unit, but it has a folder {deeper!r} in it; the images of a unit must lie "
                "directly in class/FOLDER/"
            )
        return self._sorted_out(folder, entries)

    def _sorted_out(self, folder: Path, entries: Entries) -> list[str]:
        """entries: of a folder that has no folders."""
        base = folder.relative_to(self.root).as_posix()
        images = [entry.name for entry in entries if _is_image(entry.name)]
        if len(images) < len(entries):
            others = (entry.name for entry in entries if not _is_image(entry.name))
            self.left_out.update(map(_ending, others))
        return [f"{base}/{name}" for name in images]


def _list_train(walk: _Walk, place: Path) -> dict[str, NameColumn]:
    by_class = walk.by_class(place)
    if not any(map(len, by_class.values())):
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
    return by_class


def _list_held_out(
    walk: _Walk, place: Path, train: str, classes: tuple[str, ...]
) -> dict[str, NameColumn]:
    """The images of a validation or test split. train: the folder of the training part, for the
    message."""
    by_class = walk.by_class(place)
    unknown = [name for name, paths in by_class.items() if paths and name not in classes]
    if unknown:
        raise DataError(
            f"{place / unknown[0]}: class {unknown[0]!r} is in {place.name}/ but not in {train}/ "
            f"({len(unknown)} such); add training images of it or remove it from {place.name}/"
        )
    if not any(map(len, by_class.values())):
        raise DataError(
            f"{place}: no images found{_seen(place)}; add some, with one sub-folder per class, or remove "
            f"{place.name}/ to have a share of {train}/ held out"
        )
    walk.stray(place)
    return by_class


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links are followed; one that leads to itself leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, but for what is hidden. Raises DataError."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not is_ignored(entry.name))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); check the path and its permissions"
        ) from None


def _is_image(name: str) -> bool:
    stem, _, ending = name.rpartition(".")  # many times faster than a Path
    return bool(stem) and ending.lower() in _ENDINGS


def _ending(name: str) -> str:
    """The kind of a file that is not read. Only what looks like an ending is told: it is printed in
    the report."""
    suffix = Path(name).suffix.lower()
    return (
        NO_ENDING if suffix in ("", ".") else suffix if _ENDING.fullmatch(suffix) else OTHER_ENDING
    )


def _seen(folder: Path) -> str:
    """What lies there instead, for the message."""
    files = [Path(entry.name) for entry in visible(folder) if entry.is_file()]
    if not files:
        return ""
    if any(_is_image(path.name) for path in files):
        return "; there are images directly in it, which have no class"
    return f"; found {', '.join(sorted({path.suffix or path.name for path in files})[:5])} instead"
