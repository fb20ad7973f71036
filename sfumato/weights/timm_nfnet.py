"""timm's nf_resnet50, nfnet_f* and dm_nfnet_f*."""

from collections.abc import Iterable, Iterator

import numpy as np

from sfumato.networks.nfnet import NormFreeNet
from sfumato.weights.entries import counts_batches, linear, places
from sfumato.weights.layout import Entry, kernel, pointwise, same

unused = counts_batches


def layout(network: NormFreeNet) -> Iterable[Entry]:
    for i in range(len(network.stem)):
        yield from _conv(f"stem/{i}", f"stem.conv{i + 1}" if network.design.deep else "stem.conv")
    for number, (stage, index) in enumerate(places(network.design.depths)):
        ours, theirs = f"blocks/{number}", f"stages.{stage}.{index}"
        block = network.blocks[number]
        names = (
            ("conv1", "conv2", "conv2b", "conv3")
            if network.design.extra
            else ("conv1", "conv2", "conv3")
        )
        for i, name in enumerate(names):
            yield from _conv(f"{ours}/convs/{i}", f"{theirs}.{name}")
        if block.excite is not None:
            yield from linear(f"{ours}/excite/squeeze", f"{theirs}.attn_last.fc1", pointwise)
            yield from linear(f"{ours}/excite/excite", f"{theirs}.attn_last.fc2", pointwise)
        if block.skip_gain is not None:
            yield Entry(f"{ours}/skip_gain", (f"{theirs}.skipinit_gain",), same)
        if block.skip is not None:
            yield from _conv(f"{ours}/skip", f"{theirs}.downsample.conv")
    if network.final is not None:
        yield from _conv("final", "final_conv")
    yield from linear("head", "head.fc")


def _conv(ours: str, theirs: str) -> Iterator[Entry]:
    yield Entry(f"{ours}/kernel", (f"{theirs}.weight",), kernel)
    yield Entry(f"{ours}/gain", (f"{theirs}.gain",), np.ravel)
    yield Entry(f"{ours}/bias", (f"{theirs}.bias",), same)
