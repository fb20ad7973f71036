"""Every method, for every way in which a parameter can meet an example, obeys the laws of
`clip_laws.py`."""

import re
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import (
    B,
    alone,
    assert_close,
    check_influence,
    everyone,
    flat,
    norm,
    on_floats,
    random,
    slow_factors,
    slow_sum,
)
from clip_laws import LAWS, ONE_OUT, QUICK, case, cases, compiled, sums_of
from clip_registry import CLASSIC, FAST, REGISTRY, built
from pace import paced
from programs import SHIPPED

from sfumato.clip import clipped_grad, explain
from sfumato.clip.materialize import SLACK
from sfumato.core.trees import leaf_names

ENGINES = ("book_keeping", "two_pass")
FAST_OF = {
    "book_keeping": FAST,
    "two_pass": ["mlp", "tied", "recurrent", "conv_strided_and_dilated", "many_ways"],
    "materialize": ["conv_depthwise"],
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("law_of_"))
@pytest.mark.parametrize("name, method", cases(FAST_OF))
def test_an_example_is_clipped_as_the_slow_loop_would(name, method, law):
    law(sums_of(name, method), case(name))


def program(it, method):
    """What a method traces to. Addresses of functions are those of each trace, so they are left
    out."""
    clipped = clipped_grad(it.loss, 1.0, method=method)
    traced = jax.make_jaxpr(lambda *args: clipped(*args).value)(it.params, it.batch(1.0), ONE_OUT)
    return re.sub(r"0x[0-9a-f]+", "", str(traced))


PARTS = [name for name in REGISTRY if name != "wrn"]


@pytest.mark.parametrize(
    "name", paced(PARTS, "mlp", "tied", "views", "layers_scanned", "conv_depthwise")
)
def test_auto_is_a_choice_between_the_methods_that_the_laws_hold_for(name):
    """The very program of one of them, so it needs no laws of its own. A whole network is left to
    its parts."""
    it = case(name)
    both = {method: program(it, method) for method in ENGINES}
    assert both["book_keeping"] != both["two_pass"], "control: the traces tell the methods apart"
    assert program(it, "auto") in both.values()


@pytest.mark.parametrize(
    "size", [2, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 5, 7))]
)
@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("name", ["mlp", pytest.param("dropout", marks=pytest.mark.slow)])
def test_microbatches_of_any_size_give_the_sum_of_one_batch(name, method, size):
    it = case(name)
    strength = it.strengths[1]
    got = compiled(name, method, microbatch=size)(it.params, it.batch(strength), ONE_OUT)
    assert_close(flat(got.value), slow_sum(strength * it.each, ONE_OUT, 1.0), it.tolerance)


def test_microbatches_of_automatic_size_give_the_sum_of_one_batch():
    it = case("mlp")
    got = compiled("mlp", "auto", microbatch="auto")(it.params, it.batch(1.0), ONE_OUT)
    assert_close(flat(got.value), slow_sum(it.each, ONE_OUT, 1.0), it.tolerance)


# -- groups of leaves, other formulas


def first_part(name):
    return name.split("/")[0]


def parent(name):
    return name.rpartition("/")[0]


def slow_grouped_sum(it, group_of, bounds, mask, clipping="hard"):
    """Each group of leaves clipped for itself. `bounds`: group -> C_g."""
    names = leaf_names(it.params)
    sizes = [leaf.size for leaf in jax.tree.leaves(it.params)]
    owner = np.repeat([group_of(name) for name in names], sizes)
    total = np.zeros(it.each.shape[1])
    for group, bound in bounds.items():
        total[owner == group] = slow_sum(it.each[:, owner == group], mask, bound, clipping)
    return total


