"""What an accelerator does with the engine. One script, no downloads; its JSON is written after
each part.

    python benchmarks/gpu.py --out gpu.json                 # on an accelerator
    python benchmarks/gpu.py --small --out /tmp/gpu.json    # the same code at a size for CPUs: does it run?

a  rates of matrix products and of the weight gradients of convolutions, by precision
b  ordinary step and ours (jax_privacy if it is installed) in bf16, tf32 and float32: seconds, images a second, share of the bf16 product rate
c  XLA's figure of each program's memory beside the device's measured peak
d  noise: numbers a second on the host and on the device
e  does a step that is repeated give the same bits?
f  error of products summed on tensor cores, in units of u M (docs/engine.md), beside the constant GAMMA
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import PyTree

sys.path.insert(0, str(Path(__file__).parent / "clip"))
from cases import BIG, CLIP_NORM, SMALL, Case, problem
from models import vit, wide_resnet

from sfumato.clip import clipped_grad
from sfumato.core.keys import SecretKey
from sfumato.networks import catalog
from sfumato.noise import on_device, on_host


def nf_resnet50() -> tuple[PyTree, Callable]:
    found = catalog.find("nf_resnet50")
    params, static = eqx.partition(found.make(BIG, 1000, jax.random.key(0)), eqx.is_inexact_array)
    return params, lambda params, image: eqx.combine(params, static)(image)


CASES = {
    "WRN-16-4 K=16": (
        Case("WRN-16-4, 32x32, b=256, K=16", lambda: wide_resnet(16, 4), SMALL, 256, 16),
        392_612_352,
    ),
    "ViT-B/16": (
        Case("ViT-B/16, 224x224, b=128", lambda: vit(768, 12, scan=True), BIG, 128),
        17_563_828_224,
    ),
    "WRN-16-4 K=4": (
        Case("WRN-16-4, 32x32, b=512, K=4", lambda: wide_resnet(16, 4), SMALL, 512, 4),
        392_612_352,
    ),
    "NF-ResNet-50": (Case("NF-ResNet-50, 224x224, b=64", nf_resnet50, BIG, 64), 4_089_184_256),
}
"""And the multiply-adds of one view's forward pass (NF-ResNet-50 at 224 pixels: 5.34 G at 256, by
area)."""
TINY = {
    "WRN-16-4 K=16": (
        Case("WRN-10-1, 16x16, b=4, K=2", lambda: wide_resnet(10, 1), (16, 16, 3), 4, 2),
        1_000_000,
    ),
    "ViT-B/16": (
        Case(
            "ViT, 32x32, b=4", lambda: vit(32, 2, scan=True, depth=2, side=32, classes=10), SMALL, 4
        ),
        1_000_000,
    ),
}
WANTED = (
    ("WRN-16-4 K=16", "ordinary", "bf16"),
    ("WRN-16-4 K=16", "ours", "bf16"),
    ("ViT-B/16", "ours", "bf16"),
    ("ViT-B/16", "ordinary", "bf16"),
    ("WRN-16-4 K=16", "jax_privacy", "bf16"),
    ("ViT-B/16", "jax_privacy", "bf16"),
    ("NF-ResNet-50", "ordinary", "bf16"),
    ("NF-ResNet-50", "ours", "bf16"),
    ("WRN-16-4 K=4", "ordinary", "bf16"),
    ("WRN-16-4 K=4", "ours", "bf16"),
    ("ViT-B/16", "ours", "tf32"),
    ("ViT-B/16", "ordinary", "tf32"),
    ("WRN-16-4 K=16", "ours", "tf32"),
    ("WRN-16-4 K=16", "ordinary", "tf32"),
    ("ViT-B/16", "ours", "float32"),
    ("ViT-B/16", "ordinary", "float32"),
    ("WRN-16-4 K=16", "ours", "float32"),
    ("WRN-16-4 K=16", "ordinary", "float32"),
)
"""(case, contestant, precision), most wanted first."""
THREADS = 4
"""That compile: more of them only wait for each other's autotuning."""


@dataclass
class Built:
    case: str
    who: str
    precision: str
    compiled: Any
    arguments: tuple
    planned: int
    compile_seconds: float


