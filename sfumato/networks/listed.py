"""What `sfumato models` tells of each network, written down in listed.json: to import the networks
takes seconds, to count them many more. A test makes and counts every one again.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

FEATURES = (
    "centered-cells+patches+handed-if-shown",
    "centered-cells+handed-if-shown",
    "centered-cells+patches+scattering",
    "centered-cells+patches+handed",
    "centered-cells+scattering",
    "centered-cells+handed",
    "centered-cells",
    "centered-patches",
    "centered-scattering",
    "centered-handed",
    "cells",
    "patches",
    "scattering",
    "scatternet",
)
"""The fixed features without weights, by name."""
EARLIER_FEATURES = (
    "patches+scattering",
    "encoder",
    "encoder+patches+scattering",
    "sides",
    "cells+scattering",
    "cells+scattering+sides",
    "cells+patches+scattering",
    "cells+patches+scattering+sides",
)
"""Those of earlier versions, which are taken and read, too."""
SMALL_SHAPE, SMALL_CLASSES = (32, 32, 3), 10
"""The images and classes (of CIFAR-10) with which networks for any size are counted."""
CLASSES = 1_000
"""The classes (of ImageNet) with which the others are counted."""


@dataclass(frozen=True)
class Listed:
    """parameters: with the head. multiply_adds: of the forward pass of one image. features: which
    the head sees. depth: blocks. shape: of the image it is counted for. any_size: it takes others,
    too. classes: with which it is counted.
    """

    name: str
    family: str
    parameters: int
    multiply_adds: int
    features: int
    depth: int
    shape: tuple[int, int, int]
    any_size: bool
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    weights: tuple[str, ...]

    @property
    def trunk(self) -> int:
        """Parameters without those of the head."""
        return self.parameters - (self.features + 1) * self.classes


@cache
def listed() -> dict[str, Listed]:
    """By name, in the catalog's order."""
    rows = json.loads((resources.files("sfumato.networks") / "listed.json").read_text())
    lists = ("shape", "mean", "std", "weights")
    return {row["name"]: Listed(**row | {name: tuple(row[name]) for name in lists}) for row in rows}
