"""Examples and losses made to pass the clip: squares that leave float32, unknown gains,
collectives, complex numbers."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import (
    B,
    alone,
    check_influence,
    everyone,
    flat,
    gradients,
    norm,
    random,
    slow_sum,
)
from jax import lax
from pace import paced

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError
from sfumato.networks.input import Input, public_pixels
from sfumato.networks.layers.standardization import standardize, unit_kernel

ENGINES = ("book_keeping", "two_pass")


def contribution(loss, params, example, clip_norm, method):
    return (
        norm(
            clipped_grad(loss, clip_norm, method=method)(
                params, example[None], jnp.ones(1, bool)
            ).value
        )
        / clip_norm
    )


# -- norms are formed without squares of unbounded numbers


def normed_dense(p, x):
    hidden = x @ p
    return jax.nn.logsumexp(hidden / jnp.linalg.norm(hidden) @ random(64, 10, seed=5))


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("clip_norm", paced([1.0, 0.1, 0.01], 0.01))
def test_a_huge_input_before_a_norm_is_bounded(clip_norm, method):
    """Its cotangents have squares of 0 in float32, and its gradient is not small."""
    x = random(256, seed=3)
    x = jnp.asarray(x * np.float32(1.2e19) / np.linalg.norm(x))
    own = contribution(normed_dense, jnp.asarray(random(256, 64) / 16), x, clip_norm, method)
    assert own <= 1, f"an example contributes {own} C"


# -- nobody knows how much a function of parameters enlarges what rounding changes


def entry_of_a_diagonal(place):
    return lambda w: w * jnp.ones(14).at[place].set(1e5)


def entry_of_a_matrix(place):
    return lambda w: w @ jnp.eye(14).at[place, (place + 3) % 14].set(1e5)


def bent(place):
    return lambda w: jnp.sinh(w + jnp.zeros(14).at[place].set(12.0))


def stacked(place):
    return lambda w: lax.scan(
        lambda total, row: (total, row * jnp.ones(14).at[place].set(1e5)), 0.0, w
    )[1]


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize(
    "chain",
    paced([entry_of_a_diagonal, entry_of_a_matrix, bent, stacked], entry_of_a_diagonal),
    ids=lambda chain: chain.__name__,
)
def test_a_canceling_example_behind_a_large_gain_is_bounded_wherever_the_gain_is(chain, method):
    """The true gradient is next to nothing: it is rounding, times the gain, that is summed."""
    rows = random(1, 1, 64, seed=2)
    batch = jnp.asarray(np.concatenate([1e4 * rows, -1e4 * rows * (1 + 1e-6)], 1), jnp.float32)
    for place in range(14):
        loss = lambda w, x: jnp.sum(x @ chain(place)(w) * random(1, 14, seed=4))  # noqa: B023, E731
        own = contribution(loss, jnp.zeros((64, 14)), batch[0], 0.1, method)
        assert own <= 1, f"with the gain at {place} an example contributes {own} C"


@pytest.mark.parametrize("how", paced([standardize, unit_kernel], standardize))
@pytest.mark.parametrize("method", ENGINES)
def test_a_huge_image_behind_a_standardized_kernel_is_bounded(how, method):
    def loss(p, image):
        maps = lax.conv_general_dilated(
            image[None],
            how(p, jnp.ones(4)) if how is standardize else how(p, 1e-5),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(jnp.sin(maps / jnp.linalg.norm(maps)) * random(4, seed=1))

    for exponent in (-110, -60, 60, 63, 100, 120):
        image = jnp.asarray(random(2, 2, 3, seed=7) * np.float32(2.0**exponent))
        own = contribution(loss, jnp.asarray(random(3, 3, 3, 4)), image, 0.01, method)
        assert own <= 1, f"times 2^{exponent} an example contributes {own} C"


# -- collectives


def nested(collective):
    inner = jax.jit(lambda x: lax.cond(x.sum() > 0, collective, lambda x: x, x))
    return lambda x: lax.scan(
        lambda total, row: (total + inner(row), None), jnp.zeros(x.shape), x[None]
    )[0]


COLLECTIVES = {
    "pmean": lambda x: lax.pmean(x, "i"),
    "psum": lambda x: lax.psum(x, "i"),
    "axis_index": lambda x: x * lax.axis_index("i"),
    "all_gather": lambda x: lax.all_gather(x, "i").sum(0),
    "inside": nested(lambda x: lax.pmax(lax.stop_gradient(x), "i") + x),
}


@pytest.mark.parametrize("method", ["materialize", *ENGINES])
@pytest.mark.parametrize("name", COLLECTIVES)
@pytest.mark.parametrize("named", [True, False])
def test_a_collective_in_a_loss_is_refused_in_one_line(name, method, named):
    def total(params, batch):
        loss = lambda p, x: jnp.sum(COLLECTIVES[name](x @ p) ** 2)  # noqa: E731
        return clipped_grad(loss, 1.0, method=method)(params, batch, everyone()).value

    params, batch = jnp.asarray(random(4, 3)), jnp.asarray(random(2, B, 4, seed=1))
    with pytest.raises(ArgumentError) as caught:
        jax.vmap(total, (None, 0), axis_name="i")(params, batch) if named else total(
            params, batch[0]
        )
    assert (
        "loss" in str(caught.value) and "mix" in str(caught.value) and "\n" not in str(caught.value)
    )


def test_an_axis_that_the_loss_names_for_its_own_views_is_allowed():
    def loss(p, x):
        return jax.vmap(
            lambda view: jnp.sum((view @ p - lax.pmean(view @ p, "views")) ** 2), axis_name="views"
        )(x).sum()

    params, batch = jnp.asarray(random(4, 3)), jnp.asarray(random(B, 2, 4, seed=1))
    got = clipped_grad(loss, 0.1)(params, batch, everyone()).value
    np.testing.assert_allclose(
        flat(got), slow_sum(gradients(loss, params, batch), everyone(), 0.1), atol=1e-5
    )


def test_a_name_that_is_not_defined_is_told_as_python_tells_it():
    with pytest.raises(NameError, match="undefined"):
        clipped_grad(lambda p, x: undefined, 1.0)(jnp.ones(3), jnp.ones((B, 3)), everyone())  # noqa: F821


# -- complex numbers


COMPLEX = {"parts": lambda p: p[0] + 1j * p[1], "cast": lambda p: p[0].astype(jnp.complex64)}


@pytest.mark.parametrize(
    "made, method",
    paced(product(COMPLEX, ENGINES), ("parts", "two_pass"), ("cast", "book_keeping")),
)
def test_weights_that_are_complex_on_their_way_are_clipped_as_the_slow_loop_would(made, method):
    make = COMPLEX[made]

    def loss(p, x):
        return jnp.sum(jnp.abs(x.astype(jnp.complex64) @ make(p) + 1j) ** 2)

    params, batch = jnp.asarray(random(2, 4, 3)), jnp.asarray(random(B, 2, 4, seed=1))
    got = clipped_grad(loss, 1.0, method=method)(params, batch, ~alone(1)).value
    np.testing.assert_allclose(
        flat(got), slow_sum(gradients(loss, params, batch), ~alone(1), 1.0), atol=2e-5
    )
    check_influence(clipped_grad(loss, 1.0, method=method), params, batch, 1.0)


# -- pixels


@pytest.mark.parametrize("bad", [1.4e17, -1.4e17, np.inf, -np.inf, np.nan, 3e38])
def test_no_network_sees_a_pixel_out_of_the_public_range(bad):
    image = jnp.full((4, 4, 3), 0.25).at[1, 2, 0].set(bad)
    assert np.isin(public_pixels(image), [0, 0.25, 1]).all()
    for size in (None, 6):
        seen = np.asarray(Input(size, mean=(0.0,), std=(1.0,))(image))
        assert (seen >= 0).all() and (seen <= 1).all()
