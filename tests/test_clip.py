"""The clipped sum equals a slow loop over examples, and no example moves it by more than its
sensitivity.

These are the laws for whoever just calls `clipped_grad`; `test_clip_engine.py` holds every method
to them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import (
    BAD,
    ROUNDING,
    B,
    check_influence,
    classes,
    entropy,
    everyone,
    flat,
    gradients,
    norm,
    random,
    slow_sum,
    spoiled,
)
from clip_registry import CLASSIC, built
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from pace import paced
from programs import SHIPPED

from sfumato.clip import clipped_grad
from sfumato.clip.materialize import SLACK
from sfumato.core.errors import ArgumentError
from sfumato.features.feature_map import Group
from sfumato.solve.statistics import row_sum, second_moments, softmax_gradient
from sfumato.solve.symmetric import pack, packed_size, unpack

REFUSED = (ArgumentError, TypeCheckError)
LARGE = ("cnn",)  # long to compile
ALL = paced([*CLASSIC, *LARGE], "linear", "embedding", "scanned")


# -- equality with the slow loop


@pytest.mark.parametrize("name", ALL)
def test_the_clipped_sum_equals_a_loop_over_single_examples(name):
    loss, params, batch = built(name)
    each = gradients(loss, params, batch)
    norms = np.linalg.norm(each, axis=1)
    mask = jnp.array([True, False, True, True, True])
    some, every, none = float(np.median(norms)), 0.5 * norms.min(), 2 * norms.max()
    for clip_norm in (some,) if name in LARGE else (some, every, none):
        got = jax.jit(clipped_grad(loss, clip_norm).__call__)(params, batch, mask)
        wanted = slow_sum(each, mask, clip_norm)
        np.testing.assert_allclose(flat(got.value), wanted, atol=5e-5 * np.abs(wanted).max())
        assert got.sensitivity.add_or_remove == clip_norm


@pytest.mark.parametrize("normalized", [False, True])
def test_the_softmax_gradient_equals_the_slow_loop_and_the_generic_engine(normalized):
    rows, labels = random(B, 7) / 2, classes()
    params = {"weight": jnp.asarray(random(7, 3, seed=1))}
    mask = jnp.array([True, True, False, True, True])

    def loss(p, e):
        return entropy(e[0] @ p["weight"], e[1])

    batch = (jnp.asarray(rows), jnp.asarray(labels))
    for clip_norm in (0.01, 0.7, 100.0):
        got = softmax_gradient(clip_norm, normalized)(params, batch, mask)
        generic = clipped_grad(loss, clip_norm, normalized=normalized)(params, batch, mask)
        slow = slow_sum(gradients(loss, params, batch), mask, clip_norm) / (
            clip_norm if normalized else 1.0
        )
        np.testing.assert_allclose(flat(got.value), slow, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(flat(got.value), flat(generic.value), rtol=1e-5, atol=1e-7)
        assert got.sensitivity == generic.sensitivity


# -- influence


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_no_example_moves_the_sum_by_more_than_its_sensitivity(name, normalized):
    loss, params, batch = built(name)
    clip_norm = 0.5 * np.linalg.norm(gradients(loss, params, batch), axis=1).min()
    clipped = clipped_grad(loss, clip_norm, normalized=normalized)
    sensitivity = clipped.sensitivity.add_or_remove
    assert sensitivity == (1.0 if normalized else clip_norm)
    options = {} if name in LARGE else SHIPPED
    largest = check_influence(
        jax.jit(clipped.__call__, compiler_options=options), params, batch, sensitivity
    )
    assert largest > (1 - 2 * SLACK) * sensitivity, "the bound is attained, not just kept"


@pytest.mark.parametrize(
    "bug",
    ["no clip", "each leaf for itself", "each view for itself", "mask ignored", "twice the norm"],
)
def test_control_wrong_clipping_is_noticed(bug):
    loss, params, batch = built("linear")

    def clipped(params, batch, mask):
        each = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        norms = jax.vmap(lambda g: jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g))))(each)
        factors = jnp.minimum(1, 0.1 / norms)
        if bug == "no clip":
            factors = jnp.ones(B)
        if bug == "twice the norm":
            factors = jnp.minimum(1, 0.2 / norms)
        if bug != "mask ignored":
            factors = factors * mask

        def total(leaf):
            own = factors
            if bug.startswith("each"):
                own = jnp.minimum(1, 0.1 / jnp.sqrt(jnp.sum(leaf.reshape(B, -1) ** 2, 1))) * mask
            return jnp.tensordot(own, leaf, 1)

        return type("Sum", (), {"value": jax.tree.map(total, each)})

    with pytest.raises(AssertionError):
        check_influence(clipped, params, batch, 0.1)


@pytest.mark.parametrize(
    "name", paced(["linear", "mlp", "tied", "views", "scanned", "bias_only"], "linear", "views")
)
def test_an_absurd_example_is_bounded_like_any_other(name):
    loss, params, batch = built(name)
    clipped = jax.jit(clipped_grad(loss, 0.1).__call__)

    for bad in BAD:
        check_influence(clipped, params, spoiled(batch, bad), 0.1)


def test_an_absurd_row_is_bounded_in_the_softmax_gradient():
    clipped = jax.jit(softmax_gradient(0.1))
    for bad in BAD:
        for scale in (1.0, 1e3):
            rows = random(B, 7)
            rows[1, 2] = rows[3] = bad
            params = {"weight": jnp.asarray(scale * random(7, 3, seed=1))}
            check_influence(clipped, params, (jnp.asarray(rows), jnp.asarray(classes())), 0.1)


@pytest.mark.parametrize("label", [-1, 3, 10**6])
def test_a_label_that_is_no_class_is_bounded_in_the_softmax_gradient(label):
    batch = (jnp.asarray(random(B, 7)), jnp.asarray(classes()).at[1].set(label))
    check_influence(jax.jit(softmax_gradient(0.1)), {"weight": jnp.zeros((7, 3))}, batch, 0.1)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", paced(["linear", "mlp", "tied", "views", "bias_only"], "linear"))
@pytest.mark.parametrize("also_params", [False, True])
def test_half_precision_hides_no_example(name, dtype, also_params):
    """Squares of 1e-4 underflow in float16 and those of 300 overflow; norms must be measured in
    float32."""
    loss, params, batch = built(name)

    def half(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    def scaled(leaf, scale):
        return half(leaf * scale) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    params = jax.tree.map(half, params) if also_params else params
    for clip_norm in (1e-5, 0.1):
        out = jax.jit(clipped_grad(loss, clip_norm).__call__)
        for scale in (1e-3, 1.0, 1e3):
            here = jax.tree.map(lambda leaf: scaled(leaf, scale), batch)  # noqa: B023
            assert all(
                leaf.dtype == jnp.float32
                for leaf in jax.tree.leaves(out(params, here, everyone()).value)
            )
            check_influence(out, params, here, clip_norm)


@pytest.mark.parametrize("clip_norm", [1e-10, 1e-6, 1.0, 1e6, 1e10])
def test_the_bound_holds_at_every_legal_clip_norm(clip_norm):
    """Near the ends of float32 squares would underflow, and an example pass unclipped."""

    def loss(p, x):
        return jnp.sum(p * x)

    batch = jnp.asarray(np.logspace(-3, 3, B)[:, None] * np.full((B, 50), clip_norm), jnp.float32)
    largest = check_influence(
        jax.jit(clipped_grad(loss, clip_norm).__call__), jnp.zeros(50), batch, clip_norm
    )
    assert largest > 0.999 * clip_norm


def test_norms_of_many_numbers_are_right():
    """A naive float32 sum of 3 million equal squares is off by percents."""
    batch = jnp.full((1, 3_000_000), 0.0137)
    out = clipped_grad(lambda p, x: jnp.vdot(p, x), 1.0)(jnp.zeros(3_000_000), batch, everyone(1))
    assert 1 - 2 * SLACK < norm(out.value) <= 1


# -- masks and microbatches


@pytest.mark.parametrize("name", CLASSIC)
def test_masked_examples_contribute_nothing_whatever_they_hold(name):
    loss, params, batch = built(name)
    clipped = jax.jit(clipped_grad(loss, 0.1).__call__)
    mask = jnp.array([True, False, True, False, True])

    def other(leaf):
        return leaf.at[jnp.array([1, 3])].set(
            jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else 2
        )

    one, two = clipped(params, batch, mask), clipped(params, jax.tree.map(other, batch), mask)
    assert np.array_equal(flat(one.value), flat(two.value))
    nobody = clipped(params, batch, ~everyone())
    assert not flat(nobody.value).any()
    assert nobody.sensitivity == one.sensitivity


@settings(max_examples=4, deadline=None)
@given(
    st.sampled_from(["linear", "embedding", "views", "tied"]),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 31),
)
def test_a_microbatch_of_any_size_gives_the_sum_of_one_batch(name, size, normalized, bits):
    loss, params, batch = built(name)
    mask = jnp.array([bool(bits >> i & 1) for i in range(B)])
    whole = clipped_grad(loss, 0.3, normalized=normalized)(params, batch, mask)
    parts = clipped_grad(loss, 0.3, normalized=normalized, microbatch=size)(params, batch, mask)
    np.testing.assert_allclose(
        flat(parts.value), flat(whole.value), atol=1e-5 * max(1.0, np.abs(flat(whole.value)).max())
    )
    assert parts.sensitivity == whole.sensitivity


def test_an_example_of_nan_in_a_microbatch_leaves_the_others():
    loss, params, batch = built("linear")
    batch = (batch[0].at[1].set(jnp.nan), batch[1])
    out = clipped_grad(loss, 0.1, microbatch=2)(params, batch, everyone())
    wanted = clipped_grad(loss, 0.1)(params, batch, everyone().at[1].set(False))
    np.testing.assert_allclose(flat(out.value), flat(wanted.value), atol=1e-6)


# -- refusals


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan"), 1e-25, 1e30])
def test_a_clip_norm_that_cannot_bound_is_refused(clip_norm):
    with pytest.raises(REFUSED):
        clipped_grad(lambda p, e: p, clip_norm)


@pytest.mark.parametrize(
    "wrong", [{"method": "ghost"}, {"microbatch": 0}, {"microbatch": -3}, {"microbatch": 1.5}]
)
def test_an_unknown_method_or_microbatch_is_refused(wrong):
    with pytest.raises(REFUSED):
        clipped_grad(lambda p, e: p, 1.0, **wrong)


@pytest.mark.parametrize(
    "shape, dtype", [(B, float), (B, int), ((B, 1), bool), (B + 1, bool), ((), bool)]
)
@pytest.mark.parametrize("microbatch", [None, 2])
def test_a_mask_that_fits_no_batch_is_refused(shape, dtype, microbatch):
    loss, params, batch = built("linear")
    with pytest.raises(REFUSED):
        clipped_grad(loss, 1.0, microbatch=microbatch)(params, batch, jnp.ones(shape, dtype))


def test_a_batch_of_unequal_lengths_is_refused():
    loss, params, (rows, labels) = built("linear")
    with pytest.raises(REFUSED):
        clipped_grad(loss, 1.0)(params, (rows, labels[:-1]), everyone())


# -- second moments

GROUPS = (Group(2, 3, 0.5), Group(1, 4, 0.3), Group(5, 1, 0.2))
D = sum(group.size for group in GROUPS)


def moments(rows):
    return flat(second_moments(np.asarray(rows, np.float32), GROUPS).value)


def wild_rows():
    rows = random(8, D)
    rows[1] *= 1e-3
    rows[2] *= 1e25
    rows[3, 4], rows[4, 2], rows[5, :] = np.nan, np.inf, -np.inf
    rows[6] = 0
    rows[6, 0] = 5.0
    return rows


@pytest.mark.parametrize("statistic", [second_moments, row_sum])
def test_no_row_moves_a_statistic_by_more_than_its_sensitivity(statistic):
    def total(rows):
        return statistic(rows, GROUPS) if statistic is second_moments else statistic(rows)

    rows = wild_rows()
    bound = total(rows).sensitivity.add_or_remove
    whole = flat(total(rows).value)
    assert np.isfinite(whole).all()
    for i in range(len(rows)):
        assert np.linalg.norm(whole - flat(total(np.delete(rows, i, 0)).value)) <= bound * (
            1 + 1e-5
        )
        assert norm(total(rows[i : i + 1]).value) <= bound * ROUNDING


def test_the_sensitivity_of_second_moments_is_attained_by_the_worst_row_and_never_passed():
    """A row with every group at its largest and in one block: |x_b|^4 adds up to sum of weight^2.
    Nothing found is worse."""
    bound = second_moments(np.zeros((1, D), np.float32), GROUPS).sensitivity.add_or_remove
    assert bound <= 1
    worst = np.zeros((1, D), np.float32)
    start = 0
    for group in GROUPS:
        worst[0, start] = 10.0
        start += group.size
    assert 0.999 * bound < np.linalg.norm(moments(worst)) <= bound * ROUNDING
    rng, best = np.random.default_rng(0), 0.0
    row = rng.standard_normal((1, D))
    for trial in range(300):  # hill climbing from a random row
        candidate = row + rng.standard_normal((1, D)) * 10 ** rng.uniform(-2, 1)
        value = np.linalg.norm(moments(candidate))
        assert value <= bound * ROUNDING
        if value > best or trial == 0:
            best, row = value, candidate
    assert best > 0.8 * bound


def test_second_moments_are_the_blocks_of_the_covariance_and_chunks_do_not_matter():
    rows = random(2100, D)
    rows *= np.concatenate([np.full(g.size, 1e-2 * g.weight**0.5) for g in GROUPS]).astype(
        np.float32
    )
    got = second_moments(rows, GROUPS).value
    start = 0
    for group, packed in zip(GROUPS, got, strict=True):
        block = (
            rows[:, start : start + group.size]
            .reshape(-1, group.frequencies, group.channels)
            .astype(np.float64)
        )
        wanted = np.einsum("nfk,nfl->fkl", block, block)
        np.testing.assert_allclose(
            unpack(jnp.asarray(packed), group.channels), wanted, rtol=1e-4, atol=1e-5
        )
        start += group.size


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_packing_is_an_isometry_and_unpacking_its_inverse(k, seed):
    rng = np.random.default_rng(seed)
    a, b = (
        jnp.asarray(m + m.transpose(0, 2, 1), jnp.float32)
        for m in rng.standard_normal((2, 2, k, k))
    )
    assert pack(a).shape == (2, packed_size(k))
    np.testing.assert_allclose(norm(pack(a) - pack(b)), norm(a - b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unpack(pack(a), k), a, rtol=1e-6)
    vector = jnp.asarray(rng.standard_normal(packed_size(k)), jnp.float32)
    np.testing.assert_allclose(pack(unpack(vector, k)), vector, rtol=1e-6)
    np.testing.assert_allclose(norm(unpack(vector, k)), norm(vector), rtol=1e-5)


# -- known holes: strict, so that mending one asks for its mark to be removed


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_rows_are_bounded_in_the_softmax_gradient(dtype):
    rows = jnp.asarray(random(B, 1000), dtype).at[0].set(1e-4)
    check_influence(
        jax.jit(softmax_gradient(1e-4)),
        {"weight": jnp.zeros((1000, 3))},
        (rows, jnp.asarray(classes())),
        1e-4,
    )


def test_a_row_whose_scores_overflow_is_bounded_in_the_softmax_gradient():
    rows = jnp.ones((B, 7)).at[1].set(1e15)
    params = {"weight": jnp.full((7, 3), 1e25) * jnp.array([1.0, -1.0, 0.0])}
    check_influence(jax.jit(softmax_gradient(0.1)), params, (rows, jnp.asarray(classes())), 0.1)
