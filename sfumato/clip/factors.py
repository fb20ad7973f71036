"""From per-leaf gradient norms to the factors c_i that bound every example, for one group of leaves
or for several.

With G groups of leaves, group j of example i is scaled by c_ij so that |c_ij g_ij| <= C_j; the
whole contribution is then at most sqrt(sum_j C_j^2). One number C for G groups means C_j = C /
sqrt(G), the same total (McMahan et al. 2018).

hard:      c = min(1, C / |g|)                           Abadi et al. 2016, Alg. 1
automatic: c = C / (|g| + 0.01)                          Bu et al. 2023 (arXiv 2206.07136), AUTO-S with gamma = 0.01

An example that is masked, or whose gradient is not finite or whose squared norm overflows, gets c =
0: it can no more move the sum than any other example can.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sfumato.core.checks import choice, positive_or_infinite
from sfumato.core.errors import ArgumentError

SLACK = 1e-5
"""Norms summed in float32 are off by some 1e-6; contributions are scaled down by this much so that
none exceeds C."""

EXACT = jax.lax.Precision.HIGHEST
"""For every product after the clip: accelerators round the factors of an ordinary one to 10 or 7
bits, past any slack."""

CLIP_NORMS = (1e-10, 1e10)
"""Beyond these, squares of norms near C underflow in float32 (an example would pass unclipped) or
overflow."""

CLIPPINGS = ("hard", "automatic")
STABILITY = 0.01
Grouping = str | Callable[[str], str]


def clip_factors(
    squared_norms: Float[Array, " b"],
    mask: Bool[Array, " b"],
    clip_norm: float,
    clipping: str = "hard",
) -> Float[Array, " b"]:
    """c_i for squared gradient norms; 0 where masked or not finite. An infinite clip_norm clips nothing."""
    norms = jnp.sqrt(squared_norms) * (1 + SLACK)
    if clip_norm == math.inf:
        factors = jnp.ones_like(norms)
    else:
        bounds = norms + STABILITY if clipping == "automatic" else jnp.maximum(norms, clip_norm)
        factors = clip_norm / bounds
    return jnp.where(mask & jnp.isfinite(squared_norms), factors, 0.0)


@dataclass(frozen=True)
class Clipper:
    """of_leaf: the group of each leaf. norms: C_j of each group."""

    of_leaf: tuple[int, ...]
    norms: tuple[float, ...]
    clipping: str

    def __call__(
        self, squared_norms: Sequence[Float[Array, " b"]], mask: Bool[Array, " b"]
    ) -> list[Float[Array, " b"]]:
        """Squared gradient norms of each leaf (upper bounds will do) -> the factors of each leaf.

        An example of which any group is not finite counts in none.
        """
        totals = [jnp.zeros(mask.shape, jnp.float32) for _ in self.norms]
        for group, squared in zip(self.of_leaf, squared_norms, strict=True):
            totals[group] = totals[group] + squared
        finite = mask & jnp.isfinite(sum(totals))
        factors = [
            clip_factors(*each, self.clipping)
            for each in zip(totals, [finite] * len(totals), self.norms, strict=True)
        ]
        return [factors[group] for group in self.of_leaf]

    def share_group(self, leaves: Sequence[int]) -> bool:
        """Have these leaves the same factors?"""
        return len({self.of_leaf[leaf] for leaf in leaves}) == 1


def make_clipper(
    names: Sequence[str], clip_norm: float | Mapping[str, float], groups: Grouping, clipping: str
) -> Clipper:
    """For leaves of these names. Raises ArgumentError if the groups and the clip norms do not
    match."""
    own = [group_of(name, groups) for name in names]
    found = list(dict.fromkeys(own))
    if isinstance(clip_norm, Mapping):
        if set(clip_norm) != set(found):
            raise ArgumentError(
                "clip_norm",
                sorted(clip_norm),
                f"name the groups of the parameters, which are {sorted(found)}; groups= of clipped_grad divides them",
            )
        norms = [float(clip_norm[group]) for group in found]
    else:
        norms = [float(clip_norm) / math.sqrt(len(found))] * len(found)
    return Clipper(tuple(found.index(group) for group in own), tuple(norms), clipping)


def group_of(name: str, groups: Grouping) -> str:
    """The group of a leaf. "flat": one for all. "per_layer": leaves side by side, such as a kernel
    and its bias."""
    if groups == "flat":
        return "all"
    if groups == "per_layer":
        return name.removesuffix("/value").rpartition("/")[
            0
        ]  # flax.nnx wraps each array in a `value`
    assert callable(groups)
    group = groups(name)
    if not isinstance(group, str):
        raise ArgumentError(
            "groups", group, f"let groups({name!r}) return the name of a group, a string"
        )
    return group


def total_norm(clip_norm: float | Mapping[str, float]) -> float:
    """The bound on one example's contribution to all groups together."""
    return math.hypot(*clip_norm.values()) if isinstance(clip_norm, Mapping) else float(clip_norm)


def normalizer(clip_norm: float | Mapping[str, float], normalized: bool) -> float:
    """What a sum is divided by: C where it is normalized and clipped at all."""
    total = total_norm(clip_norm)
    return total if normalized and total < math.inf else 1.0


def check_clipping(clip_norm: float | Mapping[str, float], groups: Grouping, clipping: str) -> None:
    """Raise ArgumentError for what no parameters could make right."""
    choice("clipping", clipping, CLIPPINGS)
    if not callable(groups):
        choice("groups", groups, ("flat", "per_layer"))
    if isinstance(clip_norm, Mapping) and not clip_norm:
        raise ArgumentError("clip_norm", clip_norm, "name at least one group")
    for each in clip_norm.values() if isinstance(clip_norm, Mapping) else [clip_norm]:
        check_clip_norm(each)


def check_clip_norm(clip_norm: float) -> None:
    """Raise ArgumentError unless norms can be compared with it in float32, or nothing is clipped."""
    positive_or_infinite("clip_norm", clip_norm)
    if clip_norm < math.inf and not CLIP_NORMS[0] <= clip_norm <= CLIP_NORMS[1]:
        raise ArgumentError(
            "clip_norm", clip_norm, f"give a number from {CLIP_NORMS[0]:g} to {CLIP_NORMS[1]:g}"
        )
