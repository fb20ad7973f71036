"""MobileNetV2 as timm names it (mobilenetv2_100): a BatchNorm after every convolution, folded here."""

from collections.abc import Callable, Iterable
from typing import Any

from sfumato.networks.backbone import Backbone
from sfumato.networks.mobilenet import STAGES, MobileNetV2
from sfumato.weights.folded_mobilenet import padded_as
from sfumato.weights.layout import (
    Entry,
    depthwise,
    folded_bias,
    folded_kernel,
    kernel,
    pointwise,
    same,
    transposed,
)

_EPSILON = 1e-5


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf of a MobileNetV2. Filling raises WeightsError if the network pads as TensorFlow
    does."""
    assert isinstance(network, MobileNetV2)
    yield from _folded(
        "stem/kernel",
        "conv_stem",
        "bn1",
        padded_as(network, "symmetric", folded_kernel(_EPSILON, kernel)),
    )
    stages = [
        f"blocks.{stage}.{index}" for stage, row in enumerate(STAGES) for index in range(row[2])
    ]
    for number, (block, theirs) in enumerate(zip(network.blocks, stages, strict=True)):
        layers = [
            ("depthwise/kernel", "conv_dw", depthwise),
            ("project/weight", "conv_pw", pointwise),
        ]
        if block.expand is not None:
            layers = [
                ("expand/weight", "conv_pw", pointwise),
                layers[0],
                ("project/weight", "conv_pwl", pointwise),
            ]
        for index, (leaf, conv, convert) in enumerate(layers, start=1):
            yield from _folded(
                f"blocks/{number}/{leaf}",
                f"{theirs}.{conv}",
                f"{theirs}.bn{index}",
                folded_kernel(_EPSILON, convert),
            )
    yield from _folded("last/weight", "conv_head", "bn2", folded_kernel(_EPSILON, pointwise))
    yield Entry("head/weight", ("classifier.weight",), transposed)
    yield Entry("head/bias", ("classifier.bias",), same)


def unused(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _folded(leaf: str, conv: str, norm: str, convert: Callable[..., Any]) -> Iterable[Entry]:
    layer = leaf.rpartition("/")[0]
    yield Entry(leaf, (f"{conv}.weight", f"{norm}.weight", f"{norm}.running_var"), convert)
    statistics = tuple(
        f"{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    )
    yield Entry(f"{layer}/bias", statistics, folded_bias(_EPSILON))
