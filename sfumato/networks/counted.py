"""How large and how dear the networks of the catalog are: counted once and written down, since
abstract evaluation of all of them takes many seconds. A test counts every one again.
"""

from typing import NamedTuple

from sfumato.networks.architecture import Architecture, Shape
from sfumato.networks.image_cost import forward_cost, outline, parameters

SMALL_SHAPE, SMALL_CLASSES = (32, 32, 3), 10
"""The images and classes (of CIFAR-10) with which networks for any size are counted."""
CLASSES = 1_000
"""The classes (of ImageNet) with which the others are counted."""


class Count(NamedTuple):
    """parameters: with the head. multiply_adds: of the forward pass of one image. features: which
    the head sees. depth: blocks.
    """

    parameters: int
    multiply_adds: int
    features: int
    depth: int


def counted_for(architecture: Architecture) -> tuple[Shape, int]:
    """The shape of the image and the number of classes with which it is counted."""
    given = architecture.input
    return given.shape(SMALL_SHAPE), SMALL_CLASSES if given.size is None else CLASSES


def count(architecture: Architecture) -> Count:
    """Without drawing a weight: a second for the largest."""
    shape, classes = counted_for(architecture)
    network = outline(architecture, shape, classes)
    return Count(parameters(network), forward_cost(network, shape), network.size, network.depth)


COUNTED: dict[str, Count] = {
    "cnn": Count(61_850, 1_361_216, 32, 3),
    "wrn-16-4": Count(2_753_818, 392_612_352, 256, 6),
    "wrn-40-4": Count(8_961_306, 1_298_582_016, 256, 18),
    "wrn-28-10": Count(36_500_378, 5_243_328_768, 640, 12),
    "resnet18": Count(11_684_712, 1_814_073_344, 512, 8),
    "resnet34": Count(21_789_160, 3_663_761_408, 512, 16),
    "resnet50": Count(25_530_472, 4_089_184_256, 2_048, 16),
    "resnet101": Count(44_496_488, 7_801_405_440, 2_048, 33),
    "resnet18_gn": Count(11_689_512, 1_814_073_344, 512, 8),
    "resnet34_gn": Count(21_797_672, 3_663_761_408, 512, 16),
    "resnet50_gn": Count(25_557_032, 4_089_184_256, 2_048, 16),
    "resnet101_gn": Count(44_549_160, 7_801_405_440, 2_048, 33),
    "resnetv2_18": Count(11_687_720, 1_814_073_344, 512, 8),
    "resnetv2_50": Count(25_549_352, 4_089_184_256, 2_048, 16),
    "resnetv2_101": Count(44_541_480, 7_801_405_440, 2_048, 33),
    "resnetv2_50x1_bit": Count(25_549_352, 4_089_184_256, 2_048, 16),
    "resnetv2_18_gn": Count(11_687_720, 1_814_073_344, 512, 8),
    "resnetv2_50_gn": Count(25_549_352, 4_089_184_256, 2_048, 16),
    "nf_resnet50": Count(25_557_032, 5_340_348_416, 2_048, 16),
    "dm_nfnet_f0": Count(71_489_284, 6_977_003_520, 3_072, 12),
    "dm_nfnet_f1": Count(132_634_256, 17_437_921_280, 3_072, 24),
    "dm_nfnet_f2": Count(193_779_228, 33_139_318_784, 3_072, 36),
    "dm_nfnet_f3": Count(254_924_200, 67_944_292_352, 3_072, 48),
    "dm_nfnet_f4": Count(316_069_172, 121_122_250_752, 3_072, 60),
    "dm_nfnet_f5": Count(377_214_144, 169_498_382_336, 3_072, 72),
    "dm_nfnet_f6": Count(438_359_116, 228_292_861_952, 3_072, 84),
    "nfnet_f0": Count(71_489_272, 6_977_003_520, 3_072, 12),
    "nfnet_f1": Count(132_634_232, 17_437_921_280, 3_072, 24),
    "nfnet_f2": Count(193_779_192, 33_139_318_784, 3_072, 36),
    "nfnet_f3": Count(254_924_152, 67_944_292_352, 3_072, 48),
    "nfnet_f4": Count(316_069_112, 121_122_250_752, 3_072, 60),
    "nfnet_f5": Count(377_214_072, 169_498_382_336, 3_072, 72),
    "nfnet_f6": Count(438_359_032, 228_292_861_952, 3_072, 84),
    "mobilenetv2_100": Count(3_487_816, 280_057_856, 1_280, 17),
    "tf_mobilenetv2_100": Count(3_487_816, 280_057_856, 1_280, 17),
    "vit_tiny_patch16_224": Count(5_717_416, 1_253_683_200, 192, 12),
    "vit_tiny_patch16_384": Count(5_790_376, 4_682_219_520, 192, 12),
    "vit_small_patch32_224": Count(22_878_952, 1_142_909_952, 384, 12),
    "vit_small_patch32_384": Count(22_915_432, 3_442_900_992, 384, 12),
    "vit_small_patch16_224": Count(22_050_664, 4_598_882_304, 384, 12),
    "vit_small_patch16_384": Count(22_196_584, 15_490_351_104, 384, 12),
    "vit_base_patch32_224": Count(88_224_232, 4_409_186_304, 768, 12),
    "vit_base_patch32_384": Count(88_297_192, 13_043_564_544, 768, 12),
    "vit_base_patch16_224": Count(86_567_656, 17_563_828_224, 768, 12),
    "vit_base_patch16_384": Count(86_859_496, 55_484_350_464, 768, 12),
    "vit_large_patch16_224": Count(304_326_632, 61_554_712_576, 1_024, 24),
    "vit_large_patch16_384": Count(304_715_752, 191_066_300_416, 1_024, 24),
    "vit_huge_patch14_224": Count(632_045_800, 167_295_109_120, 1_280, 32),
    "vit_gigantic_patch14_224": Count(1_844_440_680, 483_747_550_208, 1_664, 48),
    "vit_base_patch16_gap_224": Count(86_566_120, 17_471_649_792, 768, 12),
    "vit_small_patch14_dinov2": Count(22_441_192, 46_697_123_328, 384, 12),
    "vit_base_patch14_dinov2": Count(87_348_712, 151_574_486_016, 768, 12),
    "vit_large_patch14_dinov2": Count(305_392_616, 506_804_850_688, 1_024, 24),
    "convnext_tiny": Count(28_589_128, 4_350_425_088, 768, 21),
    "convnext_small": Count(50_223_688, 8_512_223_232, 768, 39),
    "convnext_base": Count(88_591_464, 15_126_077_440, 1_024, 39),
}
