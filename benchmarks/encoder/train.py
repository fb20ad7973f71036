"""Train the encoder of the default features on pictures that nobody took (`pictures.py`) and write
its weights.

    python benchmarks/encoder/train.py --seconds 330 --out encoder.safetensors      # on an accelerator
    python benchmarks/encoder/train.py --pictures 512 --batch 32 --steps 4 --out /tmp/e.safetensors     # does it run?

SimCLR (Chen et al. 2020, arXiv 2002.05709): two views of a picture should be told from the views of
all others in the batch. BatchNorm is used in training only, where nothing is private, and folded
into the kernels before they are written. The number of steps is fixed after a first timing, so that
the whole learning rate schedule fits into the seconds given.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from pictures import SIDE, draw_pool

from sfumato.features.encoder import LAYERS, scaled

VIEW = 32
HIDDEN, PROJECTED, TEMPERATURE = 512, 128, 0.2
PART = 50
"""Steps of one compiled call."""


def new_params(key: PRNGKeyArray) -> PyTree:
    params = {}
    for (name, inputs, outputs, _), each in zip(
        LAYERS, random.split(key, len(LAYERS)), strict=True
    ):
        kernel = random.normal(each, (3, 3, inputs, outputs)) * (2 / (9 * inputs)) ** 0.5
        params[name] = {"kernel": kernel, "scale": jnp.ones(outputs), "shift": jnp.zeros(outputs)}
    first, second = random.split(random.fold_in(key, 1))
    params["project"] = {
        "first": random.normal(first, (256, HIDDEN)) / 16,
        "scale": jnp.ones(HIDDEN),
        "shift": jnp.zeros(HIDDEN),
        "second": random.normal(second, (HIDDEN, PROJECTED)) / HIDDEN**0.5,
    }
    return params


def normalized(
    maps: Array, layer: PyTree, moments: tuple[Array, Array] | None
) -> tuple[Array, tuple[Array, Array]]:
    """BatchNorm by the batch's own moments, in float32, or by the given ones."""
    own = maps.astype(jnp.float32)
    axes = tuple(range(own.ndim - 1))
    mean, variance = (own.mean(axes), own.var(axes)) if moments is None else moments
    factor = layer["scale"] * lax.rsqrt(variance + 1e-5)
    return (own * factor + (layer["shift"] - mean * factor)).astype(maps.dtype), (mean, variance)


