"""EfficientNet-Lite as efficientnet_pytorch (Melas-Kyriazi 2019) and its relatives name it, ported from
TensorFlow: `_blocks.K.{_expand_conv,_depthwise_conv,_project_conv}`, norms counted from 0."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.networks.mobilenet import InvertedResiduals
from sfumato.weights.entries import TENSORFLOW_EPSILON, counts_batches
from sfumato.weights.inverted_parts import Pair, folded, padded_as
from sfumato.weights.layout import Entry

unused = counts_batches


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of an EfficientNet-Lite. Filling raises WeightsError if the network does not pad as
    TensorFlow does."""
    return padded_as(network, "SAME", folded(network, _pairs, "_fc", TENSORFLOW_EPSILON))


def _pairs(network: InvertedResiduals) -> Iterable[Pair]:
    yield "_conv_stem", "_bn0"
    for number, block in enumerate(network.blocks):
        if block.expand is not None:
            yield f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0"
        yield f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1"
        yield f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2"
    yield "_conv_head", "_bn1"
