"""Memory and operations of a step, counted on its trace, against what XLA's analysis of the compiled
program says."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from run_helpers import refused, succeeds

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from passes import Step

from sfumato.clip import clipped_grad
from sfumato.networks.live_memory import BATCH, Held, held


def counted(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Held:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return held(jax.make_jaxpr(function)(*arguments).jaxpr)


W = (10, 10)
X = (BATCH, 10)


def test_what_is_read_by_products_is_held_and_what_is_elementwise_is_not() -> None:
    assert counted(lambda w, x: x @ w, W, X) == (400, 80)
    assert counted(lambda w, x: jnp.tanh(2 * x + 1) @ w, W, X) == (400, 120)
    assert counted(lambda w, x: jnp.tanh(jnp.exp(x @ w) + 1), W, X) == (400, 80), "in its place"
    assert counted(lambda w, x: jnp.sum(jnp.exp(x @ w)), W, X) == (404, 80)
    chain = counted(lambda w, x: ((x @ w) @ w) @ w, W, X)
    assert chain == (400, 120), "of a chain the argument and two values"


def test_a_value_is_held_until_it_is_read_for_the_last_time() -> None:
    def late(w: Any, x: Any) -> Any:
        first = x @ w
        return jnp.sum(((first @ w) @ w) * first)

    assert counted(late, W, X).each == 160


def test_what_nobody_reads_is_not_counted_and_loops_hold_an_iteration() -> None:
    def unused(w: Any, x: Any) -> Any:
        _ = (x @ w) @ w
        return x @ w

    assert counted(unused, W, X).each == 80

    def loop(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda state, _: ((state @ w) @ w, None), x, length=50)[0]

    assert 80 <= counted(loop, W, X).each <= 200


STEPS = {
    "wrn-10-1": (Step("wrn-10-1", 16, 10, 1, 2), 8),
    "WRN-16-4": (Step("wrn-16-4", 32, 10, 1, 2), 4),
    "ViT-S": (Step("vit_small_patch16_224", 224, 100, 1, 1), 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_it_is_near_what_the_compiler_says(name: str) -> None:
    step, b = STEPS[name]

    def clipped(batch: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        loss, params, one = step.problem("float32")
        many = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), one
        )
        mask = jax.ShapeDtypeStruct((batch,), jnp.bool_)
        return lambda *args: clipped_grad(loss, 1.0)(*args).value, (params, many, mask)

    function, arguments = clipped(BATCH)
    counted = held(jax.make_jaxpr(function)(*arguments).jaxpr).of(b)
    function, arguments = clipped(b)
    found: Any = jax.jit(function).lower(*arguments).compile().memory_analysis()
    taken = found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
    assert 0.7 < counted / taken < 1.5, (counted, taken)


# -- in the words of a dry run


def rehearsed(*more: object) -> dict[str, float]:
    told = succeeds("train", "--recipe", "de2022-cifar10-wrn-16-4:8", "--dry-run", *more)
    one = re.search(r"([\d.]+) MB per example, 16 views; .* room for ([\d,]+) examples", told)
    assert one is not None and "decoding" in told and "transfer" in told and "noise" in told
    operations = re.search(r"([\d.e+]+) operations in all", told)
    assert operations is not None
    return {
        "each": float(one[1]),
        "room": float(one[2].replace(",", "")),
        "operations": float(operations[1]),
        "sums": float("sums over devices" in told),
    }


@pytest.mark.slow
def test_a_dry_run_counts_what_is_kept_and_the_norms() -> None:
    one, many = rehearsed(), rehearsed("--devices", 8)
    # An ordinary step is three forward passes; ours has the norms besides.
    ordinary = 2 * 3 * 0.3926e9 * 16 * 4096 * 2468
    assert 0.95 < one["operations"] / ordinary < 1.3
    assert one["room"] == many["room"] and (one["sums"], many["sums"]) == (0, 1)
    # Kept gradients alone are 11 MB; activations and cotangents of 16 views are several times that.
    assert 40 < one["each"] < 250


def test_devices_are_at_least_one(tmp_path: Path) -> None:
    train = ("train", "--recipe", "de2022-cifar10-wrn-16-4:8", "--dry-run", "--devices", 0)
    refused(tmp_path, *train, says=("devices=0",))
