"""What cannot be clipped is refused, with words that name the culprit and the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import B, assert_close, everyone, flat, gradients, random, slow_sum
from clip_registry import built
from jax import lax
from jaxtyping import TypeCheckError
from pace import paced

import sfumato.clip
from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError

METHODS = ("materialize", "book_keeping", "two_pass", "auto")
REFUSED = (
    ArgumentError,
    TypeError,
    TypeCheckError,
)  # the tests' type checker may see a wrong type first


def first_part(name):
    return name.split("/")[0]


def refusal(make):
    with pytest.raises(REFUSED) as caught:
        make()
    return caught.value


def says(error, *words):
    """A type checker's message need not be ours."""
    if not isinstance(error, TypeCheckError):
        for word in words:
            assert word in str(error), f"{word!r} is not in {str(error)!r}"


# -- when it is built


@pytest.mark.parametrize(
    "clip_norm",
    [
        0.0,
        -1.0,
        float("nan"),
        1e-25,
        1e30,
        None,
        "1",
        {},
        {"hidden": 0.0, "head": 1.0},
        {"hidden": -1.0, "head": 1.0},
        {"hidden": float("nan"), "head": 1.0},
    ],
)
def test_a_clip_norm_that_cannot_bound_is_refused(clip_norm):
    groups = first_part if isinstance(clip_norm, dict) else "flat"
    says(refusal(lambda: clipped_grad(lambda p, e: p, clip_norm, groups=groups)), "clip_norm")


@pytest.mark.parametrize(
    "setting, value",
    [
        ("method", "ghost"),
        ("method", None),
        ("clipping", "soft"),
        ("groups", "per_leaf"),
        ("groups", None),
        ("groups", 3),
        ("microbatch", 0),
        ("microbatch", -3),
        ("microbatch", 1.5),
        ("microbatch", "big"),
    ],
)
def test_an_unknown_setting_is_refused(setting, value):
    says(refusal(lambda: clipped_grad(lambda p, e: p, 1.0, **{setting: value})), setting)


@pytest.mark.parametrize(
    "bounds, culprit",
    [({"hidden": 1.0}, "head"), ({"hidden": 1.0, "head": 1.0, "tail": 1.0}, "tail")],
)
@pytest.mark.parametrize("groups", ["per_layer", first_part])
@pytest.mark.parametrize("method", METHODS)
def test_clip_norms_that_leave_out_a_group_or_name_one_too_many_are_refused(
    bounds, culprit, groups, method
):
    loss, params, batch = built("two_layers")
    says(
        refusal(
            lambda: clipped_grad(loss, bounds, groups=groups, method=method)(
                params, batch, everyone()
            )
        ),
        culprit,
    )


def test_clip_norms_by_group_without_groups_are_refused():
    loss, params, batch = built("two_layers")
    says(
        refusal(
            lambda: clipped_grad(loss, {"hidden": 1.0, "head": 1.0})(params, batch, everyone())
        ),
        "clip_norm",
    )


@pytest.mark.parametrize("answer", [None, 3, ("a", "b")])
def test_a_grouping_that_answers_with_no_name_is_refused(answer):
    loss, params, batch = built("two_layers")
    clipped = clipped_grad(loss, 1.0, groups=lambda name: answer)
    says(refusal(lambda: clipped(params, batch, everyone())), "groups")


# -- when it is called


def call(loss, params, batch=None, mask=None, method="auto"):
    batch = jnp.asarray(random(B, 4)) if batch is None else batch
    return clipped_grad(loss, 1.0, method=method)(
        params, batch, everyone() if mask is None else mask
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "loss, word",
    [
        (lambda p, e: e @ p["w"], "loss"),
        (lambda p, e: (jnp.sum(e @ p["w"]),), "loss"),
        (lambda p, e: (jnp.sum(e @ p["w"]), {"accuracy": 1.0}), "loss"),
        (lambda p, e: jnp.sum(e @ p["w"]) * 1j, "loss"),
        (lambda p, e: jnp.sum(e @ p["w"] > 0), "loss"),
        (lambda p, e: None, "loss"),
    ],
)
def test_a_loss_that_is_no_real_scalar_is_refused(loss, word, method):
    says(refusal(lambda: call(loss, {"w": jnp.asarray(random(4, 3))}, method=method)), word)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, bool, jnp.complex64])
