"""Vision transformers as the first releases have them (Dosovitskiy et al. 2021, Steiner et al.
2022): Flax names, .npz.

Those releases were trained with the tanh approximation of GELU; here it is exact, as in timm and
transformers, which is what published accuracies of their conversions hold for.
"""

from collections.abc import Iterable

import numpy as np

from sfumato.networks.backbone import Backbone
from sfumato.networks.vit import VisionTransformer
from sfumato.weights.layout import Entry, same
from sfumato.weights.transformer_parts import Parts, flat, joined, layers, positions


def _columns(*kernels: np.ndarray) -> np.ndarray:
    """(d, heads, e) each -> (d, all of them beside each other)."""
    return np.concatenate([kernel.reshape(kernel.shape[0], -1) for kernel in kernels], axis=1)


def _rows(kernel: np.ndarray) -> np.ndarray:
    """(..., d) -> (all of them, d)."""
    return kernel.reshape(-1, kernel.shape[-1])


def _layer() -> Parts:
    at = "Transformer/encoderblock_{}"
    attention, perceptron = f"{at}/MultiHeadDotProductAttention_1", f"{at}/MlpBlock_3"
    qkv = [f"{attention}/{name}" for name in ("query", "key", "value")]
    return {
        "norm/scale": ((f"{at}/LayerNorm_0/scale",), same),
        "norm/shift": ((f"{at}/LayerNorm_0/bias",), same),
        "attention/qkv/weight": (tuple(f"{name}/kernel" for name in qkv), _columns),
        "attention/qkv/bias": (tuple(f"{name}/bias" for name in qkv), joined),
        "attention/out/weight": ((f"{attention}/out/kernel",), _rows),
        "attention/out/bias": ((f"{attention}/out/bias",), same),
        "second_norm/scale": ((f"{at}/LayerNorm_2/scale",), same),
        "second_norm/shift": ((f"{at}/LayerNorm_2/bias",), same),
        "widen/weight": ((f"{perceptron}/Dense_0/kernel",), same),
        "widen/bias": ((f"{perceptron}/Dense_0/bias",), same),
        "narrow/weight": ((f"{perceptron}/Dense_1/kernel",), same),
        "narrow/bias": ((f"{perceptron}/Dense_1/bias",), same),
    }


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a VisionTransformer."""
    assert isinstance(network, VisionTransformer)
    yield Entry("embedding/weight", ("embedding/kernel",), _rows)
    yield Entry("embedding/bias", ("embedding/bias",), same)
    if network.token is not None:
        yield Entry("token", ("cls",), flat)
    yield Entry("positions", ("Transformer/posembed_input/pos_embedding",), positions(network))
    yield from layers(network, _layer())
    yield Entry("norm/scale", ("Transformer/encoder_norm/scale",), same)
    yield Entry("norm/shift", ("Transformer/encoder_norm/bias",), same)
    yield Entry("head/weight", ("head/kernel",), same)
    yield Entry("head/bias", ("head/bias",), same)


def unused(name: str) -> bool:
    """The layer before the head of the first releases, which conversions leave out, too."""
    return name.startswith("pre_logits/")
