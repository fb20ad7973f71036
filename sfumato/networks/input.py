"""How a network wants its image: the size, the range of its pixels. Public numbers, which come with
public weights."""

from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sfumato.core.errors import ArgumentError


@dataclass(frozen=True)
class Input:
    """size: side of the square image the network sees, None for the image's own size. mean, std:
    subtracted and divided by, per channel or one for all, for pixels in [0, 1]; public constants,
    since a data set's own are private facts.
    """

    size: int | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    colors: int | None = None

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
        return (height, width, colors) if self.size is None else (self.size, self.size, colors)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, "a b d"]:
        """The image, pixels in [0, 1] -> cut to its center square if it is not square, resized,
        normalized. Other pixels are brought into the range first (`public_pixels`).
        """
        height, width, channels = image.shape
        shape, image = self.shape((height, width, channels)), public_pixels(image)
        if (height, width) != shape[:2]:
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[top : top + side, left : left + side]
            method = "cubic" if self.interpolation == "bicubic" else "linear"
            image = jax.image.resize(image, (*shape[:2], channels), method).clip(
                0, 1
            )  # bicubic overshoots
        image = jnp.broadcast_to(image, (*image.shape[:2], shape[2]))
        return (image - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)


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

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        features: Float[Array, " d"] = self.network.features(self.input(image))
        return features

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " classes"]:
        scores: Float[Array, " classes"] = self.network(self.input(image))
        return scores
