"""MobileNetV2 as timm names it (mobilenetv2_100): a BatchNorm after every convolution, folded here."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.networks.mobilenet import InvertedResiduals
from sfumato.weights.entries import TORCH_EPSILON, counts_batches, places
from sfumato.weights.inverted_parts import Pair, folded, padded_as
from sfumato.weights.layout import Entry

unused = counts_batches


HEAD = "classifier"


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a MobileNetV2. Filling raises WeightsError if the network pads as TensorFlow
    does."""
    return padded_as(network, "symmetric", folded(network, pairs, HEAD, TORCH_EPSILON))


def pairs(network: InvertedResiduals) -> Iterable[Pair]:
    """timm's names of all convolutions and of the norms behind them, in the order of the forward
    pass."""
    yield "conv_stem", "bn1"
    for block, (stage, index) in zip(network.blocks, places(network.depths), strict=True):
        wide = (
            ("conv_dw", "conv_pw") if block.expand is None else ("conv_pw", "conv_dw", "conv_pwl")
        )
        for number, conv in enumerate(wide, start=1):
            yield f"blocks.{stage}.{index}.{conv}", f"blocks.{stage}.{index}.bn{number}"
    yield "conv_head", "bn2"
