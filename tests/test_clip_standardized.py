"""Weight standardization, whose pullback the engine knows, against the slow loop, also where it is
singular."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import (
    B,
    assert_close,
    check_influence,
    everyone,
    flat,
    gradients,
    random,
    slow_sum,
)
from jax import lax
from pace import paced

from sfumato.clip import clipped_grad
from sfumato.clip.handling import handle
from sfumato.clip.trace import trace_loss
from sfumato.networks.layers.convolutions import convolve, convolve_padded
from sfumato.networks.layers.standardization import standardize, unit_kernel

ONE_OUT = jnp.arange(B) != 1
GAINS = {
    "one": [1.0] * 12,
    "mixed": [1.0, -2.0, 0.5] * 4,
    "some zero": [0.0, 1.0, 1e-5, -1e-3, 1e-7, 2.0] * 2,
    "zero": [0.0] * 12,
}


def network(size, stride=1, how=standardize):
    """A standardized convolution of 3 -> 12 features on images of this size; Gram form for small
    ones."""
    params = {
        "kernel": random(3, 3, 3, 12),
        "gain": np.ones(12, np.float32),
        "bias": random(12, seed=1),
    }

    def loss(p, image):
        maps = convolve(image, how(p["kernel"], p["gain"]), stride) + p["bias"]
        return jnp.sum(jnp.tanh(maps) ** 2 * jnp.arange(12.0))

    return loss, jax.tree.map(jnp.asarray, params), jnp.asarray(random(B, size, size, 3, seed=2))


def plan_of(loss, params, batch):
    return handle(trace_loss(loss, params, batch[0]))


@pytest.mark.parametrize("size, stride, how", [(4, 2, "gram"), (2, 1, "gram"), (8, 1, "outer")])
@pytest.mark.parametrize("gains", paced(GAINS, "some zero"))
def test_norms_behind_standardization_are_those_of_the_leaves(size, stride, how, gains):
    loss, params, batch = network(size, stride)
    params["gain"] = jnp.asarray(GAINS[gains], jnp.float32)
    (part,) = [part for part in plan_of(loss, params, batch).parts if part.sites]
    assert part.standardized and part.how == how
    each = gradients(loss, params, batch)
    out = jax.jit(clipped_grad(loss, 0.5 * float(np.linalg.norm(each, axis=1).min())).__call__)
    if gains in ("one", "mixed"):  # elsewhere an upper bound stands in
        clip_norm = float(np.median(np.linalg.norm(each, axis=1)))
        got = jax.jit(clipped_grad(loss, clip_norm).__call__)(params, batch, ONE_OUT)
        assert_close(flat(got.value), slow_sum(each, ONE_OUT, clip_norm), 2e-5)
    assert (
        check_influence(
            out, params, batch, out(params, batch, everyone()).sensitivity.add_or_remove
        )
        > 0
    )


@pytest.mark.parametrize("factor", paced([0.0, 1e-4, 1.0, 1e4], 0.0))
def test_a_kernel_below_the_floor_is_bounded(factor):
    loss, params, batch = network(2)
    params["kernel"] = factor * params["kernel"] + 3
    each = gradients(loss, params, batch)
    clip_norm = 0.5 * float(np.linalg.norm(each, axis=1).min())
    out = jax.jit(clipped_grad(loss, clip_norm).__call__)
    assert check_influence(out, params, batch, clip_norm) > 0.99 * clip_norm


# -- of unit variance, with an epsilon, without a gain


def unit_network(size, stride=1, groups=1, epsilon=1e-5, how=unit_kernel):
    """Its gain, some of it 0, multiplies the maps, as in networks without normalization."""
    params = {
        "kernel": random(3, 3, 3 // groups, 12),
        "gain": np.array([1, -2, 0, 1e-5] * 3, np.float32),
        "bias": random(12, seed=1),
    }

    def loss(p, image):
        maps = (
            convolve_padded(image, how(p["kernel"], epsilon), stride, groups) * p["gain"]
            + p["bias"]
        )
        return jnp.sum(jnp.tanh(maps) ** 2 * jnp.arange(12.0))

    return loss, jax.tree.map(jnp.asarray, params), jnp.asarray(random(B, size, size, 3, seed=2))


@pytest.mark.parametrize(
    "size, stride, groups, how, epsilon",
    paced(
        [
            (4, 2, 1, "gram", 1e-8),
            (2, 1, 1, "gram", 1.0),
            (8, 1, 1, "outer", 1.0),
            (2, 2, 3, "gram", 1e-5),
            (8, 1, 3, "outer", 1e-5),
        ],
        (8, 1, 1, "outer", 1.0),
        (2, 2, 3, "gram", 1e-5),
    ),
)
def test_norms_behind_unit_variance_are_those_of_the_kernel(size, stride, groups, how, epsilon):
    loss, params, batch = unit_network(size, stride, groups, epsilon)
    (part,) = [part for part in plan_of(loss, params, batch).parts if part.sites]
    assert part.standardized and part.how == how
    clip_norm = float(np.median(np.linalg.norm(gradients(loss, params, batch), axis=1)))
    out = jax.jit(clipped_grad(loss, clip_norm).__call__)
    assert_close(
        flat(out(params, batch, ONE_OUT).value),
        slow_sum(gradients(loss, params, batch), ONE_OUT, clip_norm),
        2e-5,
    )
    assert check_influence(out, params, batch, clip_norm) > 0.99 * clip_norm


@pytest.mark.parametrize("size, factor", paced([(2, 0.0), (8, 0.0), (2, 1e-2), (8, 1e4)], (2, 0.0)))
def test_kernels_of_any_size_behind_unit_variance(size, factor):
    """At 0 all is epsilon; the norm of each kernel's gradient alone decides its share."""
    loss, params, batch = unit_network(size)
    params["kernel"] = factor * params["kernel"]
    each = gradients(loss, params, batch)
    clip_norm = 0.5 * float(np.linalg.norm(each, axis=1).min())
    out = jax.jit(clipped_grad(loss, clip_norm).__call__)
    assert_close(
        flat(out(params, batch, everyone()).value), slow_sum(each, everyone(), clip_norm), 2e-5
    )
    assert check_influence(out, params, batch, clip_norm) > 0.99 * clip_norm


