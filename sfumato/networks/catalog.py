"""All networks by name."""

import re
from functools import cache

from sfumato.networks import cnn, convnext, mobilenet, nfnet, resnet, resnetv2, vit, wrn
from sfumato.networks.architecture import Architecture
from sfumato.networks.naming import full_name

_FAMILIES = (cnn, wrn, resnet, resnetv2, nfnet, mobilenet, vit, convnext)


@cache
def architectures() -> dict[str, Architecture]:
    """Name -> architecture, for those that have a name of their own."""
    return {each.name: each for family in _FAMILIES for each in family.ARCHITECTURES}


def find(name: str) -> Architecture:
    """The architecture of that name or short name (`naming.py`), also wrn-DEPTH-WIDTH of any size.
    Raises ArgumentError."""
    if found := named(name):
        return found
    return architectures()[full_name(name, architectures())]


def named(name: str) -> Architecture | None:
    """The architecture that has exactly this name, None if there is none. Raises ArgumentError for
    a depth that cannot be."""
    if name in architectures():
        return architectures()[name]
    if found := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return wrn.architecture(int(found[1]), int(found[2]))
    return None
