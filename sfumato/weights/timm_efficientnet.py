"""EfficientNet-Lite as timm names it, of either padding: trained there (efficientnet_lite0), or ported
from TensorFlow (tf_efficientnet_lite0), which puts more under the square root of its norms."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.networks.mobilenet import InvertedResiduals
from sfumato.weights.entries import TENSORFLOW_EPSILON, TORCH_EPSILON, counts_batches
from sfumato.weights.inverted_parts import folded
from sfumato.weights.layout import Entry
from sfumato.weights.timm_mobilenet import HEAD, pairs

unused = counts_batches


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of an EfficientNet-Lite."""
    assert isinstance(network, InvertedResiduals)
    ported = network.stem.padding == "SAME"
    return folded(network, pairs, HEAD, TENSORFLOW_EPSILON if ported else TORCH_EPSILON)