def encode(
    params: PyTree,
    views: Float[Array, "n a a 3"],
    moments: PyTree = None,
    dtype: jnp.dtype = jnp.bfloat16,
) -> PyTree:
    """(last maps, the moments of every layer)."""
    maps, found = scaled(views).astype(dtype), {}
    skip = maps
    for name, _, _, stride in LAYERS:
        skip = maps if name.endswith("/a") else skip
        kernel = params[name]["kernel"].astype(dtype)
        maps = lax.conv_general_dilated(
            maps,
            kernel,
            (stride, stride),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        maps, found[name] = normalized(
            maps, params[name], None if moments is None else moments[name]
        )
        maps = jax.nn.relu(maps + skip if name.endswith("/b") else maps)
    return maps, found


def projected(params: PyTree, maps: Array) -> Float[Array, "n p"]:
    layer = params["project"]
    hidden, _ = normalized(maps.mean((1, 2), dtype=jnp.float32) @ layer["first"], layer, None)
    out = jax.nn.relu(hidden) @ layer["second"]
    return out / jnp.linalg.norm(out, axis=-1, keepdims=True)


def loss(params: PyTree, views: Float[Array, "m a a 3"]) -> tuple[Float[Array, ""], PyTree]:
    """NT-Xent; views i and i + m/2 are of one picture."""
    maps, moments = encode(params, views)
    rows = projected(params, maps)
    count = len(rows)
    scores = rows @ rows.T / TEMPERATURE - 1e9 * jnp.eye(count)
    partner = (jnp.arange(count) + count // 2) % count
    return optax.softmax_cross_entropy_with_integer_labels(scores, partner).mean(), moments


# Views


def views_of(pictures: Float[Array, "n s s 3"], key: PRNGKeyArray) -> Float[Array, "n a a 3"]:
    """Crops of area 0.12 to 1 and aspect 3/4 to 4/3, mirrored half of the time; brightness,
    contrast, saturation, hue; a fifth gray."""
    keys = iter(random.split(key, 12))
    count = len(pictures)
    area, aspect = (
        random.uniform(next(keys), (count,), minval=0.12),
        random.uniform(next(keys), (count,), minval=-0.288, maxval=0.288),
    )
    tall, wide = (jnp.minimum(jnp.sqrt(area) * jnp.exp(sign * aspect / 2), 1.0) for sign in (1, -1))
    rows = resampling(tall, random.uniform(next(keys), (count,)))
    columns = resampling(wide, random.uniform(next(keys), (count,)))
    columns = jnp.where(random.bernoulli(next(keys), 0.5, (count, 1, 1)), columns[:, ::-1], columns)
    views = jnp.einsum("nah,nhwc,nbw->nabc", rows, pictures, columns)
    one = lambda low, high: random.uniform(next(keys), (count, 1, 1, 1), minval=low, maxval=high)  # noqa: E731
    views = views * one(0.6, 1.4)
    mean = views.mean((1, 2, 3), keepdims=True)
    views = mean + (views - mean) * one(0.5, 1.5)
    gray = views.mean(-1, keepdims=True)
    colorful = one(0.2, 1.6) * random.bernoulli(next(keys), 0.8, (count, 1, 1, 1))
    hue = jnp.eye(3) + 0.1 * random.normal(next(keys), (count, 3, 3))
    return jnp.clip(jnp.einsum("nabc,ncd->nabd", gray + (views - gray) * colorful, hue), 0, 1)


def resampling(share: Float[Array, " n"], place: Float[Array, " n"]) -> Float[Array, "n a s"]:
    """Matrices that cut `share` of a line of SIDE pixels at `place` of what is left and resample it
    to VIEW, antialiased."""
    length = share[:, None] * SIDE
    center = place[:, None] * (SIDE - length) + (jnp.arange(VIEW) + 0.5) / VIEW * length - 0.5
    reach = jnp.maximum(length / VIEW, 1.0)[..., None]
    weight = jnp.maximum(1 - jnp.abs(center[..., None] - jnp.arange(SIDE)) / reach, 0)
    return weight / weight.sum(-1, keepdims=True)


# Training


Optimizer = optax.GradientTransformation
WARM = 300
"""Steps of rising learning rate."""


def optimizer_of() -> Optimizer:
    """Momentum and weight decay of kernels; the learning rate is applied in `train_step`."""
    kernels = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)  # noqa: E731
    return optax.chain(optax.add_decayed_weights(1e-4, kernels), optax.trace(0.9, nesterov=True))


def learning_rate(step: Array, total: Array, peak: float) -> Float[Array, ""]:
    """A line up over WARM steps, then half a cosine down to 0 at `total`."""
    down = jnp.clip((step - WARM) / jnp.maximum(total - WARM, 1), 0, 1)
    return peak * jnp.minimum(step / WARM, 0.5 * (1 + jnp.cos(jnp.pi * down)))


def start(key: PRNGKeyArray) -> PyTree:
    params = new_params(key)
    moments = {name: (jnp.zeros(outputs), jnp.ones(outputs)) for name, _, outputs, _ in LAYERS}
    return {
        "params": params,
        "optimizer": optimizer_of().init(params),
        "moments": moments,
        "step": jnp.zeros(()),
    }


def train_step(
    state: PyTree, key: PRNGKeyArray, pool: Array, batch: int, total: Array, peak: float
) -> tuple[PyTree, Array]:
    which, first, second = random.split(key, 3)
    pictures = pool[random.randint(which, (batch,), 0, len(pool))].astype(jnp.float32) / 255
    views = jnp.concatenate([views_of(pictures, first), views_of(pictures, second)])
    (value, moments), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"], views)
    updates, slots = optimizer_of().update(gradient, state["optimizer"], state["params"])
    rate = learning_rate(state["step"], total, peak)
    params = jax.tree.map(lambda leaf, update: leaf - rate * update, state["params"], updates)
    average = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, state["moments"], moments)
    return {
        "params": params,
        "optimizer": slots,
        "moments": average,
        "step": state["step"] + 1,
    }, value