class Record:
    """The JSON file, rewritten after every part."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.begun, self.seconds = path, time.perf_counter(), seconds
        self.facts: dict[str, Any] = {
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "cores": os.cpu_count(),
        }

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.begun)

    def put(self, part: str, value: Any, newest: Any = None) -> None:
        """newest: what is printed of it, else all."""
        self.facts[part] = value
        shown = json.dumps(value if newest is None else newest)[:600]
        self.path.write_text(json.dumps(self.facts, indent=1))
        print(f"{time.perf_counter() - self.begun:6.1f} s  {part}: {shown}", flush=True)

    def attempt(self, part: str, function: Callable[[], Any]) -> None:
        try:
            self.put(part, function())
        except Exception as reason:  # one part that fails must not cost the others
            self.put(part, f"{type(reason).__name__}: {str(reason)[:300]}")


def seconds_of(function: Callable, *arguments: Any, least: float = 0.5) -> float:
    """Median of repeated runs, warm."""
    jax.block_until_ready(function(*arguments))
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        clock = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - clock)
    return float(np.median(times))


# a


def product_rates(small: bool) -> dict[str, float]:
    """TFLOP/s of n x n products."""
    n, found = 256 if small else 8192, {}
    for name, dtype, precision in (
        ("bf16", jnp.bfloat16, None),
        ("tf32", jnp.float32, "tensorfloat32"),
        ("float32", jnp.float32, "highest"),
    ):
        a, b = (jax.random.normal(jax.random.key(k), (n, n), dtype) for k in (0, 1))
        product = jax.jit(lambda a, b, p=precision: jnp.matmul(a, b, precision=p))
        found[name] = round(2 * n**3 / seconds_of(product, a, b) / 1e12, 2)
    return found


def gradient_rates(small: bool) -> dict[str, float]:
    """TFLOP/s of the weight gradient of a 3 x 3 convolution, 32 x 32 x 64 and 8 x 8 x 256."""
    found = {}
    for side, channels in ((32, 64), (8, 256)):
        count = 8 if small else 4096
        for name, dtype, precision in (
            ("bf16", jnp.bfloat16, None),
            ("float32", jnp.float32, "highest"),
        ):
            keys = jax.random.split(jax.random.key(0), 2)
            maps, cotangent = (
                jax.random.normal(key, (count, side, side, channels), dtype) for key in keys
            )
            kernel = jnp.zeros((3, 3, channels, channels), dtype)
            convolve = lambda kernel, maps, p=precision: lax.conv_general_dilated(  # noqa: E731
                maps,
                kernel,
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=p,
            )
            gradient = jax.jit(
                lambda maps, cotangent, f=convolve, k=kernel: jax.vjp(lambda w: f(w, maps), k)[1](
                    cotangent
                )[0]
            )
            flops = 2 * count * side**2 * 9 * channels**2
            found[f"{side}x{side}x{channels} {name}"] = round(
                flops / seconds_of(gradient, maps, cotangent) / 1e12, 2
            )
    return found


# b and c


def build(name: str, case: Case, who: str, precision: str) -> Built:
    loss, params, batch = problem(replace(case, precision=precision))
    mask = jnp.ones(case.batch, bool)
    clock = time.perf_counter()
    if who == "ordinary":
        function, arguments = (
            jax.grad(lambda p, b: jax.vmap(loss, (None, 0))(p, b).mean()),
            (params, batch),
        )
    elif who == "ours":
        clipped = clipped_grad(loss, CLIP_NORM)
        function, arguments = (lambda p, b, m: clipped(p, b, m).value), (params, batch, mask)
    else:
        import jax_privacy

        theirs = jax_privacy.clipped_grad(
            loss,
            l2_clip_norm=CLIP_NORM,
            batch_argnums=1,
            keep_batch_dim=False,
            microbatch_size=max(1, case.batch // 8),
        )
        function, arguments = (lambda p, b: theirs(p, b)), (params, batch)
    compiled = jax.jit(function).lower(*arguments).compile()
    use = compiled.memory_analysis()
    planned = (
        use.temp_size_in_bytes
        + use.output_size_in_bytes
        - use.alias_size_in_bytes
        + use.argument_size_in_bytes
    )
    return Built(
        name, who, precision, compiled, arguments, planned, round(time.perf_counter() - clock, 1)
    )


def peak() -> int | None:
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def timed(each: Built, case: Case, multiply_adds: int, rate: float | None) -> dict[str, Any]:
    before = peak()
    seconds = seconds_of(each.compiled, *each.arguments)
    flops = 6 * multiply_adds * case.batch * case.views
    row = {
        "seconds": seconds,
        "images_per_second": round(case.batch / seconds, 1),
        "views_per_second": round(case.batch * case.views / seconds, 1),
        "tflops_of_an_ordinary_step": round(flops / seconds / 1e12, 1),
        "planned_bytes": each.planned,
        "peak_before": before,
        "peak_after": peak(),
        "compile_seconds": each.compile_seconds,
    }
    return row | ({"share_of_bf16_rate": round(flops / seconds / 1e12 / rate, 4)} if rate else {})


def steps(record: Record, small: bool) -> None:
    """Compile in threads, most wanted first; then time what was compiled, smallest planned memory
    first."""
    cases = TINY if small else CASES
    wanted = [each for each in WANTED if each[0] in cases]
    rate = record.facts.get("product rates, TFLOP/s", {}).get("bf16") if not small else None
    built, failed = [], {}
    pool = ThreadPoolExecutor(1 if small else THREADS)
    jobs = {
        pool.submit(build, name, cases[name][0], who, precision): f"{name}, {who}, {precision}"
        for name, who, precision in wanted
    }
    for job, label in jobs.items():
        try:
            built.append(job.result(timeout=max(0.1, record.left() - 70)))
        except Exception as reason:
            failed[label] = f"{type(reason).__name__}: {str(reason)[:200]}"
    pool.shutdown(wait=False, cancel_futures=True)
    record.put("left out", failed)
    rows: dict[str, Any] = {}
    for each in sorted(built, key=lambda each: each.planned):
        label = f"{each.case}, {each.who}, {each.precision}"
        if record.left() < 25 and not small:
            failed[label] = "no time left"
            continue
        try:
            rows[label] = timed(each, *cases[each.case], rate)
        except Exception as reason:
            rows[label] = f"{type(reason).__name__}: {str(reason)[:200]}"
        record.put("steps", rows, rows[label])
    record.put("left out", failed)
    record.attempt("repeated step, same bits", lambda: same_bits(built))


# e


def same_bits(built: list[Built]) -> dict[str, bool]:
    found = {}
    for each in built:
        if each.who == "ours":
            first, second = (
                jax.tree.map(np.asarray, each.compiled(*each.arguments)) for _ in range(2)
            )
            equal = jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, second))
            found[f"{each.case}, {each.precision}"] = equal
    return found


# d, f


def noise(small: bool) -> dict[str, float]:
    """Nanoseconds a number: by the clock, and of all processors (CPU-ns) for what the host does."""
    count = 10**6 if small else 2 * 10**7
    draw = jax.jit(lambda key: jax.random.normal(key, (count,)))
    leaves, names = [jnp.zeros(count)], ["w"]
    told = [np.zeros(count, np.float32)]  # on the host already
    key = SecretKey.from_insecure_seed(1)

    def each(work: Callable) -> float:
        return round(seconds_of(work) / count * 1e9, 4)

    def on_processors(work: Callable) -> float:
        used, runs = time.process_time(), 3
        for _ in range(runs):
            jax.block_until_ready(work())
        return round((time.process_time() - used) / runs / count * 1e9, 2)

    host: dict[str, float] = {}
    for what, work in {
        "host, Philox, draw and add": lambda: on_host.gaussian(told, names, key, 1.3),
        "host, seal": lambda: on_host.sealed(told, names, key),
        "host, seal in one piece, as before": lambda: key.mac(told[0].view(np.uint8).data),
    }.items():
        host |= {what: each(work), f"{what}, CPU-ns": on_processors(work)}
    return host | {
        "device, ChaCha20, whole numbers, with the sum": each(
            lambda: on_device.gaussian(leaves, names, key, 1.3, 1.0)
        ),
        "device, seal of the sum": each(lambda: on_device.sealed(leaves, names, key)),
        "device, threefry, float32": each(lambda: draw(jax.random.key(0))),
    }


def accumulation(small: bool) -> dict[str, float]:
    """Largest error of a . b over u sum |a_i b_i|, u = 2^-24, against float64, over many dot
    products; GAMMA = 8 u."""
    found = {}
    for length in (256, 4096, 65536):
        rows = 8 if small else 256
        draw = np.random.default_rng(length)
        signs = np.where(draw.random((rows, length)) < 0.5, -1, 1)
        for name, dtype, precision in (
            ("bf16", jnp.bfloat16, None),
            ("tf32", jnp.float32, "tensorfloat32"),
            ("float32", jnp.float32, "highest"),
        ):
            a, b = (
                jnp.asarray(np.exp(draw.normal(size=(rows, length))) * s, dtype) for s in (signs, 1)
            )
            if name == "tf32":  # what the tensor cores see
                a, b = (lax.reduce_precision(x, 8, 10) for x in (a, b))
            out = jax.jit(
                lambda a, b, p=precision: jnp.matmul(
                    a, b.T, precision=p, preferred_element_type=jnp.float32
                )
            )(a, b)
            wide = [np.asarray(x, np.float64) for x in (a, b)]
            error = np.abs(np.asarray(out, np.float64) - wide[0] @ wide[1].T) / (
                np.abs(wide[0]) @ np.abs(wide[1]).T
            )
            found[f"{name}, {length} terms"] = round(float(error.max() * 2**24), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--only-steps", action="store_true", help="parts b, c and e, the products' rate first"
    )
    parser.add_argument("--only-noise", action="store_true", help="part d")
    options = parser.parse_args()
    record = Record(options.out, options.seconds)
    if options.only_noise:
        return record.attempt("noise, ns a number", lambda: noise(options.small))
    record.attempt("product rates, TFLOP/s", lambda: product_rates(options.small))
    if not options.only_steps:
        record.attempt("weight gradients, TFLOP/s", lambda: gradient_rates(options.small))
        record.attempt("accumulation error, units of u M", lambda: accumulation(options.small))
        record.attempt("noise, ns a number", lambda: noise(options.small))
    steps(record, options.small)
    sys.stdout.flush()
    os._exit(0)  # what is still compiling is of no use any more


if __name__ == "__main__":
    main()
