"""Hugging Face's ResNetForImageClassification (microsoft/resnet-18 to resnet-101)."""

from collections.abc import Iterable

from sfumato.networks.resnet import ResNet
from sfumato.weights.entries import counts_batches, linear, places
from sfumato.weights.layout import Entry
from sfumato.weights.timm_resnet import normed_conv

unused = counts_batches


def layout(network: ResNet) -> Iterable[Entry]:
    stem = "resnet.embedder.embedder"
    yield from normed_conv(network.stem, "stem", f"{stem}.convolution", f"{stem}.normalization")
    for number, (stage, index) in enumerate(places(network.design.depths)):
        block, theirs = network.blocks[number], f"resnet.encoder.stages.{stage}.layers.{index}"
        layers = {f"convs/{i}": (conv, f"layer.{i}") for i, conv in enumerate(block.convs)}
        if block.skip is not None:
            layers["skip"] = block.skip, "shortcut"
        for ours, (conv, name) in layers.items():
            yield from normed_conv(
                conv,
                f"blocks/{number}/{ours}",
                f"{theirs}.{name}.convolution",
                f"{theirs}.{name}.normalization",
            )
    yield from linear("head", "classifier.1")
