"""ConvNeXt as timm names it (convnext_*)."""

from collections.abc import Callable, Iterable

import numpy as np

from sfumato.networks.backbone import Backbone
from sfumato.networks.convnext import Block, ConvNeXt
from sfumato.weights.layout import Entry, depthwise, same, transposed
from sfumato.weights.transformer_parts import patches


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a ConvNeXt."""
    assert isinstance(network, ConvNeXt)
    yield from _pair("stem/dense", "weight", "stem.0", patches)
    yield from _pair("stem_norm", "scale", "stem.1", same)
    stage = index = 0
    for number, layer in enumerate(network.layers):
        ours = f"layers/{number}"
        if isinstance(layer, Block):
            yield from _block(ours, f"stages.{stage}.blocks.{index}")
            index += 1
        else:
            stage, index = stage + 1, 0
            yield from _pair(f"{ours}/norm", "scale", f"stages.{stage}.downsample.0", same)
            yield from _pair(
                f"{ours}/patches/dense", "weight", f"stages.{stage}.downsample.1", patches
            )
    yield from _pair("norm", "scale", "head.norm", same)
    yield from _pair("head", "weight", "head.fc", transposed)


def unused(name: str) -> bool:
    return False


def _block(ours: str, theirs: str) -> Iterable[Entry]:
    yield from _pair(f"{ours}/depthwise", "kernel", f"{theirs}.conv_dw", depthwise)
    yield from _pair(f"{ours}/norm", "scale", f"{theirs}.norm", same)
    yield from _pair(f"{ours}/widen", "weight", f"{theirs}.mlp.fc1", transposed)
    yield from _pair(f"{ours}/narrow", "weight", f"{theirs}.mlp.fc2", transposed)
    yield Entry(f"{ours}/scale", (f"{theirs}.gamma",), same)


def _pair(
    ours: str, leaf: str, theirs: str, convert: Callable[[np.ndarray], np.ndarray]
) -> Iterable[Entry]:
    """A layer's weight, which is our leaf `leaf`, and its bias."""
    yield Entry(f"{ours}/{leaf}", (f"{theirs}.weight",), convert)
    yield Entry(f"{ours}/{'shift' if leaf == 'scale' else 'bias'}", (f"{theirs}.bias",), same)
