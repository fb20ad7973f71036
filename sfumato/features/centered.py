"""Rows without what all pictures have in common.

The logarithms and square roots of responses are far from zero whatever the picture shows: 99.7 % of the
squared norm of a row of scattering coefficients of digits is the mean of all rows. What tells images
apart is left with a few thousandths of the norm that a row is granted, and a private mean, which would
take the rest away, has noise of the size of the whole row. But most of it is the same for pictures that
nobody took: their mean, subtracted before the row is brought to norm 1, costs nothing and leaves to the
private mean a hundredth (scattering, digits) to a half (cells, digits) of what it had to find.
"""

from functools import cache
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sfumato.features.feature_map import FeatureMap, Group, unit

MEANS = Path(__file__).with_name("means.safetensors")
"""Of the rows of drawn pictures, by map and colors; written by `benchmarks/encoder/means.py`."""


class Centered(FeatureMap):
    """The row of another map, minus a public mean, a unit row: of one group, as that has one norm."""

    of: FeatureMap
    mean: Float[Array, " d"]
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, of: FeatureMap, mean: Float[np.ndarray, " d"]):
        (group,) = of.groups
        self.of, self.mean, self.groups = of, jnp.asarray(mean), (group,)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        return unit(self.of(image) - self.mean)


@cache
def public_mean(name: str, colors: int) -> Float[np.ndarray, " d"]:
    """Of the rows that the map of that name gives drawn pictures."""
    from safetensors import safe_open

    with safe_open(MEANS, framework="numpy") as stored:
        return stored.get_tensor(f"{name}/{colors}")
