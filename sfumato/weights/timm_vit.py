"""Vision transformers as timm names them (vit_*)."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.networks.vit import VisionTransformer
from sfumato.weights.entries import linear, norm
from sfumato.weights.layout import Entry, same, transposed
from sfumato.weights.transformer_parts import flat, layers, patches, positions

_LAYER = {
    "norm/scale": (("blocks.{}.norm1.weight",), same),
    "norm/shift": (("blocks.{}.norm1.bias",), same),
    "attention/qkv/weight": (("blocks.{}.attn.qkv.weight",), transposed),
    "attention/qkv/bias": (("blocks.{}.attn.qkv.bias",), same),
    "attention/out/weight": (("blocks.{}.attn.proj.weight",), transposed),
    "attention/out/bias": (("blocks.{}.attn.proj.bias",), same),
    "second_norm/scale": (("blocks.{}.norm2.weight",), same),
    "second_norm/shift": (("blocks.{}.norm2.bias",), same),
    "widen/weight": (("blocks.{}.mlp.fc1.weight",), transposed),
    "widen/bias": (("blocks.{}.mlp.fc1.bias",), same),
    "narrow/weight": (("blocks.{}.mlp.fc2.weight",), transposed),
    "narrow/bias": (("blocks.{}.mlp.fc2.bias",), same),
}
_SCALES = {f"scales/{index}": ((f"blocks.{{}}.ls{index + 1}.gamma",), same) for index in range(2)}


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a VisionTransformer."""
    assert isinstance(network, VisionTransformer)
    yield from linear("embedding", "patch_embed.proj", patches)
    if network.token is not None:
        yield Entry("token", ("cls_token",), flat)
    yield Entry("positions", ("pos_embed",), positions(network))
    yield from layers(network, _LAYER if network.stacks[0].scales is None else _LAYER | _SCALES)
    yield from norm("norm", "norm")
    yield from linear("head", "head")


def unused(name: str) -> bool:
    """What stood for hidden patches in training."""
    return name == "mask_token"
