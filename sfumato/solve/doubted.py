"""Features that tell classes apart in some data sets, and in all others only take norm from the rest and
bring noise. Which kind a data set is of is seen in what dp-fc releases anyway.

Its first gradient G, at W = 0, is a sum over rows of x (1/C - e_y)^T, each clipped to norm c: where classes
are about equally frequent, what the means of their rows differ by. In columns F that tell nothing by their
means, with the mean over classes removed (it is noise alone), it is

    noise     of deviation s in each of f = |F| (C - 1) directions, of f = |F| C for findings: energy
              s^2 f, with deviation s^2 sqrt(2 f);
    chance    n terms of either sign: energy n c^2 in all columns. F is taken to have |F| / d of it, as
              whitened columns have about as much each.

Columns are kept where the energy |G_F|^2 is above both and `proof` deviations: at 4, noise alone is in
one of some thousand runs at most. After a release whatever is done with it is free (Dwork & Roth 2014,
Prop. 2.1). Where classes are very unequal, or for findings, a mean that all rows share in F and that the
released mean did not take away counts as proof, too; that costs accuracy, not privacy.

The others become zeros, and the rest of the row takes their norm.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from sfumato.features.feature_map import Group
from sfumato.features.heads import blocks


def columns(group: Group) -> Float[np.ndarray, "f k"]:
    """1 for each column of the group that is doubted, else 0."""
    found = np.zeros((group.frequencies, group.channels), np.float32)
    found[group.frequencies - group.doubted :] = 1
    return found


def kept(
    gradient: Float[Array | np.ndarray, "p c"],
    noise: float,
    chance: float,
    groups: Sequence[Group],
    proof: float,
    free: float = 1.0,
) -> Float[np.ndarray, " d"]:
    """1 for each column that is kept, else 0.

    gradient: the first one, centered, a row for each column and perhaps one for an intercept. noise: of
    its release, the deviation of each entry. chance: n c^2. free: f / (|F| C).
    """
    found, start = [], 0
    d = sum(group.size for group in groups)
    for group in groups:
        doubted = columns(group).ravel()
        own = np.asarray(gradient[start : start + group.size], np.float64)[doubted > 0]
        f = free * own.size
        edge = noise**2 * (f + proof * math.sqrt(2 * f)) + chance * len(own) / d
        found.append(1 - doubted * (np.sum(own**2) <= edge))
        start += group.size
    return np.concatenate(found).astype(np.float32)


def without(
    matrices: Sequence[Float[Array, "_ _ _"]], which: Float[Array, " d"], groups: Sequence[Group]
) -> list[Float[Array, "_ _ _"]]:
    """Whitening that leaves out what is not kept; whole frequencies are."""
    cut = zip(matrices, blocks(which, groups), strict=True)
    return [matrix * own[:, :1, None] for matrix, own in cut]
