"""EfficientNet-Lite 0 to 4: EfficientNets (Tan & Le 2019, arXiv 1905.11946, Table 1) without squeeze
and excitation and with ReLU6, so MobileNetV2's inverted residuals at other widths, depths and
kernels. Every BatchNorm is folded into the convolution before it.

Stem, last convolution and the depth of the first and last stage are not scaled, as in the published
networks (tensorflow/tpu, models/official/efficientnet/lite).
"""

import math

from sfumato.networks.architecture import Architecture
from sfumato.networks.mobilenet import BlockStage, architectures

_STAGES = (
    BlockStage(1, 16, 1, 1, 3),
    BlockStage(6, 24, 2, 2, 3),
    BlockStage(6, 40, 2, 2, 5),
    BlockStage(6, 80, 3, 2, 3),
    BlockStage(6, 112, 3, 1, 5),
    BlockStage(6, 192, 4, 2, 5),
    BlockStage(6, 320, 1, 1, 3),
)
_SCALES = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300))
"""Width, depth and side of the image, by number."""
_PACKED = (0, 1, 2)
"""Whose weights a package of the index has (`sfumato/weights/packages.py`)."""
_DIVISOR = 8


def _stages(number: int) -> tuple[BlockStage, ...]:
    width, depth, _ = _SCALES[number]
    inner = range(1, len(_STAGES) - 1)
    return tuple(
        stage._replace(
            outputs=_rounded(width * stage.outputs),
            blocks=math.ceil(depth * stage.blocks) if index in inner else stage.blocks,
        )
        for index, stage in enumerate(_STAGES)
    )


def _rounded(channels: float) -> int:
    """To a multiple of 8 that is at least nine tenths of it."""
    found = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return found if found >= 0.9 * channels else found + _DIVISOR


def _architectures(number: int) -> tuple[Architecture, Architecture]:
    name = f"efficientnet_lite{number}"
    return architectures(
        name,
        "efficientnet",
        _stages(number),
        _SCALES[number][2],
        ("timm/efficientnet_lite0.ra_in1k",) if number == 0 else (),
        (f"timm/tf_{name}.in1k", *((name,) if number in _PACKED else ())),
    )


ARCHITECTURES = tuple(each for number in range(len(_SCALES)) for each in _architectures(number))
