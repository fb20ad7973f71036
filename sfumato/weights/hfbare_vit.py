"""Vision transformers as Hugging Face's ViTModel writes them: no prefix, no head."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.weights import hf_vit
from sfumato.weights.hf_vit import unused
from sfumato.weights.layout import Entry

__all__ = ["layout", "unused"]


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a VisionTransformer; the file lacks the head's."""
    return hf_vit.entries(network, "")
