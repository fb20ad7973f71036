"""Residual networks of the public kind: published sizes, layers against their definitions, weights,
clipping."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import assert_close, classes, entropy, everyone, flat, random
from pace import paced

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError, WeightsError
from sfumato.core.trees import leaf_names
from sfumato.networks import catalog, nfnet, resnet
from sfumato.networks.layers.basic import SqueezeExcite
from sfumato.networks.layers.convolutions import AffineConv, BareConv, ScaledConv
from sfumato.networks.layers.pooling import halve, max_pool_padded
from sfumato.networks.layers.standardization import unit_kernel
from sfumato.networks.nfnet import GAMMA, NF_RESNET50, NFNetDesign, NormFreeNet
from sfumato.networks.resnet import ResNet, ResNetDesign
from sfumato.networks.resnetv2 import ResNetV2, ResNetV2Design
from sfumato.weights import timm_nfnet, timm_resnet, timm_resnetv2
from sfumato.weights.entries import folded_conv, folded_norm
from sfumato.weights.layout import fill

KEY = jax.random.key(0)

# -- sizes. Parameters with 1000 classes, as timm 1.0 counts them; NFNets also 2102.06171, in
# millions

GROUP_NORM = {
    "resnet18_gn": 11_689_512,
    "resnet34_gn": 21_797_672,
    "resnet50_gn": 25_557_032,
    "resnet101_gn": 44_549_160,
}
FOLDED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
}
VERSION_2 = {
    "resnetv2_18": 11_687_720,
    "resnetv2_18_gn": 11_687_720,
    "resnetv2_50": 25_549_352,
    "resnetv2_50_gn": 25_549_352,
    "resnetv2_101": 44_541_480,
    "resnetv2_50x1_bit": 25_549_352,
}
NORM_FREE = {
    "nf_resnet50": 25_557_032,
    "nfnet_f0": 71_489_272,
    "nfnet_f6": 438_359_032,
    "dm_nfnet_f0": 71_489_284,
    "dm_nfnet_f3": 254_924_200,
    "dm_nfnet_f6": 438_359_116,
}
THE_REST = {
    "dm_nfnet_f1": 132_634_256,
    "dm_nfnet_f2": 193_779_228,
    "dm_nfnet_f4": 316_069_172,
    "dm_nfnet_f5": 377_214_144,
}


QUICK = {
    name: size
    for name, size in (GROUP_NORM | VERSION_2 | NORM_FREE).items()
    if "50" in name or name.endswith("f0")
}
"""One of each kind."""


def sizes(name: str) -> dict[str, int]:
    found = catalog.find(name)
    abstract = eqx.filter_eval_shape(found.make, found.input.shape((64, 64, 3)), 1000, KEY)
    return dict(
        zip(leaf_names(abstract), (leaf.size for leaf in jax.tree.leaves(abstract)), strict=True)
    )


@pytest.mark.parametrize(
    "name, published",
    paced((GROUP_NORM | VERSION_2 | NORM_FREE | THE_REST).items(), *QUICK.items()),
)
def test_networks_have_the_published_number_of_parameters(name: str, published: int) -> None:
    assert sum(sizes(name).values()) == published


@pytest.mark.parametrize("name, published", FOLDED.items())
def test_a_folded_norm_leaves_one_of_its_two_parameters_per_channel(
    name: str, published: int
) -> None:
    found = sizes(name)
    channels = sum(
        size
        for leaf, size in found.items()
        if leaf.endswith("bias") and not leaf.startswith("head")
    )
    assert channels > 4000 and sum(found.values()) + channels == published


# -- tiny ones

TINY = {
    "resnet": lambda key: ResNet(3, 3, key, ResNetDesign((1, 2), True, 0, (4, 6), 4)),
    "resnet_gn": lambda key: ResNet(3, 3, key, ResNetDesign((1, 1), False, 2, (4, 6), 4)),
    "resnetv2": lambda key: ResNetV2(3, 3, key, ResNetV2Design((1, 2), True, "affine", (4, 6), 4)),
    "resnetv2_gn": lambda key: ResNetV2(
        3, 3, key, ResNetV2Design((1, 1), False, "group", (4, 6), 4)
    ),
    "bit": lambda key: ResNetV2(3, 3, key, ResNetV2Design((1, 1), True, "bit", (4, 6), 4)),
    "nf_resnet": lambda key: NormFreeNet(
        3, 3, key, replace(NF_RESNET50, depths=(1, 1), widths=(8, 16), stem=4)
    ),
    "dm_nfnet": lambda key: NormFreeNet(
        3, 3, key, NFNetDesign((1, 2), (8, 16), 8, group=4, final=12, deepmind=True)
    ),
    "nfnet": lambda key: NormFreeNet(3, 3, key, NFNetDesign((1, 1), (8, 16), 8, group=4, final=12)),
}


def shaken(tree, seed: int = 0):
    """Random leaves in the place of its own: an initial network has branches that start at 0.
    Compiles nothing."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(draw.standard_normal(leaf.shape) / 2, jnp.float32), tree
    )


