"""All networks by name."""

import re
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from sfumato.core import plugins
from sfumato.core.errors import ArgumentError
from sfumato.networks import (
    cnn,
    convnext,
    efficientnet,
    mobilenet,
    nfnet,
    resnet,
    resnetv2,
    vit,
    wrn,
)
from sfumato.networks.architecture import Architecture, Shape
from sfumato.networks.naming import full_name

_FAMILIES = (cnn, wrn, resnet, resnetv2, nfnet, mobilenet, efficientnet, vit, convnext)


@cache
def architectures() -> dict[str, Architecture]:
    """Name -> architecture, for those that have a name of their own."""
    return {each.name: each for family in _FAMILIES for each in family.ARCHITECTURES}


def find(name: str) -> Architecture:
    """The architecture of that name or short name (`naming.py`), also wrn-DEPTH-WIDTH of any size
    (with -norm-first behind it: norm, then ReLU), and package.module:function from outside (`core/plugins.py`). Raises ArgumentError."""
    if found := named(name):
        return found
    return architectures()[full_name(name, architectures())]


def named(name: str) -> Architecture | None:
    """The architecture that has exactly this name, None if there is none. Raises ArgumentError for
    a depth that cannot be."""
    if name in architectures():
        return architectures()[name]
    if found := re.fullmatch(rf"wrn-(\d+)-(\d+)({wrn.NORM_FIRST})?", name):
        return wrn.architecture(int(found[1]), int(found[2]), norm_first=found[3] is not None)
    if plugins.is_name(name):
        return _from_outside(name)
    return None


def _from_outside(name: str) -> Architecture:
    """function(shape, classes, key) -> a network of ONE image, an Equinox module or another callable
    tree of arrays; its image has pixels from -2 to 2, as `Input` prepares them."""
    make = plugins.find("model", name)

    def checked(shape: Shape, classes: int, key: PRNGKeyArray) -> PyTree:
        with plugins.running("model", name):
            network = make(shape, classes, key)
            scores = eqx.filter_eval_shape(network, jax.ShapeDtypeStruct(shape, jnp.float32))
        if getattr(scores, "shape", None) != (classes,):
            raise ArgumentError(
                "model", name, f"its network must give {classes} scores for one image, not {scores}"
            )
        return network

    return Architecture(name, "outside", checked)
