"""Wide residual networks with norms before ReLU: the other order of De et al. 2022, a name of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato.core.errors import ArgumentError
from sfumato.networks import catalog

SHAPE, KEY = (8, 8, 3), jax.random.key(0)


@pytest.mark.slow
def test_norm_first_swaps_norm_and_relu_everywhere_and_nothing_else() -> None:
    usual, other = (
        catalog.find(name).make(SHAPE, 4, KEY) for name in ("wrn-10-1", "wrn-10-1-norm-first")
    )
    for one, two in zip(jax.tree.leaves(usual), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(one, two)
    block, maps = other.blocks[1], jax.random.normal(KEY, (8, 8, 16))
    for part in (block.first, block.skip):
        expected = part.conv(jnp.maximum(part.norm(maps), 0))
        np.testing.assert_allclose(part(maps), expected)
        assert not np.allclose(expected, part.conv(part.norm(jnp.maximum(maps, 0))), atol=0.01)


@pytest.mark.slow
def test_its_features_are_averages_of_what_relu_leaves() -> None:
    found = catalog.find("wrn-10-1-norm-first")
    network = found.make(SHAPE, 4, KEY)
    features = network.features(jax.random.normal(KEY, SHAPE))
    assert found.rectified and features.min() >= 0
    usual = catalog.find("wrn-10-1")
    seen = usual.make(SHAPE, 4, KEY).features(jax.random.normal(KEY, SHAPE))
    assert not usual.rectified and seen.min() < 0


@pytest.mark.parametrize("name", ["wrn-11-1-norm-first", "wrn-10-1-norm", "cnn-norm-first"])
def test_other_names_of_that_kind_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError):
        catalog.find(name).make(SHAPE, 4, KEY)
