"""timm's resnet18 to resnet101 and their GroupNorm siblings (and torchvision's, whose names timm
kept)."""

from collections.abc import Iterable, Iterator

from sfumato.networks.resnet import AffineConv, NormedConv, ResNet
from sfumato.weights.entries import bare_conv, counts_batches, folded_conv, linear, norm, places
from sfumato.weights.layout import Entry

unused = counts_batches


def layout(network: ResNet) -> Iterable[Entry]:
    yield from normed_conv(network.stem, "stem", "conv1", "bn1")
    for number, (stage, index) in enumerate(places(network.design.depths)):
        ours, theirs = f"blocks/{number}", f"layer{stage + 1}.{index}"
        block = network.blocks[number]
        for i, conv in enumerate(block.convs):
            yield from normed_conv(
                conv, f"{ours}/convs/{i}", f"{theirs}.conv{i + 1}", f"{theirs}.bn{i + 1}"
            )
        if block.skip is not None:
            yield from normed_conv(
                block.skip, f"{ours}/skip", f"{theirs}.downsample.0", f"{theirs}.downsample.1"
            )
    yield from linear("head", "fc")


def normed_conv(layer: NormedConv, ours: str, conv: str, its_norm: str) -> Iterator[Entry]:
    """A BatchNorm is folded, a GroupNorm is kept."""
    if isinstance(layer, AffineConv):
        yield from folded_conv(ours, conv, its_norm)
    else:
        yield from bare_conv(f"{ours}/conv", conv)
        yield from norm(f"{ours}/norm", its_norm)
