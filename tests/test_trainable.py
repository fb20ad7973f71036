"""Parts of a network: what each mode trains, and that the rest costs neither gradients nor their
memory."""

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import PRNGKeyArray
from pace import paced

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError
from sfumato.core.trees import leaf_names
from sfumato.features import by_name
from sfumato.networks.backbone import Backbone
from sfumato.networks.image_cost import multiply_adds
from sfumato.networks.trainable import finished, parse, select
from sfumato.networks.vit import VisionTransformer

KEY = jax.random.key(0)
SHAPE = (8, 8, 3)
IMAGES = jax.random.uniform(jax.random.key(3), (4, *SHAPE))
LABELS = jnp.arange(4)


def vit(key: PRNGKeyArray) -> Backbone:
    """Three layers of width 8, its head not zero."""
    network = VisionTransformer(SHAPE, 4, key, width=8, depth=3, heads=2, patch=4)
    return eqx.tree_at(lambda tree: tree.head.weight, network, jax.random.normal(key, (8, 4)))


def make(name: str, key: PRNGKeyArray = KEY) -> Backbone:
    return vit(key) if name == "vit" else by_name.network(name, SHAPE, 4, key).network


named = cache(lambda name: eqx.filter_jit(make)(name, KEY))
scores = eqx.filter_jit(lambda network: jax.vmap(network)(IMAGES))


def trained(name: str, mode: str) -> set[str]:
    """By abstract evaluation."""
    return set(
        leaf_names(
            eqx.filter_eval_shape(lambda key: eqx.filter(*select(make(name, key), mode, key)), KEY)
        )
    )


def test_each_mode_names_its_leaves() -> None:
    wrn, vit, cnn = "wrn-10-1", "vit", "cnn"
    head = {"head/weight", "head/bias"}
    everything = trained(wrn, "all")
    assert len(everything) == 52
    assert trained(wrn, "head") == trained(vit, "head") == head
    assert trained(wrn, "last:1") == {
        name for name in everything if name.startswith(("blocks/2", "norm/", "head/"))
    }
    assert trained(wrn, "last:3") == {name for name in everything if not name.startswith("stem/")}
    assert trained(wrn, "norms") == head | {
        name for name in everything if name.endswith(("/scale", "/shift"))
    }
    assert trained(wrn, "bias") == head | {
        name for name in everything if name.endswith(("/bias", "/shift"))
    }
    assert trained(cnn, "lora:2") == head | {"hidden/down", "hidden/up"}
    below = {name.rsplit("/", 1)[0] for name in trained(vit, "lora:2") - head}
    assert below == {
        "embedding",
        *(f"stacks/0/{each}" for each in ("attention/qkv", "attention/out", "widen", "narrow")),
    }
    assert all(name.startswith(("stacks/1/", "norm/", "head/")) for name in trained(vit, "last:2"))


@pytest.mark.parametrize("model", ["wrn-10-1", "cnn", "vit"])
@pytest.mark.parametrize("mode", ["head", "last:2", "norms", "bias", "lora:2", "all"])
def test_choosing_a_part_leaves_the_function_and_in_the_end_the_structure_as_they_were(
    model: str, mode: str
) -> None:
    network = named(model)
    if (model, mode) in (("wrn-10-1", "lora:2"), ("cnn", "norms")):
        with pytest.raises(ArgumentError, match="train="):
            select(network, mode, KEY)
        return
    chosen, mask = select(network, mode, KEY)
    np.testing.assert_allclose(scores(chosen), scores(network), rtol=1e-5, atol=1e-6)
    assert jax.tree.structure(mask) == jax.tree.structure(chosen)
    back = finished(chosen)
    assert jax.tree.structure(back) == jax.tree.structure(network)
    for after, before in zip(jax.tree.leaves(back), jax.tree.leaves(network), strict=True):
        np.testing.assert_array_equal(after, before)  # updates begin at zero


@pytest.mark.parametrize("model", ["cnn", "vit"])
def test_merged_updates_compute_what_they_did_beside_their_layers(model: str) -> None:
    chosen, mask = select(named(model), "lora:3", KEY)
    trained, frozen = eqx.partition(chosen, mask)
    moved = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(KEY, leaf.shape), trained)
    network = eqx.combine(moved, frozen)
    apart = scores(network)
    assert np.abs(apart - scores(named(model))).max() > 0.01
    np.testing.assert_allclose(scores(finished(network)), apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("last", "give a number"),
        ("last:0", "give a number"),
        ("lora:x", "give a number"),
        ("head:2", "without a number"),
        ("body", "choose one of"),
        ("last:4", "the network has 3 blocks"),
        ("lora:99", "at most that"),
    ],
)
def test_modes_that_are_refused(mode: str, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        select(named("vit"), mode, KEY)


def test_parsing() -> None:
    assert [parse(mode) for mode in ("head", "last:2", "lora:16")] == [
        ("head", 0),
        ("last", 2),
        ("lora", 16),
    ]


# -- clipped gradients of a part


def clipped(network: Backbone, mode: str, method: str = "auto") -> tuple[Any, tuple[Any, ...]]:
    """(function, its arguments): the clipped sum over IMAGES of the trained part, frozen arrays as
    an argument."""
    chosen, mask = select(network, mode, KEY)
    trained, rest = eqx.partition(chosen, mask)
    frozen, static = eqx.partition(rest, eqx.is_array)

    def function(trained: Any, frozen: Any) -> Any:
        def loss(params: Any, example: Any) -> Any:
            logits = eqx.combine(params, frozen, static)(example[0])
            return optax.softmax_cross_entropy_with_integer_labels(logits, example[1])

        return clipped_grad(loss, 0.5, method=method)(
            trained, (IMAGES, LABELS), jnp.ones(4, bool)
        ).value

    return function, (trained, frozen)


@pytest.mark.parametrize(
    ("model", "mode"),
    paced(
        [("wrn-10-1", "last:1"), ("vit", "last:2"), ("vit", "lora:2"), ("cnn", "bias")],
        ("cnn", "bias"),
    ),
)
def test_the_sum_is_that_of_the_slow_twin(model: str, mode: str) -> None:
    fast, slow = (
        jax.jit(function)(*arguments)
        for function, arguments in (
            clipped(named(model), mode, method) for method in ("auto", "materialize")
        )
    )
    for ours, theirs in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_frozen_has_no_backward_pass() -> None:
    network = named("wrn-10-1")
    forward = 4 * multiply_adds(network, IMAGES[0])
    cost = {
        mode: multiply_adds(function, *arguments) / forward
        for mode in ("head", "last:1", "all")
        for function, arguments in [clipped(network, mode)]
    }
    assert cost["head"] < 1.01  # the forward pass and the head's own products, nothing else
    assert cost["head"] < cost["last:1"] < 2 < 3 < cost["all"]


@pytest.mark.slow
def test_nothing_is_kept_for_a_backward_pass_of_what_is_frozen() -> None:
    memory = {}
    for mode in ("head", "all"):
        function, arguments = clipped(named("wrn-10-1"), mode)
        memory[mode] = (
            jax.jit(function).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
        )
    assert memory["head"] < memory["all"] / 2
