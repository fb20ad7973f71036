"""Model names -> models for one example. A model is either fixed features (with a head trained on them) or a network."""

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.models import catalogue
from sfumato.models.feature_map import FeatureMap, Given, Joined
from sfumato.models.heads import OnFeatures, Sphere, SphereLinear, WhitenedLinear
from sfumato.models.input import Prepared
from sfumato.models.layers import Linear
from sfumato.models.patches import Patches
from sfumato.models.scattering import PlainScattering, Scattering

FEATURES = ("patches+scattering", "patches", "scattering", "scatternet")
GIVEN = "rows"
"""The model of those who bring their own features."""
Shape = tuple[int, int, int]


def is_features(name: str) -> bool:
    return name in FEATURES or name == GIVEN


def check(name: str) -> str:
    """Raise ArgumentError unless `build` or `features` knows the name."""
    if not is_features(name):
        catalogue.find(name)
    return name


@lru_cache(maxsize=4)
def features(name: str, shape: Shape) -> FeatureMap:
    """The fixed feature map of that name; a function of public numbers only."""
    colours = shape[2]
    match name:
        case "patches":
            return Patches(colours)
        case "scattering":
            return Scattering(colours)
        case "scatternet":
            return PlainScattering(*shape)
        case "rows":
            return Given(shape[2])
        case "patches+scattering":
            return Joined((Patches(colours), Scattering(colours)), (0.6, 0.4))
    raise ArgumentError("model", name, f"fixed features are {', '.join(FEATURES)}")


def feature_size(name: str, shape: Shape) -> int:
    """d, the length of a row of features."""
    return jax.eval_shape(features(name, shape), jax.ShapeDtypeStruct(shape, jnp.float32)).size


def network(name: str, shape: Shape, classes: int, key: PRNGKeyArray) -> Prepared:
    """A network with random initial weights: image -> class scores."""
    found = catalogue.find(name)
    return Prepared(found.make(found.input.shape(shape), classes, key), found.input)


def skeleton(name: str, head: str | None, shape: Shape, classes: int) -> eqx.Module:
    """An image -> scores model of the right structure, to be filled with saved arrays."""
    if not is_features(name):
        return network(name, shape, classes, jax.random.key(0))
    fixed = features(name, shape)
    if head is not None and head.startswith("sphere"):
        sphere = Sphere.shaped(head, feature_size(name, shape))
        return OnFeatures(fixed, SphereLinear(sphere, Linear.zeros(sphere.size, classes)))
    if head == "whitened":
        return OnFeatures(fixed, WhitenedLinear.zeros(fixed.groups, classes))
    return OnFeatures(fixed, Linear.zeros(feature_size(name, shape), classes))
