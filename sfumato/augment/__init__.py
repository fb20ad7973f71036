"""Augmentations by the names of `--augment`, several with + between. Importing this module imports
neither JAX nor NumPy.

A new one is a file with a subclass of `Augmentation` and a line in `AUGMENTATIONS`. From outside of
the package it is a class alone, named `package.module:Class`.
"""

from typing import Any

from sfumato.core.errors import ArgumentError
from sfumato.core.named_classes import Named, Registry

AUGMENTATIONS = Registry(
    "augment",
    "sfumato.augment.base:Augmentation",
    {
        "shift": Named(
            "sfumato.augment.shift:Shift", "by up to an eighth of the side, mirrored at the border"
        ),
        "crop": Named(
            "sfumato.augment.crop:Crop", "a window of 1/1.2 of the side, of images stored larger"
        ),
        "inception": Named(
            "sfumato.augment.inception:Inception", "8 % to all of the area, resized"
        ),
        "color": Named(
            "sfumato.augment.color:Jitter", "brightness, contrast, saturation times 0.6 to 1.4"
        ),
        "mix": Named("sfumato.augment.mix:Mix", "half of the views are mixtures of two others"),
    },
)
"""By the names of `--augment`. The first three choose a part of the image; in color they also show
half of the views in the mirror."""

DEFAULT, NONE = "shift", "none"

_OTHERS = ("mixup", "cutmix")


def parse(text: str) -> tuple[Any, ...]:
    """The classes of "crop+color+mix", in the order in which they are applied; none of "none".
    Raises ArgumentError for unknown names and for what does not go together."""
    if text == NONE:
        return ()
    if foreign := set(text.split("+")) & set(_OTHERS):
        raise ArgumentError(
            "augment",
            text,
            f"{min(foreign)} mixes the images of two people: then no clip bounds what one of them adds. "
            "Take mix, which mixes the views of one example",
        )
    names = text.split("+")
    found = sorted((AUGMENTATIONS[name] for name in names), key=lambda each: each.stage)
    stages = [each.stage for each in found]
    if len(set(names)) < len(names) or stages.count(0) > 1:
        raise ArgumentError(
            "augment", text, "choose one of shift, crop and inception, and each other once"
        )
    return tuple(found)


def least_views(text: str) -> int:
    """How many views it takes at least; 0 for "none"."""
    return max((each.least_views for each in parse(text)), default=0)


def kept(text: str) -> float | None:
    """The share of the shorter side that networks trained on such views see of other images, at the
    center; None for all of it."""
    return next((each.kept for each in parse(text) if each.kept is not None), None)


def words(text: str) -> str:
    """For the report."""
    return ", then ".join(each.words for each in parse(text)) or "none"