def tiny(name: str):
    return shaken(eqx.filter_eval_shape(TINY[name], KEY))


def images(side: int, count: int = 5):
    return jnp.asarray(random(count, side, side, 3))


BLOCKS = {
    "resnet_gn": lambda: resnet.Block(ResNetDesign((1,), False, 2), 8, 8, KEY, 1),
    "resnet": lambda: resnet.Block(ResNetDesign((1,), True, 0), 8, 2, KEY, 1),
    "nf_resnet": lambda: nfnet.Block(NF_RESNET50, 8, 8, KEY, 1, 1.0),
    "dm_nfnet": lambda: nfnet.Block(NFNetDesign((1,), group=4, deepmind=True), 8, 8, KEY, 1, 1.0),
}


@pytest.mark.parametrize(
    "name",
    ["resnet_gn", *(pytest.param(each, marks=pytest.mark.slow) for each in list(BLOCKS)[1:])],
)
def test_a_block_starts_as_its_skip_path(name: str) -> None:
    """Whatever its first convolution says, the last is silent."""
    block = BLOCKS[name]()
    changed = eqx.tree_at(lambda each: each.convs[0], block, shaken(block.convs[0]))
    louder = eqx.tree_at(lambda each: each.convs[-1], changed, shaken(block.convs[-1]))
    if name == "dm_nfnet":
        louder = eqx.tree_at(lambda each: each.skip_gain, louder, jnp.ones(()))
    run = eqx.filter_jit(lambda each: each(jnp.asarray(random(4, 4, 8))))
    np.testing.assert_array_equal(run(block), run(changed))
    assert not np.allclose(run(block), run(louder), atol=1e-3)


@pytest.mark.parametrize("name", TINY)
def test_the_last_blocks_are_what_after_selects(name: str) -> None:
    network = tiny(name)
    same, select = network.after(1)
    chosen = select(same)
    assert same is network and chosen[0] is network.blocks[-1] and chosen[-1] is network.head
    assert len(chosen) == 1 + len(network.ending())
    marked = eqx.tree_at(
        select, network, replace_fn=lambda part: jax.tree.map(lambda leaf: leaf * np.nan, part)
    )
    names, last = leaf_names(network), f"blocks/{network.depth - 1}/"
    left = [
        leaf
        for leaf, array in zip(names, jax.tree.leaves(marked), strict=True)
        if not np.isnan(array).any()
    ]
    assert left == [
        leaf for leaf in names if leaf.startswith(("stem", "blocks")) and not leaf.startswith(last)
    ]
    with pytest.raises(ArgumentError, match=f"has {network.depth} blocks"):
        network.after(network.depth + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "resnetv2_gn", "bit", "dm_nfnet"])
def test_clipped_sums_are_those_of_the_slow_twin(name: str) -> None:
    """Every kind of block and norm in one of them."""
    params, static = eqx.partition(tiny(name), eqx.is_inexact_array)
    batch = images(17), jnp.asarray(classes())

    def loss(p, example):
        return entropy(eqx.combine(p, static)(example[0]), example[1])

    fast, slow = (
        flat(
            jax.jit(clipped_grad(loss, 0.5, method=method).__call__)(
                params, batch, everyone()
            ).value
        )
        for method in ("auto", "materialize")
    )
    assert_close(fast, slow, 1e-5)
    assert all(
        np.abs(leaf).max() > 0
        for leaf in jax.tree.leaves(jax.grad(loss)(params, (batch[0][0], batch[1][0])))
    )