def test_an_epsilon_that_is_computed_and_another_formula_are_pulled_back():
    @jax.jit
    def almost(kernel, epsilon):
        centered = kernel - kernel.mean((0, 1, 2))
        return centered * lax.rsqrt(jnp.square(centered).sum((0, 1, 2)) + epsilon)

    for how in (almost, lambda kernel, epsilon: unit_kernel(kernel, jnp.exp(kernel[0, 0, 0, 0]))):
        loss, params, batch = unit_network(2, how=how)
        assert not any(part.standardized for part in plan_of(loss, params, batch).parts)
        each = gradients(loss, params, batch)
        clip_norm = float(np.median(np.linalg.norm(each, axis=1)))
        got = jax.jit(clipped_grad(loss, clip_norm).__call__)(params, batch, everyone())
        assert_close(flat(got.value), slow_sum(each, everyone(), clip_norm), 2e-5)


# -- either


def test_kernel_and_gain_in_groups_of_their_own():
    loss, params, batch = network(2)
    got = [
        jax.jit(clipped_grad(loss, 0.5, groups=lambda name: name, method=method).__call__)(
            params, batch, everyone()
        ).value
        for method in ("book_keeping", "two_pass", "materialize")
    ]
    assert_close(flat(got[0]), flat(got[2]), 2e-5)
    assert_close(flat(got[1]), flat(got[2]), 2e-5)


def test_what_only_looks_like_standardization_is_not_taken_for_it():
    @jax.jit
    def almost(kernel, gain):
        centered = kernel - kernel.mean((0, 1, 2))
        return centered * (gain * lax.rsqrt(jnp.maximum(jnp.square(centered).sum((0, 1, 2)), 2e-4)))

    almost.__wrapped__.__name__ = "standardize"
    loss, params, batch = network(2, how=almost)
    assert not any(part.standardized for part in plan_of(loss, params, batch).parts)
    clip_norm = 0.5 * float(np.linalg.norm(gradients(loss, params, batch), axis=1).min())
    check_influence(jax.jit(clipped_grad(loss, clip_norm).__call__), params, batch, clip_norm)


def test_a_bfloat16_network_is_recognized_too():
    loss, params, batch = network(
        2, how=lambda kernel, gain: standardize(kernel, gain).astype(jnp.bfloat16)
    )
    half = lambda p, image: loss(p, image.astype(jnp.bfloat16)).astype(jnp.float32)  # noqa: E731
    (part,) = [part for part in plan_of(half, params, batch).parts if part.sites]
    assert part.standardized and part.how == "outer", (
        "the output, rounded, would make the Gram form wrong"
    )
    check_influence(jax.jit(clipped_grad(half, 0.1).__call__), params, batch, 0.1)
