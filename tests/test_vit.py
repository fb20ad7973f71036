"""Vision transformers: the published sizes, blocks stacked for a scan, stacks split where training
begins."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pace import paced

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError, WeightsError
from sfumato.networks import catalog
from sfumato.networks.layers.basic import LayerNorm, Linear
from sfumato.networks.vit import VisionTransformer, run
from sfumato.weights import timm_vit
from sfumato.weights.layout import fill

KEY = jax.random.key(0)
IMAGE = jax.random.normal(jax.random.key(1), (8, 8, 3))


def tiny(**options: object) -> VisionTransformer:
    """Five layers, and a head that is not zero."""
    network = VisionTransformer((8, 8, 3), 3, KEY, width=8, depth=5, heads=2, patch=4, **options)
    return eqx.tree_at(lambda it: it.head, network, Linear.random(8, 3, KEY))


@pytest.mark.parametrize(
    "name, millions",
    [
        ("vit_tiny_patch16_224", 5.717416),
        ("vit_small_patch16_224", 22.050664),
        ("vit_base_patch16_224", 86.567656),
        ("vit_base_patch32_224", 88.224232),
        ("vit_large_patch16_224", 304.326632),
        ("vit_huge_patch14_224", 632.045800),
        ("vit_gigantic_patch14_224", 1844.440680),
    ],
)
def test_the_sizes_are_the_published_ones(name: str, millions: float) -> None:
    found = catalog.find(name)
    network = eqx.filter_eval_shape(found.make, found.input.shape((32, 32, 3)), 1000, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(network)) == round(millions * 1e6)


@pytest.mark.parametrize("size", [(30, 32), (32, 225), (15, 15)])
def test_a_size_that_no_patches_fill_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(
        ArgumentError, match="patches are 16 x 16 pixels; choose a multiple, such as"
    ):
        VisionTransformer((*size, 3), 3, KEY, width=8, depth=1, heads=2, patch=16)


def test_a_new_network_predicts_all_classes_alike() -> None:
    network = VisionTransformer((8, 8, 3), 3, KEY, width=8, depth=2, heads=2, patch=4)
    np.testing.assert_array_equal(network(IMAGE), np.zeros(3))
    assert network.size == 8


def test_layer_norm_against_its_definition() -> None:
    tokens = np.asarray(jax.random.normal(KEY, (4, 6))) * 3 + 1
    layer = eqx.tree_at(
        lambda it: (it.scale, it.shift), LayerNorm(6), (jnp.arange(6.0), jnp.ones(6))
    )
    normal = (tokens - tokens.mean(1, keepdims=True)) / np.sqrt(tokens.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer(jnp.asarray(tokens)), normal * np.arange(6) + 1, atol=1e-5)


@pytest.mark.slow
def test_a_stack_is_its_layers_one_after_the_other() -> None:
    stack, tokens = tiny(scale=0.5).stacks[0], jax.random.normal(KEY, (5, 8))
    expected = tokens
    for index in range(5):
        expected = jax.tree.map(lambda leaf, at=index: leaf[at], stack)(expected)
    np.testing.assert_allclose(run(stack, tokens), expected, atol=1e-5)


def test_layers_begin_different() -> None:
    weights = tiny().stacks[0].attention.qkv.weight
    assert np.abs(weights[0] - weights[1]).max() > 0.1


@pytest.mark.parametrize(
    "pool, last",
    paced(
        [(pool, last) for pool in ("token", "mean") for last in (0, 1, 3, 5)],
        ("token", 3),
        ("mean", 0),
        ("mean", 5),
    ),
)
def test_a_network_split_or_joined_again_computes_the_same(pool: str, last: int) -> None:
    network = tiny(pool=pool)
    split, chosen = network.after(last)
    selected = chosen(split)
    assert split.depth == 5 and isinstance(split, VisionTransformer)
    trained = [leaf.shape[0] for leaf in jax.tree.leaves(selected[:-2])]
    assert set(trained) == ({last} if last else set()) and selected[-2:] == [split.norm, split.head]
    np.testing.assert_allclose(split(IMAGE), network(IMAGE), atol=1e-6)
    for again in (split.joined(), split.after(2)[0].joined()):
        assert jax.tree.structure(again) == jax.tree.structure(network)
        for got, expected in zip(jax.tree.leaves(again), jax.tree.leaves(network), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_more_layers_than_there_are() -> None:
    with pytest.raises(ArgumentError, match="5 blocks"):
        tiny().after(6)


@pytest.mark.parametrize("last, scale", paced([(2, None), (5, 0.1)], (2, None)))
def test_the_engine_clips_the_trained_half_as_the_slow_twin_does(
    last: int, scale: float | None
) -> None:
    network, chosen = tiny(scale=scale).after(last)
    train = eqx.tree_at(
        chosen,
        jax.tree.map(lambda _: False, network),
        replace_fn=lambda it: jax.tree.map(lambda _: True, it),
    )
    params, frozen = eqx.partition(network, train)
    images, labels = jax.random.normal(KEY, (4, 8, 8, 3)), jnp.array([0, 1, 2, 0])

    def loss(params, example):  # type: ignore[no-untyped-def]
        return -jax.nn.log_softmax(eqx.combine(params, frozen)(example[0]))[example[1]]

    fast, slow = (
        jax.jit(clipped_grad(loss, 0.3, method=method).__call__)(
            params, (images, labels), jnp.ones(4, bool)
        ).value
        for method in ("auto", "materialize")
    )
    assert len(jax.tree.leaves(slow)) == len(jax.tree.leaves(chosen(network)))
    for got, expected in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def timm_arrays(network: VisionTransformer, positions: int) -> dict[str, np.ndarray]:
    """Arrays under timm's names, of the right shapes where `positions` is the network's own number."""
    width = network.size
    shapes = {
        "patch_embed.proj.weight": (width, 3, 4, 4),
        "cls_token": (1, 1, width),
        "pos_embed": (1, positions, width),
        "head.weight": (3, width),
        "head.bias": (3,),
    }
    sizes = {
        "qkv.weight": (3 * width, width),
        "qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "fc1.weight": (4 * width, width),
        "fc1.bias": (4 * width,),
        "fc2.weight": (width, 4 * width),
    }
    arrays = {}
    for entry in timm_vit.layout(network):
        for name in entry.theirs:
            fits = next(
                (
                    shape
                    for end, shape in sizes.items()
                    if name.endswith(end) and name.startswith("blocks")
                ),
                (width,),
            )
            shape = shapes.get(name, fits)
            arrays[name] = (
                np.random.default_rng(len(arrays)).standard_normal(shape).astype(np.float32)
            )
    return arrays


def test_positions_of_another_grid_are_resized_but_for_the_class_token() -> None:
    network = tiny()
    arrays = timm_arrays(network, 1 + 3 * 3)
    arrays["pos_embed"][0, 1:] = 7.0
    filled = fill(network, arrays, timm_vit.layout, timm_vit.unused, keep_head=True)
    assert isinstance(filled, VisionTransformer)
    np.testing.assert_array_equal(filled.positions[0], arrays["pos_embed"][0, 0])
    np.testing.assert_allclose(filled.positions[1:], np.full((4, 8), 7.0), rtol=1e-6)
    with pytest.raises(WeightsError, match="11 position embeddings are not a square grid"):
        fill(
            network, timm_arrays(network, 1 + 11), timm_vit.layout, timm_vit.unused, keep_head=True
        )


@pytest.mark.slow
def test_a_file_fills_a_split_network_too() -> None:
    network = tiny()
    arrays = timm_arrays(network, 1 + 2 * 2)
    whole, split = (
        fill(each, arrays, timm_vit.layout, timm_vit.unused, keep_head=True)
        for each in (network, network.after(2)[0])
    )
    np.testing.assert_allclose(split(IMAGE), whole(IMAGE), atol=1e-5)


def test_a_deeper_network_s_file_is_refused() -> None:
    deeper = VisionTransformer((8, 8, 3), 3, KEY, width=8, depth=6, heads=2, patch=4)
    with pytest.raises(WeightsError, match=r"the network has no place for blocks\.5"):
        fill(tiny(), timm_arrays(deeper, 5), timm_vit.layout, timm_vit.unused, keep_head=True)
    with pytest.raises(WeightsError, match=r"the file lacks blocks\.5"):
        fill(deeper, timm_arrays(tiny(), 5), timm_vit.layout, timm_vit.unused, keep_head=True)