@pytest.mark.parametrize("groups, group_of", [("per_layer", parent), (first_part, first_part)])
@pytest.mark.parametrize(
    "name, method, clipping",
    [
        *(
            ("two_layers", method, how)
            for method in ("materialize", *ENGINES)
            for how in ("hard", "automatic")
        ),
        *(
            pytest.param(name, method, "hard", marks=pytest.mark.slow)
            for name in ("residual_block", "cnn", "vit")
            for method in ENGINES
        ),
    ],
)
def test_a_clip_norm_is_shared_equally_by_groups(name, method, clipping, groups, group_of):
    it = case(name)
    members = sorted({group_of(leaf) for leaf in leaf_names(it.params)})
    assert len(members) > 1
    clipped = clipped_grad(it.loss, 1.0, method=method, groups=groups, clipping=clipping)
    got = jax.jit(clipped.__call__, compiler_options=QUICK)(it.params, it.batch(1.0), ONE_OUT)
    bounds = {group: len(members) ** -0.5 for group in members}
    assert_close(flat(got.value), slow_grouped_sum(it, group_of, bounds, ONE_OUT, clipping), 1e-4)
    assert got.sensitivity.add_or_remove == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("method", ["materialize", *ENGINES])
@pytest.mark.parametrize("groups", paced(["per_layer", first_part], "per_layer"))
@pytest.mark.parametrize("normalized", [False, True])
def test_an_example_moves_each_group_by_no_more_than_the_groups_clip_norm(
    method, groups, normalized
):
    loss, params, batch = built("two_layers")
    bounds = {"hidden": 0.003, "head": 0.004}
    clipped = clipped_grad(loss, bounds, method=method, groups=groups, normalized=normalized)
    unit = 0.005 if normalized else 1.0
    assert clipped.sensitivity.add_or_remove == pytest.approx(0.005 / unit)
    assert clipped.sensitivity.zero_out == pytest.approx(0.005 / unit)
    assert clipped.sensitivity.replace_one == pytest.approx(0.010 / unit)
    out = jax.jit(clipped.__call__, compiler_options=QUICK)
    for i in range(B):
        value = out(params, batch, alone(i)).value
        for group, bound in bounds.items():
            assert (
                (1 - 2 * SLACK) * bound
                < unit * norm(value[group])
                <= bound * (1 + 1e-6 * normalized)
            )
    assert check_influence(out, params, batch, clipped.sensitivity.add_or_remove) > 0.0049 / unit


@pytest.mark.parametrize("method", ["materialize", *ENGINES])
def test_one_group_of_all_leaves_is_flat(method):
    loss, params, batch = built("two_layers")
    flat_sum = clipped_grad(loss, 0.1, method=method)(params, batch, everyone())
    grouped = clipped_grad(loss, {"all": 0.1}, method=method, groups=lambda name: "all")(
        params, batch, everyone()
    )
    assert_close(flat(grouped.value), flat(flat_sum.value), 1e-6)
    assert grouped.sensitivity.add_or_remove == pytest.approx(flat_sum.sensitivity.add_or_remove)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("method", ["materialize", *ENGINES])
def test_automatic_clipping_never_passes_and_follows_its_formula(method, normalized):
    """Even tiny gradients count; none reaches C."""
    it = case("mlp")
    out = compiled("mlp", method, 0.5, clipping="automatic", normalized=normalized)
    unit = 0.5 if normalized else 1.0
    for strength in (1e-4, 1e-2, 1.0, 1e6):
        got = out(it.params, it.batch(strength), ONE_OUT)
        wanted = slow_sum(strength * it.each, ONE_OUT, 0.5, "automatic") / unit
        assert_close(flat(got.value), wanted, 3e-5)
        largest = check_influence(out, it.params, it.batch(strength), 0.5 / unit)
        norms = strength * it.norms
        assert largest == pytest.approx(
            (slow_factors(norms, 0.5, "automatic") * norms).max() / unit, rel=1e-4
        )


# -- precision


def halved(tree, dtype):
    return on_floats(lambda leaf: leaf.astype(dtype), tree)


HALVED = [
    *CLASSIC,
    "conv_of_views",
    "a_weight_per_head",
    "layers_scanned",
    "tied_embedding",
    "layer_norm",
    "many_ways",
]


