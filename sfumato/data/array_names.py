"""Which arrays of a file are the images (or rows) and the labels of which split.

Read are `x_train`, `y_train` and perhaps `x_val`, `y_val`, `x_test`, `y_test`, or as MedMNIST calls
them `train_images`, `train_labels`, ...: a kind and a split (`split.SPELLINGS`) in either order, in
capitals or not.
"""

from collections.abc import Iterable
from pathlib import Path

from sfumato.core.errors import DataError
from sfumato.data.split import split_of

KINDS = {"x": ("x", "images"), "y": ("y", "labels")}
SPLITS = ("train", "validation", "test")
WANTED = "expected x_train and y_train, and optionally x_val and y_val, x_test and y_test"

Keys = dict[str, tuple[str, str]]  # split -> the names of its examples and of its labels


def find_keys(path: Path, stored: Iterable[str], wanted: str = WANTED) -> Keys:
    """The arrays of each split among the names that are stored. Raises DataError where half of a
    split is missing, or where an array would be left out without a word because another one has its
    place.
    """
    names = sorted(
        stored, key=lambda name: (name.upper() == name or name[:1].isupper(), name)
    )  # x_test before X_test
    found: dict[tuple[str, str], str] = {}
    for name in names:
        place = next(
            ((split, kind) for kind in KINDS if (split := _split_of(name, KINDS[kind]))), None
        )
        if place in found:
            raise DataError(
                f"{path}: {name} would not be read, because {found[place]} is read in its place; remove one of them"
            )
        if place is not None:
            found[place] = name
    splits = [
        split for split in SPLITS if split == "train" or {(split, "x"), (split, "y")} & found.keys()
    ]
    for split in splits:
        for kind, other in (("x", "y"), ("y", "x")):
            if (split, kind) not in found:
                spelled = _partner(found.get((split, other)), split, kind)
                raise DataError(
                    f"{path}: has no {spelled} (found {', '.join(sorted(stored)) or 'nothing'}); {wanted}"
                )
    return {split: (found[split, "x"], found[split, "y"]) for split in splits}


def key_of(stored: Iterable[str], kind: str, split: str) -> str | None:
    """The array of this kind that belongs to a split: `patient_train`, or `train_patient`."""
    return next((name for name in sorted(stored) if _split_of(name, (kind,)) == split), None)


def _split_of(name: str, kinds: tuple[str, ...]) -> str | None:
    """The split in a name that is made of it and one of the kinds."""
    folded = name.casefold()
    for kind in map(str.casefold, kinds):
        if folded.startswith(f"{kind}_"):
            rest = folded.removeprefix(f"{kind}_")
        elif folded.endswith(f"_{kind}"):
            rest = folded.removesuffix(f"_{kind}")
        else:
            continue
        if (split := split_of(rest)) is not None:
            return split
    return None


def _partner(other: str | None, split: str, kind: str) -> str:
    """What the missing array would be called, beside its partner if that is there."""
    if other is not None:
        for mine, its in zip(KINDS[kind], KINDS["y" if kind == "x" else "x"], strict=True):
            if its in other.casefold().split("_"):
                return "_".join(
                    mine if part.casefold() == its else part for part in other.split("_")
                )
    return f"{kind}_{'val' if split == 'validation' else split}"
