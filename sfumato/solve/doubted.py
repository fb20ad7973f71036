"""Features that tell classes apart in some data sets, and in all others only take norm from the rest and
bring noise. Which kind a data set is of is seen in what dp-fc releases anyway.

Its first gradient, at W = 0, is a sum over rows of x (1/C - e_y)^T, each clipped to norm c: what the means
of the classes' rows differ by. In columns F that tell nothing by their means it is

    noise     of deviation s in each entry: energy s^2 |F| C, with deviation s^2 sqrt(2 |F| C);
    chance    n terms of either sign: energy at most n c^2, of which F's part of the columns is |F| / d
              (whitened columns have about as much each).

Columns are kept where the energy |G_F|^2 is above both and `proof` deviations: at 4, noise alone is in
one of some thousand runs at most. After a release whatever is done with it is free (Dwork & Roth 2014,
Prop. 2.1).

The others become zeros, and the rest of the row takes their norm.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sfumato.features.feature_map import Group


def columns(group: Group) -> Float[np.ndarray, "f k"]:
    """1 for each column of the group that is doubted, else 0."""
    found = np.zeros((group.frequencies, group.channels), np.float32)
    found[group.frequencies - group.doubted :] = 1
    return found


def kept(
    released: Float[Array | np.ndarray, "d c"],
    noise: float,
    chance: float,
    groups: Sequence[Group],
    proof: float,
) -> Float[np.ndarray, " d"]:
    """1 for each column that is kept, else 0. released: the first gradient, whose noise has that
    deviation in each entry. chance: the energy n c^2 of terms of either sign in all columns."""
    found, start = [], 0
    for group in groups:
        doubted = columns(group).ravel()
        own = np.asarray(released[start : start + group.size], np.float64)[doubted > 0]
        edge = noise**2 * (own.size + proof * math.sqrt(2 * own.size))
        edge += chance * len(own) / len(released)
        found.append(1 - doubted * (np.sum(own**2) <= edge))
        start += group.size
    return np.concatenate(found).astype(np.float32)


def without(
    matrices: Sequence[Float[Array, "_ _ _"]], which: Float[Array, " d"], groups: Sequence[Group]
) -> list[Float[Array, "_ _ _"]]:
    """Whitening that leaves out what is not kept; whole frequencies are."""
    found, start = [], 0
    for group, matrix in zip(groups, matrices, strict=True):
        own = which[start : start + group.size].reshape(group.frequencies, group.channels)
        found.append(matrix * jnp.asarray(own[:, :1, None]))
        start += group.size
    return found
