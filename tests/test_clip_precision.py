"""What accelerators round, emulated (`accelerators.py`): no example exceeds C, whatever it holds, in
any precision and by any algorithm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accelerators import emulated
from clip_helpers import (
    assert_close,
    check_influence,
    everyone,
    flat,
    gradients,
    on_floats,
    random,
    slow_sum,
)
from clip_registry import built
from jax import lax
from pace import paced

from sfumato.clip import clipped_grad, explain
from sfumato.clip.arithmetic import UNROUNDED, Arithmetic, compiled_for
from sfumato.clip.handling import handle
from sfumato.clip.trace import trace_loss
from sfumato.networks.layers.standardization import unit_kernel

ENGINES = ("book_keeping", "two_pass")
DEVICES = [("gpu", jnp.float32), ("gpu", jnp.bfloat16), ("tpu", jnp.float32)]
"""Platform and type of the activations: TF32, bfloat16, and float32 that a TPU reads 8 bits of."""


def of_type(loss, dtype):
    """The loss, its parameters and its example cast first."""

    def cast(leaf):
        return leaf.astype(dtype)

    if dtype == jnp.float32:
        return loss
    return lambda p, e: loss(on_floats(cast, p), on_floats(cast, e)).astype(jnp.float32)


def arithmetics(loss, params, example, platform):
    with compiled_for(platform):
        plan = handle(trace_loss(loss, params, example))
    return plan, {site.rule.arithmetic for site in plan.sites.values()}


# -- examples made to cancel

WEIGHTS, OUTPUTS = np.float32([3, 5, 1]), np.arange(1, 33, dtype=np.float32)
"""Of the three positions that count, and of the outputs: cotangents are their products, exact in 8
bits."""


def canceling(positions, size):
    """Rows of which the first two cancel exactly, 3 x 5 - 5 x 3, in numbers of 8 bits, and the third
    is small: all that is left of them is what rounding c g leaves."""
    rows = np.zeros((5, positions, 32), np.float32)
    huge = np.random.default_rng(1).integers(1, 16, (5, 32)) * np.float32(size)
    rows[:, 0], rows[:, 1] = 5 * huge, -3 * huge
    rows[:, 2] = np.random.default_rng(2).integers(1, 16, (5, 32))
    return jnp.asarray(rows)


def weighed(maps):
    """The loss: every output times its weight, in the type of the maps."""
    shares = np.zeros(maps.shape, np.float32)
    shares[:3] = np.outer(WEIGHTS, OUTPUTS)
    return jnp.sum(maps.astype(jnp.float32) * shares)


def dense_rows(p, x):
    return weighed(x @ p.astype(x.dtype))


def transposed(p, x):
    return weighed((p.T.astype(x.dtype) @ x.T).T)


def scanned(p, x):
    p = p.astype(x.dtype)
    return weighed(lax.scan(lambda carry, row: (carry, row @ p), 0.0, x)[1])


def convolved(p, x, kernel=lambda p: p):
    maps = lax.conv_general_dilated(
        x[None],
        kernel(p[None]).astype(x.dtype),
        (1,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return weighed(maps[0])


def standardized(p, x):
    """A 1 x 1 convolution whose kernel is standardized."""
    maps = lax.conv_general_dilated(
        x[None, None],
        unit_kernel(p, 1e-5).astype(x.dtype),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return weighed(maps[0, 0])


ATTACKED = {
    "gram": (dense_rows, 3, "gram", False),
    "gram, transposed": (transposed, 3, "gram", False),
    "gram, in a loop": (scanned, 3, "gram", False),
    "gram, convolved": (convolved, 3, "gram", False),
    "kept": (dense_rows, 40, "outer", True),
    "standardized, formed again": (standardized, 3, "outer", False),
    "standardized, kept": (standardized, 16, "outer", True),
}


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("platform, dtype", DEVICES)
@pytest.mark.parametrize("name", paced(ATTACKED, "gram", "standardized, formed again"))
def test_an_example_whose_positions_cancel_is_bounded(name, platform, dtype, method):
    loss, positions, how, keeps = ATTACKED[name]
    own = lambda p, x: loss(p, x.astype(dtype))  # noqa: E731
    params, clip_norm = jnp.asarray(random(*(1, 1) * (loss is standardized), 32, 32)), 0.1
    out = emulated(clipped_grad(own, clip_norm, method=method).__call__, platform)
    plan, _ = arithmetics(own, params, canceling(positions, 1.0)[0], platform)
    assert [(part.how, part.keeps) for part in plan.parts] == [(how, keeps)]
    for size in (2.0**4, 2.0**12):
        assert check_influence(out, params, canceling(positions, size), clip_norm) > 0


# -- ordinary examples


@pytest.mark.parametrize("platform, dtype", DEVICES)
@pytest.mark.parametrize(
    "name, method",
    paced(
        [(name, method) for name in ("mlp", "vit", "cnn", "tied") for method in ENGINES],
        ("mlp", "book_keeping"),
        ("tied", "two_pass"),
    ),
)
def test_ordinary_examples_are_bounded_and_lose_little(name, method, platform, dtype):
    """So no sum is rounded after the clip: an example at the bound would pass it by 2^-9."""
    loss, params, batch = built(name)
    loss = of_type(loss, dtype)
    norms = np.linalg.norm(gradients(loss, params, batch), axis=1)
    clipped = clipped_grad(loss, float(norms.min()) / 2, method=method)
    largest = check_influence(
        emulated(clipped.__call__, platform), params, batch, clipped.sensitivity.add_or_remove
    )
    assert largest > 0.93 * clipped.sensitivity.add_or_remove


def test_the_sum_is_that_of_the_slow_loop_but_for_the_rounding():
    loss, params, batch = built("mlp")
    each = gradients(loss, params, batch)
    out = emulated(clipped_grad(loss, 0.5).__call__, "gpu")
    assert_close(flat(out(params, batch, everyone()).value), slow_sum(each, everyone(), 0.5), 1e-2)


# -- the choice


def dense(positions, dtype, precision=None):
    loss = lambda p, x: jnp.sum(jnp.dot(x, p.astype(dtype), precision=precision)).astype(  # noqa: E731
        jnp.float32
    )
    return loss, jnp.ones((8, 8)), jnp.ones((positions, 8), dtype)


@pytest.mark.parametrize(
    "platform, dtype, precision, positions, wanted",
    [
        ("cpu", jnp.bfloat16, None, 4, UNROUNDED),
        ("gpu", jnp.bfloat16, None, 197, Arithmetic(8, 1)),
        ("gpu", jnp.bfloat16, None, 4096, Arithmetic(8, 2)),
        ("gpu", jnp.float16, None, 4, UNROUNDED),
        ("gpu", jnp.float32, None, 4, Arithmetic(11, 1)),
        ("gpu", jnp.float32, "tensorfloat32", 4, Arithmetic(11, 1)),
        ("gpu", jnp.float32, "highest", 4, UNROUNDED),
        ("tpu", jnp.float32, None, 4, Arithmetic(8, 1)),
        ("tpu", jnp.float32, "high", 4, UNROUNDED),
    ],
)
def test_products_are_formed_in_the_type_that_the_equation_computes_in(
    platform, dtype, precision, positions, wanted
):
    assert arithmetics(*dense(positions, dtype, precision), platform)[1] == {wanted}


def test_explain_tells_it():
    with compiled_for("gpu"):
        assert "bfloat16, sum in 1 pass" in explain(*dense(4, jnp.bfloat16))
        assert "TF32, sum in 1 pass" in explain(*dense(4, jnp.float32))
    assert "float32" in explain(*dense(4, jnp.bfloat16))


@pytest.mark.parametrize("bits, parts", [(8, 1), (8, 2), (11, 1)])
def test_parts_are_off_by_no_more_than_they_say(bits, parts):
    arithmetic, numbers = Arithmetic(bits, parts), jnp.asarray(random(4096))
    cut = jax.jit(lambda y: sum(part.astype(jnp.float32) for part in arithmetic.cut(y)))(numbers)
    off = np.abs(np.asarray(cut, np.float64) - np.asarray(numbers, np.float64))
    worst = float((off / np.abs(numbers)).max())
    assert arithmetic.error / 16 < worst <= arithmetic.error
