"""The loss of a unit of several images: the mean over those that are there, taken before the clip."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def unit_loss(loss: Callable[..., Float[Array, ""]]) -> Callable[..., Float[Array, ""]]:
    """loss of one image, (params, image, *frozen) -> loss of one unit, (params, (images, present),
    *frozen) -> scalar; see `data.units.Units.fetch`. An image may hold several views, over which
    the loss averages: all happens before the clip.

    What stands in padded places is the unit's first image again, which is real, so it can add
    nothing, not even NaN.
    """

    def mean(params: PyTree, unit: PyTree, *frozen: PyTree) -> Float[Array, ""]:
        images, present = unit
        losses = jax.vmap(lambda image: loss(params, image, *frozen))(images)
        return jnp.sum(losses * present) / jnp.sum(present)

    return mean
