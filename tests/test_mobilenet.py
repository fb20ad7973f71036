"""MobileNetV2 with folded norms: the published layers, depthwise convolutions, and real weights
where they are at hand."""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from pace import paced
from PIL import Image

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError, WeightsError
from sfumato.networks import catalog
from sfumato.networks.input import Prepared
from sfumato.networks.layers.convolutions import Depthwise
from sfumato.networks.mobilenet import Block, InvertedResiduals
from sfumato.weights import folded_mobilenet, timm_mobilenet
from sfumato.weights.layout import Layout, fill

KEY = jax.random.key(0)
WEIGHTS = (
    Path(os.environ.get("SFUMATO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    / "weights"
)
PHOTOS = {
    "bird": "chickadee",
    "cat": "Egyptian cat",
    "dog": "miniature poodle",
    "dragonfly": "dragonfly",
    "hot_dog": "hotdog",
    "parrot": "macaw",
    "sunflower": "daisy",
}


def abstract(name: str, classes: int = 1000) -> InvertedResiduals:
    found = catalog.find(name)
    return eqx.filter_eval_shape(found.make, found.input.shape((224, 224, 3)), classes, KEY)


def blank(name: str, classes: int = 1000) -> InvertedResiduals:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract(name, classes))


def test_the_layers_are_the_published_ones() -> None:
    """torchvision and timm count 3,504,872 parameters, of which a scale per channel is folded away."""
    network = abstract("mobilenetv2_100")
    sizes = {
        jax.tree_util.keystr(path): leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(network)
    }
    channels = sum(
        size for name, size in sizes.items() if name.endswith(".bias") and "head" not in name
    )
    assert channels == 17_056 and sum(sizes.values()) == 3_504_872 - channels
    assert network.size == 1280 and network.depth == 17
    image = jax.ShapeDtypeStruct((160, 160, 3), jnp.float32)
    assert eqx.filter_eval_shape(network.features, image).shape == (1280,)


@pytest.mark.parametrize("padding", ["SAME", "symmetric"])
@pytest.mark.parametrize(
    "stride, shape",
    paced([(1, (5, 6, 4)), (2, (6, 7, 4)), (2, (8, 2, 4)), (2, (1, 1, 4))], (2, (6, 7, 4))),
)
def test_a_depthwise_convolution_is_a_grouped_one(
    padding: str, stride: int, shape: tuple[int, int, int]
) -> None:
    for size in (3, 7):
        layer = Depthwise(shape[2], size, KEY, stride, padding)
        layer = eqx.tree_at(lambda it: it.bias, layer, jnp.arange(4.0))
        image = jax.random.normal(KEY, shape)
        around = "SAME" if padding == "SAME" else [(size // 2, size // 2)] * 2
        expected = lax.conv_general_dilated(
            image[None],
            layer.kernel[:, :, None],
            (stride, stride),
            around,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )
        np.testing.assert_allclose(layer(image), expected[0] + layer.bias, atol=1e-5)


@pytest.mark.slow
def test_only_blocks_that_keep_the_shape_have_a_skip() -> None:
    image = jax.random.normal(KEY, (6, 6, 4))
    for outputs, stride, skips in ((4, 1, True), (8, 1, False), (4, 2, False)):
        block = Block(4, outputs, 6, stride, "SAME", KEY)
        silent = eqx.tree_at(
            lambda it: it.project.weight, block, jnp.zeros_like(block.project.weight)
        )
        np.testing.assert_array_equal(
            silent(image), image if skips else jnp.zeros((6 // stride, 6 // stride, outputs))
        )


@pytest.mark.slow
def test_the_engine_clips_a_block_as_the_slow_twin_does() -> None:
    block = Block(3, 3, 2, 1, "symmetric", KEY)
    images, mask = jax.random.normal(KEY, (4, 5, 5, 3)), jnp.ones(4, bool)
    params, static = eqx.partition(block, eqx.is_inexact_array)

    def loss(params, image):  # type: ignore[no-untyped-def]
        return jnp.square(eqx.combine(params, static)(image)).sum()

    fast, slow = (
        clipped_grad(loss, 0.5, method=method)(params, images, mask).value
        for method in ("auto", "materialize")
    )
    for got, expected in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_more_blocks_than_there_are() -> None:
    network = abstract("mobilenetv2_100")
    same, chosen = network.after(2)
    assert same is network and chosen(network) == [*network.blocks[15:], network.last, network.head]
    with pytest.raises(ArgumentError, match="17 blocks"):
        network.after(18)


@pytest.mark.parametrize(
    "name, layout, why",
    [
        ("mobilenetv2_100", folded_mobilenet.layout, "trained with SAME padding"),
        ("tf_mobilenetv2_100", timm_mobilenet.layout, "trained with symmetric padding"),
    ],
)
def test_weights_of_the_other_padding_are_refused(name: str, layout: Layout, why: str) -> None:
    """They have the same shapes, so nothing but the convention of their names tells them apart."""
    network = blank(name)
    arrays = {each: np.zeros(1, np.float32) for entry in layout(network) for each in entry.theirs}
    with pytest.raises(WeightsError, match=why):
        fill(network, arrays, layout, folded_mobilenet.unused, keep_head=True)


@pytest.fixture(scope="module")
def pretrained() -> Prepared:
    if not WEIGHTS.is_dir():
        pytest.skip("the real weights are not on this machine")
    with np.load(WEIGHTS / "mobilenet_v2_imagenet_folded.npz") as file:
        arrays = dict(file)
    network = fill(
        blank("tf_mobilenetv2_100", 1001),
        arrays,
        folded_mobilenet.layout,
        folded_mobilenet.unused,
        keep_head=True,
    )
    return Prepared(network, catalog.find("tf_mobilenetv2_100").input)


def test_the_photos_are_named_right(pretrained: Prepared) -> None:
    names = (WEIGHTS / "imagenet_labels_1001.txt").read_text().splitlines()
    scores = eqx.filter_jit(pretrained)
    for photo, name in PHOTOS.items():
        image = (
            np.asarray(
                Image.open(WEIGHTS / "sample_photos" / f"{photo}.jpg").convert("RGB"), np.float32
            )
            / 255
        )
        assert names[int(scores(image).argmax())].split(",")[0] == name
