"""All networks by name."""

import re
from functools import cache

from sfumato.core.errors import ArgumentError
from sfumato.networks import cnn, convnext, mobilenet, nfnet, resnet, resnetv2, vit, wrn
from sfumato.networks.architecture import Architecture

_FAMILIES = (cnn, wrn, resnet, resnetv2, nfnet, mobilenet, vit, convnext)


@cache
def architectures() -> dict[str, Architecture]:
    """Name -> architecture, for those that have a name of their own."""
    return {each.name: each for family in _FAMILIES for each in family.ARCHITECTURES}


def find(name: str) -> Architecture:
    """The architecture of that name, also wrn-DEPTH-WIDTH of any size. Raises ArgumentError."""
    if name in architectures():
        return architectures()[name]
    if found := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return wrn.architecture(int(found[1]), int(found[2]))
    raise ArgumentError(
        "model",
        name,
        "no such network; there are cnn, wrn-DEPTH-WIDTH and those that `sfumato models` lists",
    )
