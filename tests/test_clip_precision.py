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
from test_clip_engine import CANCELING, canceling, dense_sum, in_two_places

from sfumato.clip import clipped_grad, explain
from sfumato.clip.arithmetic import UNROUNDED, Arithmetic, compiled_for
from sfumato.clip.handling import handle
from sfumato.clip.trace import trace_loss
from sfumato.networks.layers.standardization import standardize, unit_kernel

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


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("platform, dtype", DEVICES)
@pytest.mark.parametrize(
    "loss", paced(CANCELING, dense_sum, in_two_places), ids=lambda loss: loss.__name__
)
def test_an_example_whose_positions_cancel_is_bounded(loss, platform, dtype, method):
    """Rounding its factor times its cotangents leaves what cancels before: 2^-8 of huge terms."""
    out = emulated(clipped_grad(of_type(loss, dtype), 0.1, method=method).__call__, platform)
    params = jnp.asarray(random(16, 8))
    for size, remainder in ((1e4, 1e-3), (1e7, 1.0)):
        check_influence(out, params, canceling(3, 16, size, int(size), remainder), 0.1)


def standardized_sum(how, positions):
    """A 1 x 1 convolution whose kernel is standardized, its outputs added up with weights."""
    shares = 3e3 * (1 + np.arange(32.0, dtype=np.float32))

    def loss(p, x):
        kernel = (how(p, jnp.ones(32)) if how is standardize else how(p, 1e-5)).astype(x.dtype)
        maps = lax.conv_general_dilated(
            x[None, :, None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(maps * shares.astype(x.dtype)).astype(jnp.float32)

    return loss, jnp.asarray(random(1, 1, 32, 32)), positions


@pytest.mark.parametrize("platform, dtype", DEVICES)
@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("how", paced([standardize, unit_kernel], unit_kernel))
@pytest.mark.parametrize("positions, keeps", [(2, False), (16, True)])
def test_behind_a_standardized_kernel_too(positions, keeps, how, method, platform, dtype):
    """Kept: what is measured is what is summed. Formed again: the sum errs."""
    loss, params, count = standardized_sum(how, positions)
    own = lambda p, x: loss(p, x.astype(dtype))  # noqa: E731
    batch = canceling(count, 32, 1e4, 3, 1e-3)
    plan, _ = arithmetics(own, params, batch[0], platform)
    assert [(part.how, part.keeps) for part in plan.parts] == [("outer", keeps)]
    out = emulated(clipped_grad(own, 0.1, method=method).__call__, platform)
    assert check_influence(out, params, batch, 0.1) > 0


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
