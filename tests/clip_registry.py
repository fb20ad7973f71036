"""A registry of losses: name -> (loss of ONE example, params, batch of B examples).

Each entry is a way in which a parameter can meet an example; the laws of the engine hold for all of
them. Here are products, gathers and arithmetic; `clip_programs.py` has control flow and inner
transformations, `clip_networks.py` convolutions and whole networks.
"""

import jax
import jax.numpy as jnp
import numpy as np
from clip_helpers import B, classes, entropy, random, rows, weights
from clip_networks import NETWORKS
from clip_programs import PROGRAMS
from jax import lax

SIMPLE = {}


def entry(make):
    SIMPLE[make.__name__] = make
    return make


# -- products


@entry
def linear():
    return (
        lambda p, e: entropy(e[0] @ p["w"] + p["b"], e[1]),
        {"w": random(4, 3), "b": random(3, seed=1)},
        rows(4),
    )


@entry
def mlp():
    return (
        lambda p, e: entropy(jnp.tanh(e[0] @ p[0] + p[1]) @ p[2], e[1]),
        weights((6, 8), (8,), (8, 3)),
        rows(6),
    )


@entry
def bias_only():
    return lambda p, e: entropy(e[0] + p, e[1]), np.zeros(3, np.float32), rows(3)


@entry
def weight_on_the_left():
    return (
        lambda p, e: entropy(p[1] @ jnp.tanh(p[0] @ e[0]).sum(1), e[1]),
        weights((4, 5), (3, 4)),
        rows(6, 5),
    )


@entry
def a_weight_per_head():
    """Batch axes on the weight and on the data."""

    def loss(p, e):
        heads = jnp.einsum("hqd,hdk->hqk", e[0].reshape(5, 2, 3).transpose(1, 0, 2), p[0])
        return entropy(jnp.einsum("hqk,hkc->qc", jnp.tanh(heads), p[1]).mean(0), e[1])

    return loss, weights((2, 3, 4), (2, 4, 3)), rows(6, 5)


@entry
def five_axes():
    """Two batch axes, two contracted axes in unequal order, free axes on both sides."""

    def loss(p, e):
        dims = (((2, 4), (3, 1)), ((1, 3), (4, 2)))
        return jnp.sum(jnp.sin(lax.dot_general(e, p, dims)) ** 2)

    return loss, random(3, 4, 3, 2, 2), random(B, 2, 2, 2, 3, 4, seed=1)


@entry
def three_operands():
    return (
        lambda p, e: entropy(jnp.einsum("td,dr,rk->k", e[0], *p), e[1]),
        weights((4, 2), (2, 3)),
        rows(4, 5),
    )


@entry
def bilinear():
    """A weight between two halves of one example."""
    return (
        lambda p, e: jnp.einsum("i,ij,j", e[0], p, e[1]) ** 2,
        random(4, 3),
        (random(B, 4), random(B, 3, seed=1)),
    )


@entry
def products_of_parameters():
    def loss(p, e):
        w, u, v = p
        return entropy(e[0] @ (w @ w) @ jax.nn.softmax(w * w) @ jnp.outer(u, v), e[1])

    return loss, weights((4, 4), (4,), (3,)), rows(4)


@entry
def lora_merged():
    frozen = random(4, 3, seed=5)
    return lambda p, e: entropy(e[0] @ (frozen + p["a"] @ p["b"]), e[1]), lora(), rows(4)


@entry
def lora_apart():
    frozen = random(4, 3, seed=5)
    return (
        lambda p, e: entropy((e[0] @ frozen + e[0] @ p["a"] @ p["b"]).mean(0), e[1]),
        lora(),
        rows(4, 6),
    )


def lora():
    return {"a": random(4, 2), "b": random(2, 3, seed=1)}


@entry
def ensemble():
    """vmap over the members of stacked parameters."""

    def loss(p, e):
        scores = jax.vmap(lambda w, b: jnp.tanh(e[0] @ w + b))(*p)
        return entropy(scores.mean(0), e[1])

    return loss, weights((3, 4, 3), (3, 3)), rows(4)


