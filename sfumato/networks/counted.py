"""How large the networks of the catalog are and how much they compute.

Counting all of them takes half a minute, so the counts lie in counted.json, which
`python -m sfumato.networks.counted` writes; a test counts every network again.
"""

import json
from pathlib import Path
from typing import NamedTuple

from sfumato.networks.architecture import Architecture, Shape
from sfumato.networks.catalog import architectures
from sfumato.networks.image_cost import forward_cost, outline, parameters

SMALL_SHAPE, SMALL_CLASSES = (32, 32, 3), 10
"""The images and classes (of CIFAR-10) with which networks for any size are counted."""
CLASSES = 1_000
"""The classes (of ImageNet) with which the others are counted."""


class Count(NamedTuple):
    """parameters: with the head. multiply_adds: of the forward pass of one image. features: which
    the head sees. depth: blocks.
    """

    parameters: int
    multiply_adds: int
    features: int
    depth: int


def counted_for(architecture: Architecture) -> tuple[Shape, int]:
    """The shape of the image and the number of classes with which it is counted."""
    given = architecture.input
    return given.shape(SMALL_SHAPE), SMALL_CLASSES if given.size is None else CLASSES


def count(architecture: Architecture) -> Count:
    """Without drawing a weight: a second for the largest."""
    shape, classes = counted_for(architecture)
    network = outline(architecture, shape, classes)
    return Count(parameters(network), forward_cost(network, shape), network.size, network.depth)


_TABLE = Path(__file__).with_name("counted.json")
COUNTED = {name: Count(*row) for name, row in json.loads(_TABLE.read_text()).items()}


def write() -> None:
    """Count every network of the catalog anew: `python -m sfumato.networks.counted`."""
    rows = [
        f"  {json.dumps(name)}: {json.dumps(count(each))}" for name, each in architectures().items()
    ]
    _TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    write()
