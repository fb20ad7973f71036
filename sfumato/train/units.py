"""The loss of a unit of several images: the mean over those that are there, taken before the clip."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def unit_loss(loss: Callable[[PyTree, PyTree], Float[Array, ""]]) -> Callable[[PyTree, PyTree], Float[Array, ""]]:
    """loss of one image -> loss of one unit, (params, (images, present)) -> scalar; see `data.units.Units.fetch`.

    What stands in padded places is replaced by the unit's first image, which is real, so it can add nothing, not even NaN.
    """

    def mean(params: PyTree, unit: PyTree) -> Float[Array, ""]:
        images, present = unit
        losses = jax.vmap(lambda image: loss(params, image))(images)
        return jnp.sum(losses * present) / jnp.sum(present)

    return mean
