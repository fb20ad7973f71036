"""timm's resnetv2_*: BatchNorm, GroupNorm, or Big Transfer's."""

from collections.abc import Iterable

from sfumato.networks.layers.basic import Affine
from sfumato.networks.resnetv2 import ResNetV2
from sfumato.weights.entries import bare_conv, counts_batches, folded_norm, linear, norm, places
from sfumato.weights.layout import Entry, pointwise

unused = counts_batches


def layout(network: ResNetV2) -> Iterable[Entry]:
    a_norm = folded_norm if isinstance(network.norm, Affine) else norm
    yield from bare_conv("stem", "stem.conv")
    for number, (stage, index) in enumerate(places(network.design.depths)):
        ours, theirs = f"blocks/{number}", f"stages.{stage}.blocks.{index}"
        block = network.blocks[number]
        for i in range(len(block.convs)):
            yield from a_norm(f"{ours}/norms/{i}", f"{theirs}.norm{i + 1}")
            yield from bare_conv(f"{ours}/convs/{i}", f"{theirs}.conv{i + 1}")
        if block.skip is not None:
            yield from bare_conv(f"{ours}/skip", f"{theirs}.downsample.conv")
    yield from a_norm("norm", "norm")
    yield from linear("head", "head.fc", pointwise)
