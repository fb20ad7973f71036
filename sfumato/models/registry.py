"""Model names -> models for one example. A model is either fixed features (with a head trained on them) or a network."""

import re
from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.models.cnn import SmallCNN
from sfumato.models.feature_map import FeatureMap, Given, Joined
from sfumato.models.heads import OnFeatures, Sphere, SphereLinear, WhitenedLinear
from sfumato.models.layers import Linear
from sfumato.models.patches import Patches
from sfumato.models.scattering import PlainScattering, Scattering
from sfumato.models.wrn import WideResNet

FEATURES = ("patches+scattering", "patches", "scattering", "scatternet")
GIVEN = "rows"
"""The model of those who bring their own features."""
NETWORKS = ("cnn", "wrn-16-4")

Shape = tuple[int, int, int]


def is_features(name: str) -> bool:
    return name in FEATURES or name == GIVEN


def check(name: str) -> str:
    """Raise ArgumentError unless `build` or `features` knows the name."""
    if not (is_features(name) or name == "cnn" or _wrn(name)):
        raise ArgumentError("model", name, f"choose one of {', '.join(FEATURES + NETWORKS)}, or wrn-DEPTH-WIDTH")
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


def network(name: str, shape: Shape, classes: int, key: PRNGKeyArray) -> eqx.Module:
    """A network with random initial weights: image -> class scores."""
    if name == "cnn":
        return SmallCNN(shape, classes, key)
    if size := _wrn(name):
        return WideResNet(shape[2], classes, key, *size)
    raise ArgumentError("model", name, f"networks are {', '.join(NETWORKS)}, or wrn-DEPTH-WIDTH")


def skeleton(name: str, head: str | None, shape: Shape, classes: int) -> eqx.Module:
    """An image -> scores model of the right structure, to be filled with saved arrays."""
    if not is_features(name):
        return network(name, shape, classes, jax.random.key(0))
    fixed = features(name, shape)
    if head == "sphere":
        d = feature_size(name, shape)
        return OnFeatures(fixed, SphereLinear(Sphere.plain(d), Linear.zeros(d + 1, classes)))
    if head == "whitened":
        return OnFeatures(fixed, WhitenedLinear.zeros(fixed.groups, classes))
    return OnFeatures(fixed, Linear.zeros(feature_size(name, shape), classes))


def _wrn(name: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    return (int(found[1]), int(found[2])) if found else None