@entry
def mixed_precision():
    """Factors in bfloat16, product in float32."""

    def loss(p, e):
        half = [each.astype(jnp.bfloat16) for each in (e[0], p)]
        return entropy(jnp.dot(*half, preferred_element_type=jnp.float32).mean(0), e[1])

    return loss, random(4, 3), rows(4, 5)


@entry
def half_inside():
    """Parameters cast to bfloat16 inside the loss."""

    def loss(p, e):
        w, b, v = (each.astype(jnp.bfloat16) for each in p)
        return entropy(
            (jnp.tanh(e[0].astype(jnp.bfloat16) @ w + b) @ v).astype(jnp.float32).mean(0), e[1]
        )

    return loss, weights((6, 8), (8,), (8, 3)), rows(6, 3)


# -- one parameter at several places


@entry
def tied():
    """An autoencoder: one weight used twice."""
    return (
        lambda p, x: jnp.sum((jnp.tanh(x @ p["w"]) @ p["w"].T - x) ** 2),
        {"w": random(6, 3)},
        random(B, 6, seed=1),
    )


@entry
def a_weight_and_its_transpose():
    return (
        lambda p, e: entropy((jnp.tanh(e[0] @ p + e[0] @ p.T) @ p)[:3], e[1]),
        random(4, 4),
        rows(4),
    )


@entry
def two_places():
    return (
        lambda p, e: entropy(jnp.tanh(e[0][0] @ p) + jnp.sin(e[0][1:] @ p).sum(0), e[1]),
        random(4, 3),
        rows(4, 5),
    )


@entry
def many_ways():
    """Looked up, multiplied, added, and scaled by: one parameter."""

    def loss(p, e):
        hidden = p[e[1]] * e[0] + p.sum(0)
        return entropy(hidden @ p.T, e[1]) * (1 + jnp.sum(p[0, 0] ** 2))

    return loss, random(3, 4), rows(4)


@entry
def slices_of_a_stack():
    return (
        lambda p, e: entropy(jnp.tanh(jnp.tanh(e[0] @ p[0]) @ p[1])[:3], e[1]),
        random(3, 4, 4),
        rows(4),
    )


@entry
def overlapping_slices():
    return (
        lambda p, e: entropy(jnp.tanh(e[0] @ p[:3]) @ p[1:, :2].T[:, :3], e[1]),
        random(4, 2),
        rows(3),
    )


# -- gathers


def words(low, high):
    return np.random.default_rng(0).integers(low, high, (B, 6)).astype(np.int32), classes()


def table():
    return {"table": random(11, 4), "head": random(4, 3, seed=1)}


@entry
def embedding():
    return lambda p, e: entropy(p["table"][e[0]].mean(0) @ p["head"], e[1]), table(), words(0, 11)


@entry
def embedding_of_words_that_do_not_exist():
    """Repeated words and words out of range: clipped, wrapped, left out, and whatever an index does
    by itself."""

    def loss(p, e):
        ways = [
            p["table"].at[e[0]].get(mode="clip"),
            jnp.take(p["table"], e[0], axis=0, mode="wrap"),
            jnp.take(p["table"], e[0], axis=0, mode="fill", fill_value=0),
            p["table"][e[0]],
        ]
        return entropy(
            sum(jnp.tanh((i + 1) * way).mean(0) for i, way in enumerate(ways)) @ p["head"], e[1]
        )

    return loss, table(), words(-4, 16)


@entry
def tied_embedding():
    """The table of words is also the output projection."""
    return lambda p, e: entropy(jnp.tanh(p[e[0]]).mean(0) @ p.T, e[1]), random(11, 4), words(0, 4)


@entry
def a_slice_chosen_by_the_example():
    def loss(p, e):
        window = lax.dynamic_slice(p, (e[1], 0), (3, 3))
        return entropy(e[0] @ window, e[1])

    return loss, random(5, 3), rows(3)


@entry
def scattered():
    """Data written into a parameter."""
    return lambda p, e: entropy(jnp.tanh(p.at[e[1]].add(e[0])).sum(0), e[1]), random(4, 3), rows(3)