@pytest.mark.parametrize("also_params", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize(
    "name, method",
    [
        ("mlp", "book_keeping"),
        *(
            pytest.param(name, method, marks=pytest.mark.slow)
            for name in HALVED
            for method in ENGINES
        ),
    ],
)
def test_half_precision_hides_no_example(name, method, dtype, also_params):
    """A norm of rounded numbers is not the norm of their sum, squares of 1e-4 underflow and those
    of 300 overflow.

    No quick compiling here: optimization may widen or narrow numbers on the way.
    """
    if name in ("conv_of_views", "layers_scanned") and not also_params:
        pytest.skip("this loss takes no data of another precision than its parameters")
    loss, params, batch = built(name)
    params = halved(params, dtype) if also_params else params
    out = jax.jit(clipped_grad(loss, 1e-3, method=method).__call__, compiler_options=SHIPPED)
    for scale in (1e-3, 1.0, 1e3):
        here = halved(on_floats(lambda leaf: leaf * scale, batch), dtype)  # noqa: B023
        got = out(params, here, everyone())
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got.value))
        check_influence(out, params, here, 1e-3)


def canceling(positions, width, size, seed, remainder):
    """Rows that add up to next to nothing, though each is huge."""
    rng = np.random.default_rng(seed)
    found = size * rng.standard_normal((B, positions, width))
    found[:, -1] = -found[:, :-1].sum(1) + remainder * rng.standard_normal((B, width))
    return jnp.asarray(found, jnp.float32)


def dense_sum(p, x):
    return 3e3 * jnp.sum(x @ p)


def weight_first(p, x):
    return 3e3 * jnp.sum(p.T @ x.T)


