"""What every network is: an image -> features -> a linear head, for ONE image."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.networks.layers.basic import Linear


def in_type(network: PyTree, dtype: str) -> PyTree:
    """The network for images of this type. The layers of a `Backbone` take their parameters in the
    type of what they are given; those of somebody's own network are cast, all alike."""
    if dtype == "float32" or isinstance(network, Backbone):
        return network
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, network
    )


class Backbone(eqx.Module):
    """A network whose last layer is `head`. Its image is as `Input` prepares it: of the right size,
    normalized."""

    head: eqx.AbstractVar[Linear]

    def features(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        """What the head sees."""
        raise NotImplementedError

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " classes"]:
        return self.head(self.features(image).astype(jnp.float32))

    @property
    def size(self) -> int:
        """d, the number of features."""
        return self.head.weight.shape[0]

    def trunk(self) -> list[Any]:
        """The residual blocks (or layers) in the order of the forward pass, of which the last few
        may be trained."""
        raise NotImplementedError

    def ending(self) -> list[Any]:
        """What follows the last block: norms, then the head."""
        return [self.head]

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return len(self.trunk())

    def after(self, last: int) -> tuple["Backbone", Callable[["Backbone"], list[Any]]]:
        """(the same network, a selection of it): the last `last` blocks and all that follows them.

        The network may come back with another structure (stacked blocks split in two) but computes
        the same. Raises ArgumentError if it has fewer blocks.
        """
        if whole("last", last, at_least=0) > self.depth:
            raise ArgumentError("last", last, f"the network has {self.depth} blocks")
        return self, lambda network: [*network.trunk()[self.depth - last :], *network.ending()]

    def joined(self) -> "Backbone":
        """The inverse of the change of structure that `after` may make."""
        return self


class Chain(Backbone):
    """A network whose trunk is `blocks`, each of which takes the maps of the one before."""

    blocks: eqx.AbstractVar[list[Any]]

    def through(self, maps: Float[Array, "h w d"]) -> Float[Array, "a b p"]:
        """What the last block makes of what the stem has made."""
        for block in self.blocks:
            maps = block(maps)
        return maps

    def trunk(self) -> list[Any]:
        return self.blocks


def stages(depths: tuple[int, ...], widths: tuple[int, ...]) -> Iterator[tuple[int, int, bool]]:
    """(width, stride, whether it opens its stage) of every block: all stages but the first begin by
    halving the image."""
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        for index in range(depth):
            yield width, 2 if stage > 0 and index == 0 else 1, index == 0
