"""ConvNeXt: the published sizes, one block by hand, and the engine on a small one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError
from sfumato.networks import catalog
from sfumato.networks.convnext import Block, ConvNeXt, Downsample, Patchify

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "name, parameters",
    [("convnext_tiny", 28_589_128), ("convnext_small", 50_223_688), ("convnext_base", 88_591_464)],
)
def test_the_sizes_are_the_published_ones(name: str, parameters: int) -> None:
    found = catalog.find(name)
    network = eqx.filter_eval_shape(found.make, found.input.shape((32, 32, 3)), 1000, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == parameters
    assert sum(isinstance(layer, Downsample) for layer in network.trunk()) == 3
    assert network.size == network.norm.scale.shape[0]


@pytest.mark.slow
def test_a_block_is_its_layers_scaled_and_added() -> None:
    block = eqx.tree_at(lambda it: it.scale, Block(4, KEY), jnp.array([0.5, 0.0, -1.0, 2.0]))
    image = jax.random.normal(KEY, (5, 6, 4))
    inner = block.narrow(
        jax.nn.gelu(block.widen(block.norm(block.depthwise(image))), approximate=False)
    )
    np.testing.assert_allclose(block(image), image + block.scale * inner, atol=1e-6)
    np.testing.assert_array_equal(block(image)[..., 1], image[..., 1])
    assert block.widen.weight.shape == (4, 16)


def test_patches_are_a_strided_convolution_and_edges_are_cut_off() -> None:
    patches = Patchify(3, 5, 2, KEY)
    image = jax.random.normal(KEY, (7, 6, 3))
    kernel = patches.dense.weight.reshape(2, 2, 3, 5)
    expected = jax.lax.conv_general_dilated(
        image[None], kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    np.testing.assert_allclose(patches(image), expected, atol=1e-6)


def test_images_too_small_for_the_last_stage_are_refused() -> None:
    with pytest.raises(ArgumentError, match="at least 32 pixels"):
        eqx.filter_eval_shape(ConvNeXt, (31, 64, 3), 10, KEY)


@pytest.mark.slow  # 49 shifted images per convolution take long to compile
def test_the_engine_clips_as_the_slow_twin_does() -> None:
    network = ConvNeXt((8, 8, 3), 3, KEY, depths=(0, 1), widths=(2, 4))
    params, static = eqx.partition(
        jax.tree.map(lambda leaf: leaf + 0.1, network), eqx.is_inexact_array
    )
    images, labels = jax.random.normal(KEY, (4, 8, 8, 3)), jnp.array([0, 1, 2, 0])

    def loss(params, example):  # type: ignore[no-untyped-def]
        return -jax.nn.log_softmax(eqx.combine(params, static)(example[0]))[example[1]]

    fast, slow = (
        jax.jit(clipped_grad(loss, 0.3, method=method).__call__)(
            params, (images, labels), jnp.ones(4, bool)
        ).value
        for method in ("auto", "materialize")
    )
    for got, expected in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)
