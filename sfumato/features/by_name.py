"""Model names -> models for one example. A model is either fixed features (with a head trained on
them) or a network."""

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.features.centered import Centered, public_mean
from sfumato.features.encoder import Encoder, EncoderCells
from sfumato.features.feature_map import FeatureMap, Given, Joined
from sfumato.features.frozen_network import Frozen
from sfumato.features.heads import OnFeatures, Sphere, SphereLinear, WhitenedLinear
from sfumato.features.patches import Patches
from sfumato.features.scattering import Handed, PlainScattering, Scattering, Sides
from sfumato.networks import catalog
from sfumato.networks.input import Input, Prepared
from sfumato.networks.layers.basic import Linear
from sfumato.networks.listed import EARLIER_FEATURES
from sfumato.networks.listed import FEATURES as FEATURES
from sfumato.networks.naming import full_name

GIVEN = "rows"
"""The model of those who bring their own features."""
SHARES = {
    "patches+scattering": (0.6, 0.4),
    "encoder+patches+scattering": (0.4, 0.36, 0.24),
    "cells+scattering": (0.8, 0.2),
    "cells+scattering+sides": (0.8, 0.1, 0.1),
    "cells+patches+scattering": (0.6, 0.24, 0.16),
    "cells+patches+scattering+sides": (0.55, 0.2, 0.15, 0.1),
    "cells+handed": (0.65, 0.35),
    "cells+patches+handed": (0.55, 0.2, 0.25),
    "cells+handed-if-shown": (0.8, 0.2),
    "cells+patches+handed-if-shown": (0.6, 0.24, 0.16),
}
"""Of maps that are joined by "+", of the squared norm of the row they share."""
MAPS = (*FEATURES, *EARLIER_FEATURES)
CENTERED = "centered-"
"""Before the names of maps, all of which are then rid of what drawn pictures have in common."""
IF_SHOWN = "-if-shown"
"""Behind the name of a map whose odd half dp-fc keeps only where it is seen to tell classes apart."""
Shape = tuple[int, int, int]


def is_features(name: str) -> bool:
    return name in MAPS or name == GIVEN


def check(name: str) -> str:
    """The full name of a network, or of fixed features. Raises ArgumentError for any other."""
    if is_features(name) or catalog.named(name):
        return name
    return full_name(name, catalog.architectures(), FEATURES)


@lru_cache(maxsize=8)
def features(name: str, shape: Shape) -> FeatureMap:
    """The fixed feature map of that name; a function of public numbers only."""
    colors = shape[2]
    centered = CENTERED * name.startswith(CENTERED)
    own = name.removeprefix(CENTERED)
    if own in SHARES:
        return Joined([features(centered + part, shape) for part in own.split("+")], SHARES[own])
    if centered:
        return Centered(features(own, shape), public_mean(own.removesuffix(IF_SHOWN), colors))
    match name:
        case "patches":
            return Patches(colors)
        case "scattering":
            return Scattering(colors)
        case "scatternet":
            return PlainScattering(*shape)
        case "rows":
            return Given(shape[2])
        case "sides":
            return Sides(colors)
        case "handed":
            return Handed(colors)
        case "handed-if-shown":
            return Handed(colors, doubted=True)
        case "encoder":
            return Encoder(colors)
        case "cells":
            return EncoderCells(colors)
    raise ArgumentError("model", name, f"fixed features are {', '.join(FEATURES)}")


def feature_size(name: str, shape: Shape) -> int:
    """d, the length of a row of features."""
    return jax.eval_shape(features(name, shape), jax.ShapeDtypeStruct(shape, jnp.float32)).size


def network(
    name: str, shape: Shape, classes: int, key: PRNGKeyArray, given: Input | None = None
) -> Prepared:
    """A network with random initial weights: image -> class scores. given: in place of the
    architecture's own input."""
    found = catalog.find(name)
    own = given or found.input
    return Prepared(found.make(own.shape(shape), classes, key), own)


def frozen(name: str, prepared: Prepared) -> Frozen:
    """The feature map of a network of that name."""
    return Frozen(prepared, catalog.find(name).rectified)


def skeleton(
    name: str, head: str | None, shape: Shape, classes: int, given: Input | None = None
) -> eqx.Module:
    """An image -> scores model of the right structure, to be filled with saved arrays. Without a
    head of its own kind it is a network; its arrays, and those of a frozen one, are shapes only.
    """
    fixed: FeatureMap
    if is_features(name):
        fixed = features(name, shape)
    else:
        abstract = eqx.filter_eval_shape(network, name, shape, classes, jax.random.key(0), given)
        if head is None:
            return abstract
        fixed = frozen(name, abstract)
    d = fixed.size
    if head is not None and head.startswith("sphere"):
        sphere = Sphere.shaped(head, d)
        return OnFeatures(fixed, SphereLinear(sphere, Linear.zeros(sphere.size, classes)))
    if head == "whitened":
        return OnFeatures(fixed, WhitenedLinear.zeros(fixed.groups, classes))
    return OnFeatures(fixed, Linear.zeros(d, classes))
