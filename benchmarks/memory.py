"""Memory of a DP-SGD step: counted on its trace, beside what XLA's analysis of the compiled program says.

    python benchmarks/memory.py             # prints the table of benchmarks/RESULTS.md; minutes for each large network
    python benchmarks/memory.py WRN-10 ViT-S   # the steps whose names begin so

Nothing is drawn or computed: networks are outlines. Steps are traced and compiled for the device that JAX
finds; a row for accelerators is left out on a CPU.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from passes import Step

from sfumato.clip import clipped_grad
from sfumato.networks.live_memory import BATCH, held


class Row(NamedTuple):
    """batch: examples of the compiled program. large: for accelerators only."""

    step: Step
    batch: int
    precision: str
    large: bool = False


ROWS = {
    "WRN-10-1, 16 px, K=2": Row(Step("wrn-10-1", 16, 10, 1, 2), 4, "float32"),
    "WRN-16-4, 32 px, K=2": Row(Step("wrn-16-4", 32, 10, 1, 2), 2, "float32"),
    "ViT-S/16, 224 px": Row(Step("vit_small_patch16_224", 224, 1000, 1, 1), 4, "float32"),
    "NF-ResNet-50, 224 px": Row(Step("nf_resnet50", 224, 1000, 1, 1), 2, "float32"),
    "ViT-B/16, 224 px": Row(Step("vit_base_patch16_224", 224, 1000, 1, 1), 128, "bf16", True),
}


def program(row: Row, batch: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The step for so many examples, and shapes of its arguments."""
    loss, params, one = row.step.problem(row.precision)
    many = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), one
    )
    mask = jax.ShapeDtypeStruct((batch,), jnp.bool_)
    return lambda *args: clipped_grad(loss, 1.0)(*args).value, (params, many, mask)


def line(name: str, row: Row) -> str:
    function, arguments = program(row, BATCH)
    begun = time.process_time()
    traced = jax.make_jaxpr(function)(*arguments).jaxpr
    tracing = time.process_time() - begun
    counted = held(traced).of(row.batch)
    function, arguments = program(row, row.batch)
    lowered, begun = jax.jit(function).lower(*arguments), time.process_time()
    use: Any = lowered.compile().memory_analysis()
    compiling = time.process_time() - begun
    taken = use.temp_size_in_bytes + use.argument_size_in_bytes + use.output_size_in_bytes
    return (
        f"| {name}, b={row.batch}, {row.precision} | {jax.devices()[0].device_kind} | {counted / 1e6:,.0f} | "
        f"{taken / 1e6:,.0f} | {counted / taken:.2f} | {tracing:.1f} | {compiling:.0f} |"
    )


def main() -> None:
    asked = sys.argv[1:]
    # A program that is read from the cache has not been compiled, nor analyzed anew.
    jax.config.update("jax_enable_compilation_cache", False)
    print(
        "| step | device | counted, MB | XLA, MB | counted / XLA | trace, CPU-s | compile, CPU-s |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, row in ROWS.items():
        wanted = not asked or any(map(name.startswith, asked))
        if wanted and not (row.large and jax.default_backend() == "cpu"):
            print(line(name, row), flush=True)


if __name__ == "__main__":
    main()
