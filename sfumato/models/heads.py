"""What sits between a row of features and the class scores."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sfumato.models.feature_map import FeatureMap, Group, unit
from sfumato.models.layers import Linear


class Centring(eqx.Module):
    """Subtract a mean, then each group back to norm sqrt(weight)."""

    mean: Float[Array, " d"]
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " d"]:
        return unit_groups(blocks(row - self.mean, self.groups), self.groups)


class Whitening(eqx.Module):
    """One symmetric K x K matrix per group and frequency, then the whole row back to norm 1."""

    matrices: list[Float[Array, "_ _ _"]]
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " d"]:
        cut = zip(blocks(row, self.groups), self.matrices, strict=True)
        return unit(jnp.concatenate([jnp.einsum("fk,fkl->fl", block, matrix).ravel() for block, matrix in cut]))


class WhitenedLinear(eqx.Module):
    """Centring, whitening, then a linear layer: row -> class scores."""

    centring: Centring
    whitening: Whitening
    linear: Linear

    @classmethod
    def zeros(cls, groups: Sequence[Group], classes: int) -> "WhitenedLinear":
        """No mean, identity matrices, no weights."""
        d, own = sum(group.size for group in groups), tuple(groups)
        eyes = [jnp.tile(jnp.eye(group.channels, dtype=jnp.float32), (group.frequencies, 1, 1)) for group in groups]
        return cls(Centring(jnp.zeros(d), own), Whitening(eyes, own), Linear.zeros(d, classes))

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " classes"]:
        return self.linear(self.whitening(self.centring(row)))


class OnFeatures(eqx.Module):
    """A frozen feature map and a head: image -> class scores."""

    features: FeatureMap
    head: eqx.Module

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " classes"]:
        return self.head(self.features(image))  # type: ignore[operator]


def blocks(row: Float[Array, " d"], groups: Sequence[Group]) -> list[Float[Array, "_ _"]]:
    """The row cut into its groups, each as frequencies x channels."""
    parts, start = [], 0
    for group in groups:
        parts.append(row[start : start + group.size].reshape(group.frequencies, group.channels))
        start += group.size
    return parts


def unit_groups(cut: Sequence[Float[Array, "_ _"]], groups: Sequence[Group]) -> Float[Array, " d"]:
    """The groups joined to a row, each scaled to norm sqrt(weight) (a group of zeros stays zero)."""
    scaled = [unit(block.ravel()) * group.weight**0.5 for block, group in zip(cut, groups, strict=True)]
    return jnp.concatenate(scaled)
