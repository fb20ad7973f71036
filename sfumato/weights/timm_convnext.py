"""ConvNeXt as timm names it (convnext_*)."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.networks.convnext import Block, ConvNeXt
from sfumato.weights.entries import counts_batches, linear, norm
from sfumato.weights.layout import Entry, depthwise, same
from sfumato.weights.transformer_parts import patches

unused = counts_batches


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a ConvNeXt."""
    assert isinstance(network, ConvNeXt)
    yield from linear("stem/dense", "stem.0", patches)
    yield from norm("stem_norm", "stem.1")
    stage = index = 0
    for number, layer in enumerate(network.layers):
        ours = f"layers/{number}"
        if isinstance(layer, Block):
            yield from _block(ours, f"stages.{stage}.blocks.{index}")
            index += 1
        else:
            stage, index = stage + 1, 0
            yield from norm(f"{ours}/norm", f"stages.{stage}.downsample.0")
            yield from linear(f"{ours}/patches/dense", f"stages.{stage}.downsample.1", patches)
    yield from norm("norm", "head.norm")
    yield from linear("head", "head.fc")


def _block(ours: str, theirs: str) -> Iterable[Entry]:
    yield Entry(f"{ours}/depthwise/kernel", (f"{theirs}.conv_dw.weight",), depthwise)
    yield Entry(f"{ours}/depthwise/bias", (f"{theirs}.conv_dw.bias",), same)
    yield from norm(f"{ours}/norm", f"{theirs}.norm")
    yield from linear(f"{ours}/widen", f"{theirs}.mlp.fc1")
    yield from linear(f"{ours}/narrow", f"{theirs}.mlp.fc2")
    yield Entry(f"{ours}/scale", (f"{theirs}.gamma",), same)
