"""Who is on which side of a split.

Differential privacy compares neighboring data sets: D, and D without one example. If the held-out
examples were drawn from a shuffled list of all n, removing one example would reshuffle the rest;
the training sets of D and D' would then differ in many examples and an (epsilon, delta) for one
example would cover nothing. So each example decides alone:

    u(example) = H(seed, purpose, the example's own name) in [0, 1);   held out  <=>  u < fraction

Then the side of an example depends on nothing but its name, and neighbors stay neighbors after the
split. The price: the fraction is met only on average. A file's name is its path in the folder. An
example of an array has no name but its position, so there a neighbor means "that position is
empty", not "the later ones move up". `seed` is public.

The purposes "test" and "validation" use independent hashes, so the one split says nothing about the
other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from sfumato.core.checks import MAX_PIXELS, whole
from sfumato.core.errors import ArgumentError


@dataclass(frozen=True)
class ReadOptions:
    """How a data set is read.

    resize           shorter side -> this many pixels (bicubic), then the center square
    gray             one channel instead of three
    skip_unreadable  images to leave out: the list that `sfumato data check` wrote, or their names
    test_fraction    share held out as test where a data set has neither a test nor a validation split of its own
    share            share of the training images that is used at all
    seed             public; fixes who is held out and who is used
    max_pixels       an image file of more is not decoded
    unit             who belongs together: "folder", a regular expression on file names, or the name of a column (see
                     `units.py`)
    label            column of the labels, where a format has columns and it is not called as usual (`formats/columns.py`)
    findings         several labels an image: the columns, A,B,C, or names for those of a matrix (`findings.py`)
    path             column of the images or of their paths
    split            column that says train, validation or test
    """

    resize: int | None = None
    gray: bool = False
    skip_unreadable: Path | Sequence[str] | None = None
    test_fraction: float = 0.2
    share: float = 1.0
    seed: int = 0
    unit: str | None = None
    max_pixels: int = MAX_PIXELS
    label: str | None = None
    findings: str | None = None
    path: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        whole("max_pixels", self.max_pixels)
        if isinstance(self.skip_unreadable, bool | str):
            raise ArgumentError(
                "skip_unreadable",
                self.skip_unreadable,
                "give a Path, the list that `sfumato data check` writes, or the names of the images to leave out",
            )
        if self.resize is not None and not 1 <= self.resize <= 4096:
            raise ArgumentError("resize", self.resize, "give a side of 1 to 4096 pixels")
        check_fraction("test_fraction", self.test_fraction)
        if not 0 < self.share <= 1:
            raise ArgumentError(
                "share",
                self.share,
                "give a share of the training images greater than 0 and at most 1",
            )


SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""How folders and arrays call the splits, in capitals or not."""


def split_of(name: str) -> str | None:
    """The split that a folder or array of this name is taken for."""
    return next(
        (split for split, spellings in SPELLINGS.items() if name.casefold() in spellings), None
    )


def check_fraction(argument: str, value: float) -> None:
    if not 0 <= value < 1:  # also refuses NaN
        raise ArgumentError(
            argument, value, "give a share of the examples: 0 (none) up to, but not including, 1"
        )


def held_out(
    names: Sequence[str], fraction: float, seed: int, purpose: str
) -> Bool[np.ndarray, " n"]:
    """True for every example that its name's hash puts on the held-out side."""
    prefix = hashlib.blake2b(f"sfumato split {seed} {purpose}\n".encode(), digest_size=8)
    # Half-open and exact: u = hash / 2^64 < fraction, decided in integers.
    threshold = int(fraction * 2.0**64)
    if threshold in (0, 2**64):  # nobody or everybody
        return np.full(len(names), threshold > 0)

    def is_out(name: str) -> bool:
        digest = prefix.copy()
        digest.update(name.encode("utf-8", "surrogateescape"))
        return int.from_bytes(digest.digest(), "big") < threshold

    return np.fromiter((is_out(name) for name in names), bool)


def partition(
    names: Sequence[str], has_test: bool, validation: float, options: ReadOptions
) -> dict[str, np.ndarray]:
    """Indices into `names` of "train", and of "validation" and "test" where they are split off.
    Raises ArgumentError.

    `names` are the examples of the training part, or the units that they belong to: images of one
    name stay together. `has_test` says whether a part to evaluate on exists beside them, so that
    none need be held out.
    """
    is_test = held_out(names, 0.0 if has_test else options.test_fraction, options.seed, "test")
    is_validation = held_out(names, validation, options.seed, "validation") & ~is_test
    is_used = held_out(names, options.share, options.seed, "share")
    sides = {"train": np.flatnonzero(~is_test & ~is_validation & is_used)}
    if validation > 0:
        sides["validation"] = np.flatnonzero(is_validation)
    if not has_test and options.test_fraction > 0:
        sides["test"] = np.flatnonzero(is_test)
    for side, indices in sides.items():
        if len(indices) == 0:
            given = {
                "validation": validation,
                "test_fraction": options.test_fraction,
                "share": options.share,
            }
            argument = (
                "validation"
                if side == "validation"
                else "share"
                if options.share < 1
                else "test_fraction"
            )
            value = given[argument]
            raise ArgumentError(
                argument,
                value,
                f"no image falls into the {side} split; {len(names)} images are too few for this share",
            )
    return sides
