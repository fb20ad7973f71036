"""The views of examples in a step: what is drawn on the host, and what the program of the loss makes
of it.

A view is a function of (key, step, index of the example, number of the view) alone, with `mix` also
of how many views there are: who else is in the batch, the size of a microbatch and a resumed run do
not change it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Array, Int32, Int64, Num, UInt64

from sfumato import augment
from sfumato.augment.base import Augmentation
from sfumato.core.errors import ArgumentError
from sfumato.networks.input import Input

Words = Callable[[tuple[str, ...], int, np.ndarray, int], UInt64[np.ndarray, "b n"]]
"""(name, step, indices of examples, n) -> n random words for each of them: `SecretKey.words` for
private images."""
Draws = tuple[Int32[np.ndarray, "b v _"], ...]


@dataclass(frozen=True)
class Views:
    """`count` views per example by these augmentations, one after the other. count=0 means the image
    itself, unchanged."""

    words: Words
    count: int = 0
    augmentations: tuple[Augmentation, ...] = ()

    def draws(self, indices: Int64[np.ndarray, " b"], step: int) -> Draws:
        """What says how the views of these examples look in this step, of each augmentation; on the
        host."""
        return tuple(
            each.draws(
                self.words(each.stream(), step, indices, self.count * each.random).reshape(
                    len(indices), self.count, each.random
                )
            )
            for each in self.augmentations
        )

    def __call__(
        self, image: Num[Array, "h w c"], draws: tuple[Int32[Array, "v _"], ...]
    ) -> Num[Array, "v h2 w2 c"]:
        """The views of ONE example, in a program; v = max(count, 1)."""
        views = image[None]
        for augmentation, own in zip(self.augmentations, draws, strict=True):
            views = augmentation.views(views, own)
        return views


def _nobody(name: tuple[str, ...], step: int, indices: np.ndarray, count: int) -> np.ndarray:
    raise AssertionError("the image itself takes no draws")


ITSELF = Views(_nobody)
"""Of every example its image alone."""


def views_of(
    names: str, count: int, shape: tuple[int, int, int], own: Input, words: Words
) -> tuple[Views, Input]:
    """`count` views of images of this shape as `--augment` names them, and how a network that
    prepares its images like `own` takes such views: they are cropped already.

    Raises ArgumentError where an augmentation leaves nothing of so small an image.
    """
    made = tuple(each.for_network(shape, own) for each in augment.parse(names)) if count else ()
    if any(min(each.out) < 1 for each in made):
        raise ArgumentError("augment", names, f"leaves nothing of images of shape {shape}")
    return Views(words, count, made), replace(own, crop=None) if count else own
