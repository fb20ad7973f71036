"""The networks are what the papers say, for one image at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato.core.errors import ArgumentError
from sfumato.features import by_name
from sfumato.networks.layers.basic import GroupNorm
from sfumato.networks.layers.convolutions import StandardizedConv
from sfumato.networks.wrn import WideResNet

KEY = jax.random.key(0)


def parameters(name: str, shape: tuple[int, int, int], classes: int) -> int:
    abstract = eqx.filter_eval_shape(by_name.network, name, shape, classes, KEY)
    return sum(leaf.size for leaf in jax.tree.leaves(abstract))


def by_hand(depth: int, width: int, colors: int, classes: int) -> int:
    """Kernel, gain and bias per convolution; scale and shift per norm; a linear head."""
    total, inputs = 16 * (9 * colors + 2), 16
    for stage in range(3):
        outputs = 16 * width * 2**stage
        for block in range((depth - 4) // 6):
            sizes = [(inputs, 9), (outputs, 9)] + ([(inputs, 1)] if block == 0 else [])
            total += sum(outputs * (taps * size + 2) + 2 * size for size, taps in sizes)
            inputs = outputs
    return total + 2 * inputs + (inputs + 1) * classes


@pytest.mark.parametrize(
    "name, depth, width", [("wrn-16-4", 16, 4), ("wrn-40-4", 40, 4), ("wrn-28-10", 28, 10)]
)
def test_wide_resnets_have_the_published_layers(name: str, depth: int, width: int) -> None:
    assert parameters(name, (32, 32, 3), 10) == by_hand(depth, width, 3, 10)


def test_wrn_16_4_has_2_75_million_parameters() -> None:
    assert parameters("wrn-16-4", (32, 32, 3), 10) == 2_753_818


def test_every_block_is_relu_then_norm_then_standardized_convolution() -> None:
    network = WideResNet(3, 10, KEY, depth=10, width=1)
    image = jax.random.normal(KEY, (8, 8, 16))
    first = network.blocks[0].first
    expected = first.conv(first.norm(jnp.maximum(image, 0)))
    np.testing.assert_allclose(first(image), expected)
    assert first.norm.groups == 16
    assert [block.skip is not None for block in network.blocks] == [True, True, True]
    assert [block.first.conv.stride for block in network.blocks] == [1, 2, 2]


def test_group_norm_against_its_definition() -> None:
    image = np.asarray(jax.random.normal(KEY, (5, 4, 6)) * 3 + 1)
    got = np.asarray(GroupNorm(6, 2)(jnp.asarray(image)))
    for group in (slice(0, 3), slice(3, 6)):
        part = image[..., group]
        np.testing.assert_allclose(
            got[..., group], (part - part.mean()) / np.sqrt(part.var() + 1e-5), atol=1e-5
        )


def test_a_standardized_convolution_ignores_scale_and_shift_of_its_kernel() -> None:
    conv = StandardizedConv(3, 4, 3, KEY)
    moved = eqx.tree_at(lambda layer: layer.kernel, conv, conv.kernel * 7 + 2)
    image = jax.random.normal(KEY, (6, 6, 3))
    np.testing.assert_allclose(conv(image), moved(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["wrn-17-4", "wrn-4-4", "resnet51", "wrn-16"])
def test_networks_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        by_name.network(by_name.check(name), (32, 32, 3), 10, KEY)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (9, 17, 3)])
def test_the_small_network_takes_any_size_from_eight_pixels(shape: tuple[int, int, int]) -> None:
    assert by_name.network("cnn", shape, 5, KEY)(jnp.zeros(shape)).shape == (5,)