# -- element by element


@entry
def temperature():
    params = {"w": random(4, 3), "scale": np.float32(0.3)}
    return lambda p, e: entropy(e[0] @ p["w"] * jnp.exp(p["scale"]), e[1]), params, rows(4)


@entry
def layer_norm():
    def loss(p, e):
        normal = jax.nn.standardize(e[0], epsilon=1e-5) * p["scale"] + p["shift"]
        return entropy(normal.mean(0), e[1])

    return loss, {"scale": 1 + random(3) / 4, "shift": random(3, seed=1)}, rows(3, 4)


@entry
def larger_of_parameter_and_data():
    def loss(p, e):
        return entropy(jnp.maximum(p[0], e[0]) + jnp.where(e[0] > 0, p[1], e[0] ** 2), e[1])

    return loss, weights((3,), (3,)), rows(3)


@entry
def a_parameter_chosen_by_the_example():
    def loss(p, e):
        chosen = jnp.where(e[0].sum() > 0, p[0], p[1])
        return entropy(chosen * e[0] + e[0] @ jnp.where(e[0][0] > 0, p[2], -p[3]), e[1])

    return loss, weights((3,), (3,), (3, 3), (3, 3)), rows(3)


@entry
def concatenated():
    """Two parameters and data in one equation, as a class token is."""

    def loss(p, e):
        tokens = jnp.concatenate([p["class"], e[0], p["register"]])
        return entropy(jnp.tanh(tokens @ p["w"]).mean(0), e[1])

    return (
        loss,
        {"class": random(1, 4), "register": random(2, 4, seed=1), "w": random(4, 3, seed=2)},
        rows(4, 3),
    )


@entry
def spectral():
    """A parameter that is complex on its way."""

    def loss(p, e):
        return entropy(jnp.fft.irfft(jnp.fft.rfft(e[0]) * jnp.fft.rfft(p), 6)[:3], e[1])

    return loss, random(6), rows(6)


@entry
def solved():
    return (
        lambda p, e: entropy(jnp.linalg.solve(3 * jnp.eye(3) + p, e[0]), e[1]),
        random(3, 3) / 2,
        rows(3),
    )


@entry
def penalized():
    """The loss has a term that no example enters."""

    def loss(p, e):
        return entropy(e[0] @ p["w"], e[1]) + 0.1 * jnp.sum(p["w"] ** 2) + jnp.sum(p["alone"] ** 3)

    return loss, {"w": random(4, 3), "alone": random(2, seed=1)}, rows(4)


@entry
def unused_leaves():
    def loss(p, e):
        _ = p["looked at"] * 2
        return entropy(e[0] @ p["w"] + 0 * p["times zero"] + lax.stop_gradient(p["stopped"]), e[1])

    params = {
        "w": random(4, 3),
        "unused": random(2),
        "looked at": random(3),
        "times zero": random(3),
        "stopped": random(3),
    }
    return loss, params, rows(4)


REGISTRY = {**SIMPLE, **PROGRAMS, **NETWORKS}
CLASSIC = ["linear", "mlp", "tied", "embedding", "views", "bias_only", "scanned"]
FAST = [
    "mlp",
    "weight_on_the_left",
    "a_weight_per_head",
    "half_inside",
    "tied",
    "many_ways",
    "overlapping_slices",
    "a_slice_chosen_by_the_example",
    "larger_of_parameter_and_data",
    "concatenated",
    "unused_leaves",
    "views",
    "layers_scanned",
    "branches",
    "a_rule_that_is_no_derivative",
    "conv_strided_and_dilated",
    "conv_transposed",
    "conv_depthwise",
    "conv_odd_layout",
]
"""One entry of every kind; the others are for `make test-all`."""
LOOSE = {"half_inside": 3e-2, "mixed_precision": 1e-2}
"""Gradients rounded to bfloat16 on the way, at places that are a method's own choice."""


def built(name):
    loss, params, batch = REGISTRY[name]()
    return loss, jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, batch)
