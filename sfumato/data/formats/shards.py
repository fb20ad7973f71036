"""Files that hold a data set together, such as `train-00000-of-00004.parquet`, by split.

A file belongs to the split that its folder is called after (`train/000.tar`), else to the one that
is a word of its name. Where no name tells, all is training.
"""

import re
from collections.abc import Callable
from pathlib import Path

from sfumato.core.errors import DataError
from sfumato.data.decode import SUFFIXES
from sfumato.data.formats.folder import visible
from sfumato.data.split import split_of

Matches = Callable[[str], bool]


def find_shards(root: Path, matches: Matches, beside_images: bool = False) -> list[Path]:
    """The files whose names match, sorted: `root` itself, or those in it, in its `data/` and in the
    folders of its splits. beside_images: also where images lie in folders there; else the shards
    are taken for what these were unpacked from.
    """
    if root.is_file():
        return [root] if matches(root.name) else []
    if not root.is_dir():
        return []
    folders = [path for path in _inside(root) if path.is_dir()]
    inner = [path for path in folders if split_of(path.name) or path.name == "data"]
    found = [
        path
        for folder in (root, *inner)
        for path in _inside(folder)
        if matches(path.name) and path.is_file()
    ]
    unpacked = found and not beside_images and any(map(_holds_images, folders))
    return [] if unpacked else found


def by_split(root: Path, shards: list[Path]) -> dict[str, list[Path]]:
    """The shards of each split, "train" among them. Raises DataError."""
    if shards == [root]:
        return {"train": shards}
    found: dict[str | None, list[Path]] = {}
    for path in shards:
        found.setdefault(_split(root, path), []).append(path)
    if set(found) == {None}:
        return {"train": shards}
    if None in found:
        told = next(path for path in shards if path not in found[None])
        raise DataError(
            f"{found[None][0]}: its name does not say to which split it belongs, as that of {told.name} does; put the "
            "files into train/, val/ and test/, or call all of them after their split"
        )
    if "train" not in found:
        raise DataError(
            f"{root}: none of its {len(shards)} files is called after the training split (found "
            f"{', '.join(map(str, found))}); call them train-..., or give one file alone"
        )
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _split(root: Path, path: Path) -> str | None:
    if path.parent != root and (split := split_of(path.parent.name)):
        return split
    splits = {split for word in re.split(r"[^A-Za-z]+", path.name) if (split := split_of(word))}
    if len(splits) > 1:
        raise DataError(
            f"{path}: its name speaks of the splits {' and '.join(sorted(splits))}; rename it after one"
        )
    return next(iter(splits), None)


def _inside(folder: Path) -> list[Path]:
    return sorted(Path(entry.path) for entry in visible(folder))


def _holds_images(folder: Path, depth: int = 2) -> bool:
    """Whether an image lies in the folder or in one of its folders."""
    return any(
        path.suffix.lower() in SUFFIXES
        or (depth > 1 and path.is_dir() and _holds_images(path, depth - 1))
        for path in _inside(folder)
    )
