"""MobileNetV2 from TensorFlow with its norms folded:
`features.K.{expand,depthwise,project}.{weight,bias}`, `classifier`."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sfumato.core.errors import WeightsError
from sfumato.networks.backbone import Backbone
from sfumato.networks.layers.convolutions import Padding
from sfumato.networks.mobilenet import MobileNetV2
from sfumato.weights.layout import Entry, depthwise, kernel, pointwise, same, transposed


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a MobileNetV2. Filling raises WeightsError if the network does not pad as
    TensorFlow does."""
    assert isinstance(network, MobileNetV2)
    yield from _layer("stem", "kernel", "features.0", padded_as(network, "SAME", kernel))
    for number, block in enumerate(network.blocks):
        ours, theirs = f"blocks/{number}", f"features.{number + 1}"
        if block.expand is not None:
            yield from _layer(f"{ours}/expand", "weight", f"{theirs}.expand", pointwise)
        yield from _layer(f"{ours}/depthwise", "kernel", f"{theirs}.depthwise", depthwise)
        yield from _layer(f"{ours}/project", "weight", f"{theirs}.project", pointwise)
    yield from _layer("last", "weight", f"features.{len(network.blocks) + 1}", pointwise)
    yield from _layer("head", "weight", "classifier", transposed)


def unused(name: str) -> bool:
    return False


def _layer(
    ours: str, leaf: str, theirs: str, convert: Callable[..., np.ndarray]
) -> Iterable[Entry]:
    yield Entry(f"{ours}/{leaf}", (f"{theirs}.weight",), convert)
    yield Entry(f"{ours}/bias", (f"{theirs}.bias",), same)


def padded_as(
    network: MobileNetV2, padding: Padding, convert: Callable[..., Any]
) -> Callable[..., Any]:
    """convert, or a refusal when it is called: the other padding fits all shapes, and costs nine
    points of accuracy."""
    if network.stem.padding == padding:
        return convert

    def refuse(*arrays: np.ndarray) -> np.ndarray:
        raise WeightsError(f"they were trained with {padding} padding")

    return refuse
