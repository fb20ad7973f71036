"""A network with public weights as a fixed feature map: nothing in it is trained, so its rows are
computed once."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from sfumato.features.feature_map import FeatureMap, Group, roots, unit
from sfumato.networks.input import Prepared
from sfumato.networks.layers.basic import Linear


class Frozen(FeatureMap):
    """What the network's head would see, brought to norm 1. rooted: each number x first becomes
    sign(x) sqrt|x|, which evens out features that are means of rectified maps (Perronnin et al.
    2010).
    """

    network: Prepared
    rooted: bool = eqx.field(static=True)
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, network: Prepared, rooted: bool):
        headless = Linear.zeros(network.network.size, 0)
        self.network = eqx.tree_at(lambda prepared: prepared.network.head, network, headless)
        self.rooted = rooted
        self.groups = (Group(1, network.network.size, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        row = self.network.features(image).astype(jnp.float32)
        return unit(roots(row) if self.rooted else row)