def pointwise_conv(p, x):
    maps = jax.lax.conv_general_dilated(
        x[None], p[None], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return 3e3 * jnp.sum(maps)


def by_scan(p, x):
    return 3e3 * jnp.sum(
        jax.lax.scan(lambda total, row: (total + row @ p, None), jnp.zeros(p.shape[1]), x)[0]
    )


def in_two_places(p, x):
    return 3e3 * (jnp.sum(x[:-1] @ p) + jnp.sum(x[-1] @ p))


def lookups(p, x):
    """Each position looks up the same word; what comes back to the word cancels."""
    return 3e3 * jnp.vdot(p[jnp.zeros(x.shape[0], int)], x[:, : p.shape[1]])


CANCELING = (dense_sum, weight_first, pointwise_conv, by_scan, in_two_places, lookups)


@pytest.mark.parametrize("method", ENGINES)
@pytest.mark.parametrize("loss", CANCELING, ids=lambda loss: loss.__name__)
def test_an_example_whose_positions_cancel_is_not_taken_for_a_small_one(loss, method):
    """Its squared norm is a small difference of huge products, of which rounding may leave nothing,
    or less."""
    params = jnp.asarray(random(16, 8))
    out = jax.jit(clipped_grad(loss, 0.1, method=method).__call__, compiler_options=QUICK)
    for size in (1e2, 1e4, 1e7):
        for remainder in (0.0, 1e-3, 1.0):
            check_influence(out, params, canceling(2, 16, size, int(size), remainder), 0.1)


# -- what is compiled


def test_a_second_call_traces_nothing():
    count = 0
    inner, params, batch = built("two_layers")

    def loss(p, e):
        nonlocal count
        count += 1
        return inner(p, e)

    for method in ("materialize", *ENGINES):
        step = jax.jit(clipped_grad(loss, 1.0, method=method).__call__, compiler_options=QUICK)
        step(params, batch, everyone())
        before = count
        step(jax.tree.map(lambda leaf: 2 * leaf, params), batch + 1, ~everyone())
        assert count == before > 0


@pytest.mark.parametrize("method", ENGINES)
def test_without_jit_the_sum_is_the_same(method):
    loss, params, batch = built("two_layers")
    clipped = clipped_grad(loss, 0.1, method=method)
    wanted = jax.jit(clipped.__call__)(params, batch, ONE_OUT)
    assert_close(flat(clipped(params, batch, ONE_OUT).value), flat(wanted.value), 1e-6)


@pytest.mark.parametrize("method", ENGINES)
def test_a_training_loop_may_be_a_scan_with_donated_parameters(method):
    loss, params, batch = built("two_layers")
    clipped = clipped_grad(loss, 0.1, method=method)

    def step(params, _):
        return jax.tree.map(
            lambda p, g: p - 0.1 * g, params, clipped(params, batch, ONE_OUT).value
        ), None

    wanted = params
    for _ in range(3):
        wanted = jax.jit(step, compiler_options=QUICK)(wanted, None)[0]
    train = jax.jit(
        lambda params: jax.lax.scan(step, params, None, 3)[0],
        donate_argnums=0,
        compiler_options=QUICK,
    )
    given = jax.tree.map(jnp.copy, params)
    got = train(given)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert_close(flat(got), flat(wanted), 1e-5)


def shapes_in(program):
    return {
        tuple(map(int, dims.split(",")))
        for dims in re.findall(r"\b(?:f32|bf16|f16)\[([\d,]+)\]", program)
    }


def copies_per_example(program, b, shape):
    """Arrays that hold `b` times a leaf, in any order of axes or in one row per example."""
    wanted = {*permutations((b, *shape)), (b, int(np.prod(shape))), (int(np.prod(shape)), b)}
    return shapes_in(program) & wanted


def explained(text):
    """leaf -> its line in the table."""
    return {line.split()[0]: line for line in text.splitlines() if line.split()}


def wide_mlp():
    def loss(p, x):
        return jnp.sum(jnp.tanh(x @ p["first"] + p["bias"]) @ p["second"]) ** 2

    return (
        loss,
        {"first": random(11, 13), "bias": random(13), "second": random(13, 17)},
        random(B, 3, 11),
    )


@pytest.mark.parametrize("method", ["materialize", *ENGINES])
@pytest.mark.parametrize(
    "make, least", [(wide_mlp, 2), pytest.param(lambda: built("vit"), 3, marks=pytest.mark.slow)]
)
def test_no_gradient_of_a_single_example_is_held_where_the_plan_says_gram(make, least, method):
    """Control: the slow twin does hold them."""
    b = 7
    loss, *trees = make()
    params, batch = jax.tree.map(jnp.asarray, trees)
    batch = jax.tree.map(lambda leaf: leaf[jnp.arange(b) % B], batch)
    program = (
        jax.jit(clipped_grad(loss, 1.0, method=method).__call__)
        .lower(params, batch, everyone(b))
        .compile()
        .as_text()
    )
    plan = explained(
        explain(
            loss,
            params,
            jax.tree.map(lambda leaf: leaf[0], batch),
            batch_size=b,
            method="book_keeping",
        )
    )
    leaves = dict(zip(leaf_names(params), jax.tree.leaves(params), strict=True))
    gram = [name for name in leaves if "gram" in plan[name] and leaves[name].ndim == 2]
    assert len(gram) >= least, plan
    for name in gram:
        held = copies_per_example(program, b, leaves[name].shape)
        assert bool(held) == (method == "materialize"), f"{name}: {held}"


@pytest.mark.slow
def test_microbatches_of_random_keys():
    """Keys cannot be padded with zeros."""

    def loss(p, e):
        return jnp.sum(jax.random.normal(e[1], (4,)) * (e[0] @ p))

    params, batch = (
        jnp.asarray(random(3, 4)),
        (jnp.asarray(random(B, 3)), jax.random.split(jax.random.key(0), B)),
    )
    whole = clipped_grad(loss, 0.5)(params, batch, ONE_OUT)
    for size in (2, 3, 4):
        parts = jax.jit(clipped_grad(loss, 0.5, microbatch=size).__call__)(params, batch, ONE_OUT)
        assert_close(flat(parts.value), flat(whole.value), 1e-6)
