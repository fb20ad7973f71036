"""How a network wants its image: the size, the range of its pixels. Public numbers, which come with
public weights."""

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from sfumato.core.errors import ArgumentError


@dataclass(frozen=True)
class Input:
    """size: side of the square image the network sees, None for the image's own size. mean, std:
    subtracted and divided by, per channel or one for all, for pixels in [0, 1]; public constants,
    since a data set's own are private facts. crop: the share of each side that is seen, in the
    center, as papers crop images at evaluation; None for all of it. crop_larger: the same of images
    that are larger than `size`, where `crop` says nothing: what the publishers of weights cut off when
    they evaluate (timm's crop_pct). Images that are no larger are seen whole.
    """

    size: int | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    colors: int | None = None
    crop: float | None = None
    crop_larger: float | None = None

    def window(self, sides: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what is seen of an image, before it is resized: as the network wants
        them where that is a matter of rounding."""
        share = self.crop
        if share is None and self.size is not None and min(sides) > self.size:
            share = self.crop_larger
        if share is None:
            return sides
        wanted = [side * share for side in sides]
        if self.size is not None and all(abs(each - self.size) < 1 for each in wanted):
            return self.size, self.size
        return max(1, round(wanted[0])), max(1, round(wanted[1]))

    def seen(self, sides: tuple[int, int]) -> str:
        """What is seen of an image, in words; empty where it is all of it."""
        tall, wide = self.window(sides)
        return f"the central {tall} x {wide} of {sides[0]} x {sides[1]} pixels" * (
            (tall, wide) != sides
        )

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of what the network sees of an image of this shape. Raises ArgumentError for a
        wrong number of channels."""
        height, width, channels = shape
        if self.colors is not None and channels not in (1, self.colors):
            way_out = (
                "give --gray"
                if self.colors == 1
                else "a single gray one is repeated; convert the images"
            )
            raise ArgumentError(
                "image", f"{channels} channels", f"this network takes {self.colors}; {way_out}"
            )
        colors = channels if self.colors is None else self.colors
        seen = self.window((height, width)) if self.size is None else (self.size, self.size)
        return (*seen, colors)

    def __call__(self, image: Num[Array, "h w c"]) -> Float[Array, "a b d"]:
        """The image, uint8 or pixels in [0, 1] -> cut to its center (`crop`, and a square if it is not
        square), resized, normalized. Other pixels are brought into the range first (`public_pixels`).
        """
        height, width, channels = image.shape
        shape, image = self.shape((height, width, channels)), pixels(image)
        image = public_pixels(image)
        height, width = self.window((height, width))
        image = _center(image, (height, width))
        if (height, width) != shape[:2]:
            side = min(height, width)
            image = _center(image, (side, side))
            method = "cubic" if self.interpolation == "bicubic" else "linear"
            image = jax.image.resize(image, (*shape[:2], channels), method).clip(
                0, 1
            )  # bicubic overshoots
        image = jnp.broadcast_to(image, (*image.shape[:2], shape[2]))
        return (image - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


IMAGENET = Input(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), colors=3)
"""What most public weights want: pixels less the mean of ImageNet's, over their deviation."""
HALVES = Input(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), colors=3)
"""The other habit: pixels from -1 to 1."""
_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
"""A table, as XLA divides by a constant with other last bits: it multiplies by the inverse."""


def _center(image: Float[Array, "h w c"], size: tuple[int, int]) -> Float[Array, "a b c"]:
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def pixels(image: Num[Array, "*n h w c"]) -> Float[Array, "*n h w c"]:
    """uint8 -> [0, 1], to the bit as `data.Source.images` has it; floats pass."""
    if image.dtype != jnp.uint8:
        return image
    return jnp.asarray(_LEVELS).at[image.astype(jnp.int32)].get(mode="promise_in_bounds")


def public_pixels(image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Pixels in [0, 1], whatever was given: cut off there, 0 where there is no number (NaN).

    The clip bounds what any image can do, but numbers of 1e17 in a network are for adversaries
    only, and need not come in.
    """
    return jnp.clip(jnp.where(jnp.isnan(image), 0, image), 0, 1)


class Prepared(eqx.Module):
    """A network (a `Backbone`, or somebody's own) behind its input: image, pixels in [0, 1] -> class
    scores."""

    network: Any
    input: Input = eqx.field(static=True)

    def features(self, image: Num[Array, "h w c"]) -> Float[Array, " d"]:
        features: Float[Array, " d"] = self.network.features(self.input(image))
        return features

    def __call__(self, image: Num[Array, "h w c"]) -> Float[Array, " classes"]:
        scores: Float[Array, " classes"] = self.network(self.input(image))
        return scores
