"""MobileNetV2 from TensorFlow with its norms folded:
`features.K.{expand,depthwise,project}.{weight,bias}`, `classifier`."""

from collections.abc import Iterable, Iterator

from sfumato.networks.backbone import Backbone
from sfumato.networks.mobilenet import InvertedResiduals
from sfumato.weights.entries import counts_batches, linear
from sfumato.weights.inverted_parts import convolutions, padded_as
from sfumato.weights.layout import Entry, same

unused = counts_batches


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a MobileNetV2. Filling raises WeightsError if the network does not pad as
    TensorFlow does."""
    assert isinstance(network, InvertedResiduals)
    return padded_as(network, "SAME", _entries(network))


def _entries(network: InvertedResiduals) -> Iterator[Entry]:
    ends = {"stem": "features.0", "last": f"features.{len(network.blocks) + 1}"}
    for layer, leaf, convert in convolutions(network):
        theirs = ends.get(layer) or _in_block(layer)
        yield Entry(f"{layer}/{leaf}", (f"{theirs}.weight",), convert)
        yield Entry(f"{layer}/bias", (f"{theirs}.bias",), same)
    yield from linear("head", "classifier")


def _in_block(layer: str) -> str:
    """blocks/0/expand -> features.1.expand"""
    _, number, part = layer.split("/")
    return f"features.{int(number) + 1}.{part}"