def test_a_parameter_without_a_real_gradient_is_refused_by_name(dtype, method):
    params = {"w": jnp.asarray(random(4, 3)), "deep": {"count": jnp.ones(3, dtype)}}
    says(
        refusal(lambda: call(lambda p, e: jnp.sum(e @ p["w"]), params, method=method)), "deep/count"
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("params", [{}, [], None, {"a": None}])
def test_no_parameters_are_refused(params, method):
    says(refusal(lambda: call(lambda p, e: jnp.sum(e), params, method=method)), "params")


@pytest.mark.parametrize(
    "mask",
    [np.ones(B), np.ones(B, int), np.ones((B, 1), bool), np.ones(B + 1, bool), np.ones((), bool)],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_mask_that_fits_no_batch_is_refused(mask, method):
    loss, params, batch = built("two_layers")
    refusal(lambda: call(loss, params, batch, jnp.asarray(mask), method))


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_unequal_lengths_is_refused(method):
    loss, params, (rows, labels) = built("linear")
    refusal(lambda: call(loss, params, (rows, labels[:-1]), method=method))
    refusal(lambda: call(loss, params, (rows, labels[0]), method=method))


# -- losses that look at other examples


def convolves(padding, stride=1):
    """A kernel of width 2, behind another layer that needs the gradient for the image."""

    def loss(p, x):
        image = (x * p["scale"])[None, None]
        return jnp.sum(jnp.sin(lax.conv_general_dilated(image, p["kernel"], (stride,), [padding])))

    return loss


KERNEL = {"scale": jnp.asarray(random(6)), "kernel": jnp.asarray(random(1, 1, 2, seed=1))}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("padding", [(-1, 1), (-2, 2), (2, 0), (3, -1)])
def test_a_convolution_that_xla_computes_from_other_examples_is_refused(padding, method):
    says(
        refusal(lambda: call(convolves(padding), KERNEL, jnp.asarray(random(B, 6)), method=method)),
        f"convolution with padding [{padding}]",
        "slice or jnp.pad",
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "padding, stride",
    paced(
        [
            ((1, 0), 1),
            ((1, 1), 1),
            ((0, 2), 2),
            ((2, 2), 1),
            ((-1, -1), 1),
            ((-1, 0), 2),
            ((1, -2), 1),
            ((2, 2), 2),
        ],
        ((-1, 0), 2),
        ((2, 2), 2),
    ),
)
def test_any_other_padding_is_clipped_as_the_slow_loop_would(padding, stride, method):
    """A reference by pad and einsum: the slow loop would use the same convolutions."""
    low, high = padding

    def by_hand(p, x):
        x = lax.pad(x * p["scale"], 0.0, [(low, high, 0)])
        return jnp.sum(
            jnp.sin(
                x[:-1][::stride] * p["kernel"][0, 0, 0] + x[1:][::stride] * p["kernel"][0, 0, 1]
            )
        )

    batch = jnp.asarray(random(B, 6))
    got = call(convolves(padding, stride), KERNEL, batch, method=method).value
    assert_close(
        flat(got), slow_sum(gradients(by_hand, KERNEL, batch), np.ones(B, bool), 1.0), 1e-5
    )


def peeks(p, x):
    """Only a batching rule of one's own can see other examples from inside the loss of one."""

    @jax.custom_batching.custom_vmap
    def centered(x):
        return x

    @centered.def_vmap
    def _(size, batched, x):
        return x - x.mean(0), True

    return jnp.sum(jnp.tanh(centered(x) @ p["w"]) ** 2)


def averages(p, x):
    return jnp.sum(jnp.tanh(x @ p["w"] - jax.lax.pmean(x, "batch") @ p["w"]) ** 2)


def checked(loss, method):
    check = getattr(sfumato.clip, "check_isolation", None)
    if check is None:
        pytest.skip("there is no check of isolation")
    check(
        clipped_grad(loss, 1.0, method=method),
        {"w": jnp.asarray(random(4, 3))},
        jnp.asarray(random(B, 4, seed=1)),
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_of_one_example_passes_the_check_of_isolation(method):
    checked(lambda p, x: jnp.sum(jnp.tanh(x @ p["w"]) ** 2), method)


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_looks_at_other_examples_is_found_out(method):
    refusal(lambda: checked(peeks, method))


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_averages_over_a_batch_axis_is_refused(method):
    """Either by the check or before: JAX knows no such axis."""
    with pytest.raises((*REFUSED, NameError)):
        checked(averages, method)
