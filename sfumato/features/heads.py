"""What sits between a row of features and the class scores."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sfumato.features.feature_map import FeatureMap, Group, roots, unit
from sfumato.networks.layers.basic import Linear

CONSTANT = 0.1
"""What `Sphere` puts behind every row; it takes one hundredth of the squared norm from the
features."""


class Centering(eqx.Module):
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
        return unit(
            jnp.concatenate(
                [jnp.einsum("fk,fkl->fl", block, matrix).ravel() for block, matrix in cut]
            )
        )


class Kept(eqx.Module):
    """Zeros where a column is not kept, then the whole row back to norm 1."""

    columns: Float[Array, " d"]

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " d"]:
        return unit(row * self.columns)


class WhitenedLinear(eqx.Module):
    """Centering, whitening, then a linear layer: row -> class scores."""

    centering: Centering
    whitening: Whitening
    linear: Linear

    @classmethod
    def zeros(cls, groups: Sequence[Group], classes: int) -> "WhitenedLinear":
        """No mean, identity matrices, no weights."""
        d, own = sum(group.size for group in groups), tuple(groups)
        eyes = [
            jnp.tile(jnp.eye(group.channels, dtype=jnp.float32), (group.frequencies, 1, 1))
            for group in groups
        ]
        return cls(Centering(jnp.zeros(d), own), Whitening(eyes, own), Linear.zeros(d, classes))

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " classes"]:
        return self.linear(self.whitening(self.centering(row)))


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
    scaled = [
        unit(block.ravel()) * group.weight**0.5 for block, group in zip(cut, groups, strict=True)
    ]
    return jnp.concatenate(scaled)


class Sphere(eqx.Module):
    """A row of features from anywhere -> a row of norm at most 1: rooted, shifted and turned by
    public numbers, brought to norm 1, centered by a mean that was paid for, brought to norm 1
    again, and a constant put behind it for the intercept.

    A row that is not finite becomes zeros (and the constant). shift, projection: from public
    features. rooted: each number x becomes sign(x) sqrt|x|, which evens out features of very
    different size (Perronnin et al. 2010).
    """

    shift: Float[Array, " d"]
    projection: Float[Array, "d k"] | None
    mean: Float[Array, " k"]
    rooted: bool = eqx.field(static=True, default=False)

    @classmethod
    def plain(cls, d: int, rooted: bool = False) -> "Sphere":
        return cls(jnp.zeros(d), None, jnp.zeros(d), rooted)

    @classmethod
    def shaped(cls, kind: str, d: int) -> "Sphere":
        """Zeros in the structure that `kind` names, for rows of d features."""
        words = kind.split()[1:]
        k = next((int(word) for word in words if word.isdigit()), None)
        rooted = "rooted" in words
        return (
            cls.plain(d, rooted)
            if k is None
            else cls(jnp.zeros(d), jnp.zeros((d, k)), jnp.zeros(k), rooted)
        )

    @property
    def kind(self) -> str:
        """What `shaped` needs to know: "sphere", and if so "rooted" and the number of public
        directions."""
        words = ["sphere", *["rooted"] * self.rooted]
        return " ".join(
            words if self.projection is None else [*words, str(self.projection.shape[1])]
        )

    @property
    def size(self) -> int:
        """Length of a row that comes out: k and the constant."""
        return self.mean.shape[0] + 1

    def turned(self, row: Float[Array, " d"]) -> Float[Array, " k"]:
        """The part before centering, of norm 1."""
        row = row.astype(jnp.float32)
        row = jnp.where(jnp.all(jnp.isfinite(row)), row, 0.0)  # a maximum may pass over a NaN
        if self.rooted:
            row = roots(row)
        row = row - self.shift
        if self.projection is not None:
            row = row @ self.projection
        return unit(
            row / jnp.maximum(jnp.max(jnp.abs(row)), 1e-30)
        )  # squares of numbers near float32's limit would overflow

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " k1"]:
        centered = unit(self.turned(row) - self.mean)
        return jnp.append(centered * (1 - CONSTANT**2) ** 0.5, CONSTANT)


class SphereLinear(eqx.Module):
    """A sphere, then a linear layer: row -> class scores."""

    sphere: Sphere
    linear: Linear

    def __call__(self, row: Float[Array, " d"]) -> Float[Array, " classes"]:
        return self.linear(self.sphere(row))