LAYERS = {
    "ScaledConv": lambda key: ScaledConv(2, 4, 3, key, 2, groups=2, gamma=1.7),
    "SqueezeExcite": lambda key: SqueezeExcite(2, 3, key),
    "BareConv": lambda key: BareConv(2, 4, 3, key, standardized=1e-8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_clipped_sums_of_new_layers(name: str) -> None:
    params, static = eqx.partition(
        shaken(eqx.filter_eval_shape(LAYERS[name], KEY)), eqx.is_inexact_array
    )
    batch = jnp.asarray(random(5, 5, 5, 2))

    def loss(p, image):
        return jnp.mean(jnp.tanh(eqx.combine(p, static)(image)) ** 2)

    fast, slow = (
        flat(
            jax.jit(clipped_grad(loss, 0.01, method=method).__call__)(
                params, batch, everyone()
            ).value
        )
        for method in ("auto", "materialize")
    )
    assert_close(fast, slow, 1e-5)


# -- layers


def test_padding_is_symmetric_whatever_the_stride() -> None:
    image, kernel = random(8, 8, 1), random(7, 7, 1, 1)
    got = eqx.tree_at(
        lambda conv: conv.kernel, AffineConv(1, 1, 7, KEY, stride=2), jnp.asarray(kernel)
    )(jnp.asarray(image))
    padded = np.pad(image[..., 0], 3)
    expected = [
        [(padded[i : i + 7, j : j + 7] * kernel[..., 0, 0]).sum() for j in range(0, 8, 2)]
        for i in range(0, 8, 2)
    ]
    np.testing.assert_allclose(got[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("height, width", [(6, 6), (5, 6), (7, 5), (1, 1)])
def test_pools_against_their_definitions(height: int, width: int) -> None:
    image = random(height, width, 2)
    rows, columns = range(0, height, 2), range(0, width, 2)
    means = [[image[i : i + 2, j : j + 2].mean((0, 1)) for j in columns] for i in rows]
    np.testing.assert_allclose(halve(jnp.asarray(image)), means, atol=1e-6)
    maxima = [
        [image[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max((0, 1)) for j in columns]
        for i in rows
    ]
    np.testing.assert_array_equal(max_pool_padded(jnp.asarray(image)), maxima)


def test_halving_keeps_half_precision() -> None:
    half = jnp.ones((3, 3, 1), jnp.bfloat16)
    assert halve(half).dtype == max_pool_padded(half).dtype == jnp.bfloat16


def test_a_unit_kernel_has_mean_0_and_variance_1() -> None:
    kernel = np.asarray(unit_kernel(jnp.asarray(3 * random(3, 3, 4, 5) + 2), 1e-8))
    np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(kernel.var((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("nonlinearity", GAMMA)
def test_a_scaled_convolution_keeps_the_variance_that_the_nonlinearity_took(
    nonlinearity: str,
) -> None:
    signal = getattr(jax.nn, nonlinearity)(jnp.asarray(random(48, 48, 64)))
    out = ScaledConv(64, 64, 1, KEY, gamma=GAMMA[nonlinearity])(signal)
    assert 0.95 < float(out.var((0, 1)).mean()) < 1.05


def test_blocks_expect_the_variance_that_the_blocks_before_them_make() -> None:
    """1, then + alpha^2 = 0.04 per block, starting anew behind each stage's first."""
    plan = NFNetDesign((3, 2), (8, 16), 8, group=4, final=12)
    network = eqx.filter_eval_shape(lambda key: NormFreeNet(3, 3, key, plan), KEY)
    np.testing.assert_allclose(
        [block.beta**-2 for block in network.blocks], [1, 1.04, 1.08, 1.12, 1.04]
    )


# -- weights


def state_dict(network, layout) -> dict[str, np.ndarray]:
    """The network's arrays under the file's names, in the file's order of axes."""
    leaves = dict(zip(leaf_names(network), map(np.asarray, jax.tree.leaves(network)), strict=True))
    found = {}
    for entry in layout.layout(network):
        array = leaves[entry.ours]
        found[entry.theirs[0]] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return found


def small(depths: tuple[int, ...], classes: int = 3, groups: int = 2, seed: int = 0) -> ResNet:
    plan = ResNetDesign(depths, False, groups, (4, 6), 4)
    return shaken(eqx.filter_eval_shape(lambda key: ResNet(3, classes, key, plan), KEY), seed)


def test_weights_go_where_they_belong_and_the_head_may_stay() -> None:
    saved = small((2, 1), seed=1)
    arrays = state_dict(saved, timm_resnet) | {"bn1.num_batches_tracked": np.int64(9)}
    filled = fill(small((2, 1)), arrays, timm_resnet.layout, timm_resnet.unused, keep_head=True)
    assert eqx.tree_equal(filled, saved)
    other = small((2, 1), classes=7)
    kept = fill(other, arrays, timm_resnet.layout, timm_resnet.unused, keep_head=False)
    np.testing.assert_array_equal(kept.head.weight, other.head.weight)
    np.testing.assert_array_equal(
        kept.blocks[2].convs[1].conv.kernel, filled.blocks[2].convs[1].conv.kernel
    )


@pytest.mark.parametrize(
    "size, problem",
    [
        (((2, 2),), r"lacks layer2\.1\.bn1\.bias, layer2\.1\.bn1\.weight, .* and 1 more"),
        (((1, 1),), r"no place for layer1\.1\.bn1\.bias, .* and 1 more"),
        (
            ((2, 1), 7),
            r"of another shape: head/weight \(6, 3\) where the network has \(6, 7\), head/bias",
        ),
        (((2, 1), 3, 0), r"lacks bn1\.running_mean, bn1\.running_var"),
    ],
)
def test_weights_of_another_architecture_are_refused_by_name(size: tuple, problem: str) -> None:
    arrays = state_dict(small((2, 1)), timm_resnet)
    with pytest.raises(WeightsError, match=problem):
        fill(small(*size), arrays, timm_resnet.layout, timm_resnet.unused, keep_head=True)


@pytest.mark.parametrize(
    "name, layout",
    [
        ("resnetv2_gn", timm_resnetv2),
        ("bit", timm_resnetv2),
        ("nf_resnet", timm_nfnet),
        ("dm_nfnet", timm_nfnet),
        ("nfnet", timm_nfnet),
    ],
)
def test_a_layout_names_every_leaf_once_and_no_array_twice(name: str, layout) -> None:
    network = tiny(name)
    entries = list(layout.layout(network))
    assert sorted(entry.ours for entry in entries) == sorted(leaf_names(network))
    theirs = [array for entry in entries for array in entry.theirs]
    assert len(set(theirs)) == len(theirs) and not any(map(layout.unused, theirs))


def test_a_folded_batch_norm_does_what_it_did() -> None:
    draw = np.random.default_rng(0)
    arrays = {
        "conv.weight": random(4, 2, 3, 3),
        "bn.weight": random(4, seed=1),
        "bn.bias": random(4, seed=2),
        "bn.running_mean": random(4, seed=3),
        "bn.running_var": draw.random(4).astype(np.float32),
    }

    def converted(entries):
        return [
            jnp.asarray(entry.convert(*(arrays[name] for name in entry.theirs)), jnp.float32)
            for entry in entries
        ]

    image = jnp.asarray(random(5, 5, 2))
    kernel = jnp.asarray(arrays["conv.weight"].transpose(2, 3, 1, 0))
    maps = np.asarray(
        eqx.tree_at(lambda layer: layer.kernel, BareConv(2, 4, 3, KEY), kernel)(image)
    )
    deviation = np.sqrt(arrays["bn.running_var"] + 1e-5)
    expected = (maps - arrays["bn.running_mean"]) / deviation * arrays["bn.weight"] + arrays[
        "bn.bias"
    ]
    kernel, bias = converted(folded_conv("layer", "conv", "bn"))
    folded = eqx.tree_at(
        lambda layer: (layer.kernel, layer.bias), AffineConv(2, 4, 3, KEY), (kernel, bias)
    )
    np.testing.assert_allclose(folded(image), expected, atol=1e-4)
    scale, shift = converted(folded_norm("layer", "bn"))
    np.testing.assert_allclose(maps * scale + shift, expected, atol=1e-4)
