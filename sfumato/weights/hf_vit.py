"""Vision transformers as Hugging Face's ViTForImageClassification writes them."""

from collections.abc import Iterable

from sfumato.networks.backbone import Backbone
from sfumato.networks.vit import VisionTransformer
from sfumato.weights.entries import linear, norm
from sfumato.weights.layout import Entry, same, transposed
from sfumato.weights.transformer_parts import (
    Parts,
    beside,
    flat,
    joined,
    layers,
    patches,
    positions,
)


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a VisionTransformer."""
    return entries(network, "vit.")


def unused(name: str) -> bool:
    """The pooler and what stands for hidden patches: parts of other tasks."""
    return name.removeprefix("vit.").startswith("pooler.") or name.endswith("embeddings.mask_token")


def entries(network: Backbone, prefix: str) -> Iterable[Entry]:
    """The same with another prefix of all names but the head's."""
    assert isinstance(network, VisionTransformer)
    start = f"{prefix}embeddings"
    yield from linear("embedding", f"{start}.patch_embeddings.projection", patches)
    if network.token is not None:
        yield Entry("token", (f"{start}.cls_token",), flat)
    yield Entry("positions", (f"{start}.position_embeddings",), positions(network))
    yield from layers(network, _layer(f"{prefix}encoder.layer.{{}}"))
    yield from norm("norm", f"{prefix}layernorm")
    yield from linear("head", "classifier")


def _layer(at: str) -> Parts:
    qkv = [f"{at}.attention.attention.{name}" for name in ("query", "key", "value")]
    return {
        "norm/scale": ((f"{at}.layernorm_before.weight",), same),
        "norm/shift": ((f"{at}.layernorm_before.bias",), same),
        "attention/qkv/weight": (tuple(f"{name}.weight" for name in qkv), beside),
        "attention/qkv/bias": (tuple(f"{name}.bias" for name in qkv), joined),
        "attention/out/weight": ((f"{at}.attention.output.dense.weight",), transposed),
        "attention/out/bias": ((f"{at}.attention.output.dense.bias",), same),
        "second_norm/scale": ((f"{at}.layernorm_after.weight",), same),
        "second_norm/shift": ((f"{at}.layernorm_after.bias",), same),
        "widen/weight": ((f"{at}.intermediate.dense.weight",), transposed),
        "widen/bias": ((f"{at}.intermediate.dense.bias",), same),
        "narrow/weight": ((f"{at}.output.dense.weight",), transposed),
        "narrow/bias": ((f"{at}.output.dense.bias",), same),
    }