@partial(jax.jit, donate_argnums=0, static_argnums=(3, 4, 6))
def train_part(
    state: PyTree, key: PRNGKeyArray, pool: Array, count: int, batch: int, total: Array, peak: float
) -> tuple[PyTree, Array]:
    """`count` steps; the losses."""
    return lax.scan(
        lambda state, key: train_step(state, key, pool, batch, total, peak),
        state,
        random.split(key, count),
    )


def folded(state: PyTree) -> dict[str, np.ndarray]:
    """Kernels and biases without BatchNorm, float16; the projection is left out."""
    arrays = {}
    for name, *_ in LAYERS:
        layer, (mean, variance) = state["params"][name], state["moments"][name]
        factor = layer["scale"] / jnp.sqrt(variance + 1e-5)
        arrays[f"{name}/kernel"] = np.asarray(layer["kernel"] * factor, np.float16)
        arrays[f"{name}/bias"] = np.asarray(layer["shift"] - mean * factor, np.float16)
    return arrays


def write(path: Path, state: PyTree, facts: dict) -> None:
    from safetensors.numpy import save_file

    save_file(folded(state), path, metadata={"facts": json.dumps(facts)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seconds", type=float, default=330, help="for everything, drawing and compiling included"
    )
    parser.add_argument("--steps", type=int, help="in place of what fits into the seconds")
    parser.add_argument("--pictures", type=int, default=2**20)
    parser.add_argument(
        "--batch", type=int, default=2048, help="pictures a step, two views of each"
    )
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun = time.perf_counter()
    pool, kinds = draw_pool(options.seed, options.pictures)
    jax.block_until_ready(pool)
    say(begun, f"{len(pool)} pictures {kinds}")
    part, key = min(PART, options.steps or PART), random.key(options.seed + 1)

    def run(state: PyTree, first: int, total: int) -> tuple[PyTree, Array]:
        return train_part(
            state,
            random.fold_in(key, first),
            pool,
            part,
            options.batch,
            np.float32(total),
            options.rate,
        )

    for _ in range(2):  # compiles, then measures; these steps are thrown away
        clock = time.perf_counter()
        jax.block_until_ready(run(start(key), 0, 10**6))
        pace = (time.perf_counter() - clock) / part
    left = options.seconds - (time.perf_counter() - begun) - 5
    steps = options.steps or max(part, int(left / pace) // part * part)
    say(
        begun,
        f"{pace * 1e3:.1f} ms a step, {2 * options.batch / pace:,.0f} views a second; {steps} steps",
    )
    state = start(key)
    facts = {
        "seed": options.seed,
        "pictures": len(pool),
        **kinds,
        "batch": options.batch,
        "steps": steps,
        "rate": options.rate,
        "views": 2 * options.batch * steps,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    for done in range(0, steps, part):
        state, values = run(state, done, steps)
        if (done // part) % 20 == 0 or done + part >= steps:
            facts |= {"done": done + part, "loss": round(float(values.mean()), 4)}
            say(begun, f"step {done + part}: loss {facts['loss']}")
            write(options.out, state, facts)
    say(begun, f"wrote {options.out}")


def say(begun: float, line: str) -> None:
    print(f"{time.perf_counter() - begun:6.1f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
