"""What the layouts of inverted residual networks share: convolutions in a row, each with a BatchNorm
behind it, and a padding that their shapes do not tell."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sfumato.core.errors import WeightsError
from sfumato.networks.backbone import Backbone
from sfumato.networks.layers.convolutions import Padding
from sfumato.networks.mobilenet import InvertedResiduals
from sfumato.weights.entries import folded_conv, linear
from sfumato.weights.layout import Entry, depthwise, kernel, pointwise

Pair = tuple[str, str]
"""A convolution's name in the file, and that of the BatchNorm behind it."""


def convolutions(network: InvertedResiduals) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """(layer, its leaf, how a kernel of PyTorch's becomes that leaf), in the order of the forward
    pass."""
    yield "stem", "kernel", kernel
    for number, block in enumerate(network.blocks):
        if block.expand is not None:
            yield f"blocks/{number}/expand", "weight", pointwise
        yield f"blocks/{number}/depthwise", "kernel", depthwise
        yield f"blocks/{number}/project", "weight", pointwise
    yield "last", "weight", pointwise


def folded(
    network: Backbone,
    pairs: Callable[[InvertedResiduals], Iterable[Pair]],
    head: str,
    epsilon: float,
) -> Iterator[Entry]:
    """Every leaf, with each BatchNorm folded into its convolution. head: the last layer's name."""
    assert isinstance(network, InvertedResiduals)
    rows = zip(convolutions(network), pairs(network), strict=True)
    for (layer, leaf, convert), (conv, norm) in rows:
        yield from folded_conv(layer, conv, norm, epsilon, leaf, convert)
    yield from linear("head", head)


def padded_as(network: Backbone, padding: Padding, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries, of which the stem's refuses when it is converted for a network of the other
    padding: that fits all shapes, and costs nine points of accuracy."""
    assert isinstance(network, InvertedResiduals)
    for entry in entries:
        wrong = entry.ours == "stem/kernel" and network.stem.padding != padding
        yield replace(entry, convert=_refusal(padding)) if wrong else entry


def _refusal(padding: Padding) -> Callable[..., Any]:
    def refuse(*arrays: np.ndarray) -> np.ndarray:
        raise WeightsError(f"they were trained with {padding} padding")

    return refuse
