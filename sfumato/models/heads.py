"""What sits between a row of features and the class scores."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sfumato.models.feature_map import FeatureMap, Group, unit
from sfumato.models.layers import Linear


class Whitening(eqx.Module):
    """One symmetric K x K matrix per group and frequency, then each group back to norm sqrt(weight); rows of norm <= 1."""

    matrices: list[Float[Array, "f k k"]]
    groups: tuple[Group, ...] = eqx.field(static=True)

    @classmethod
    def identity(cls, groups: Sequence[Group]) -> "Whitening":
        eyes = [jnp.tile(jnp.eye(group.channels, dtype=jnp.float32), (group.frequencies, 1, 1)) for group in groups]
        return cls(eyes, tuple(groups))

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " d"]:
        parts = []
        for block, matrix, group in zip(blocks(row, self.groups), self.matrices, self.groups, strict=True):
            white = jnp.einsum("fk,fkl->fl", block, matrix)
            parts.append(unit(white.ravel()) * group.weight**0.5)
        return jnp.concatenate(parts)


class WhitenedLinear(eqx.Module):
    """Whitening, then a linear layer: row -> class scores."""

    whitening: Whitening
    linear: Linear

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " classes"]:
        return self.linear(self.whitening(row))


class OnFeatures(eqx.Module):
    """A frozen feature map and a head: image -> class scores."""

    features: FeatureMap
    head: eqx.Module

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " classes"]:
        return self.head(self.features(image))  # type: ignore[operator]


def blocks(row: Float[Array, " d"], groups: Sequence[Group]) -> list[Float[Array, "f k"]]:
    """The row cut into its groups, each as frequencies x channels."""
    parts, start = [], 0
    for group in groups:
        parts.append(row[start : start + group.size].reshape(group.frequencies, group.channels))
        start += group.size
    return parts
