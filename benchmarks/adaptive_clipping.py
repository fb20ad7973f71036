"""Does a clip norm that follows a quantile of the gradient norms pay? Andrew et al. 2021, "Differentially
private learning with adaptive clipping", beside fixed clip norms, at the same ε, into RESULTS.md.

    python benchmarks/adaptive_clipping.py                                          # a small network on the digits
    python benchmarks/adaptive_clipping.py --data fashion_mnist --data-dir DIR --share 0.1 --model scatternet

This is all of it as an experiment: a loop of its own in one program, with noise of JAX's generators,
so nothing here is to be run on private images. Accuracies are on a fifth of the training images, held out.

The price. A step of B expected examples releases, beside the sum of g_i / max(|g_i|, C), how many of the
examples have |g_i| <= C, as s times the sum of b_i - 1/2, b_i in {0, 1}. One example moves the two together by at
most sqrt(1 + s^2 / 4) in L2 norm, when it is added or removed, so one Gaussian mechanism of noise multiplier z
and that sensitivity S releases both at the price of z: every number of the gradient has noise z S in place of z, and
the count z S / s. With sigma_b = z S / s that is their theorem 1, z S = (z^-2 - (2 sigma_b)^-2)^(-1/2). As
they advise, sigma_b = B / 20, but S is at most MOST. Then C <- C exp(-RATE (share - quantile)), with the share
from the noisy count.

The sum is divided by C, as in sfumato train, so the learning rate does not depend on C; "times C" multiplies it by
C / C_0, as they do.
"""

import argparse
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from record import machine, write_section
from scipy.stats import t as student

from sfumato import data
from sfumato.core.checks import privacy_target
from sfumato.data.ahead import stored
from sfumato.data.named import default_data_dir
from sfumato.data.split import ReadOptions
from sfumato.features import by_name
from sfumato.features.extraction import extract
from sfumato.networks.layers.convolutions import Conv
from sfumato.privacy.calibration import gaussian_mu_for, noise_multiplier
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent
from sfumato.train.sgd_settings import SGDSettings, default_settings

RATE, MOST = 0.2, 1.05
FIXED = (0.03, 0.1, 0.3, 1.0, 3.0)
RATES = (0.25, 0.5, 1.0)
"""Times the default learning rate; the best of each row is shown, too."""


@dataclass(frozen=True)
class Clip:
    """start: C of the first step. quantile: that it follows, None for a fixed one. follows: whether the
    learning rate is in proportion to it."""

    start: float
    quantile: float | None = None
    follows: bool = False

    @property
    def name(self) -> str:
        if self.quantile is None:
            return f"fixed, {self.start:g}"
        return f"quantile {self.quantile:g} from {self.start:g}" + ", times C" * self.follows


@dataclass(frozen=True)
class Task:
    """norms_and_sum: (params, x, y, factors of norms) -> (norms, sum of factor * gradient)."""

    params: Any
    train: tuple[np.ndarray, np.ndarray]
    shown: tuple[np.ndarray, np.ndarray]
    scores: Callable[..., Any]
    norms_and_sum: Callable[..., Any]
    kind: str


class PatchConv(eqx.Module):
    """A convolution as a product with patches: an example's own gradient of it is quicker on a CPU."""

    conv: Conv

    def __call__(self, image: Any) -> Any:
        kernel, stride = self.conv.kernel, self.conv.stride
        side = kernel.shape[0]
        pads = lax.padtype_to_pads(image.shape[:2], (side, side), (stride, stride), "SAME")
        high, wide = (-(-length // stride) for length in image.shape[:2])
        padded = jnp.pad(image, [*pads, (0, 0)])
        shifted = [
            padded[i : i + stride * high : stride, j : j + stride * wide : stride]
            for i in range(side)
            for j in range(side)
        ]
        patches = jnp.concatenate(shifted, -1).reshape(high * wide, -1)
        maps = patches @ kernel.reshape(-1, kernel.shape[-1]) + self.conv.bias
        return maps.reshape(high, wide, -1)


def network(source: Any, name: str) -> Task:
    made = jax.tree.map(
        lambda each: PatchConv(each) if isinstance(each, Conv) else each,
        by_name.network(name, source.shape, len(source.class_names), jax.random.key(0)),
        is_leaf=lambda each: isinstance(each, Conv),
    )
    params, static = eqx.partition(made, eqx.is_inexact_array)

    def scores(params: Any, x: Any) -> Any:
        return jax.vmap(eqx.combine(params, static))(x)

    def loss(params: Any, x: Any, y: Any) -> Any:
        return -jax.nn.log_softmax(scores(params, x[None])[0])[y]

    def norms_and_sum(params: Any, x: Any, y: Any, factors: Callable[[Any], Any]) -> Any:
        each = jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, y)
        squares = [jnp.sum(leaf**2, range(1, leaf.ndim)) for leaf in jax.tree.leaves(each)]
        norms = jnp.sqrt(sum(squares))
        return norms, jax.tree.map(lambda leaf: jnp.tensordot(factors(norms), leaf, 1), each)

    return Task(
        params,
        *halves(source, stored(source, np.arange(len(source)))),
        scores,
        norms_and_sum,
        "cnn",
    )


def head(source: Any, name: str) -> Task:
    rows = extract(by_name.features(name, source.shape), source).astype(np.float32)
    params = jnp.zeros((rows.shape[1], len(source.class_names)))

    def norms_and_sum(params: Any, x: Any, y: Any, factors: Callable[[Any], Any]) -> Any:
        error = jax.nn.softmax(x @ params) - jax.nn.one_hot(y, params.shape[1])
        norms = jnp.linalg.norm(x, axis=1) * jnp.linalg.norm(error, axis=1)
        return norms, x.T @ (error * factors(norms)[:, None])

    return Task(params, *halves(source, rows), lambda w, x: x @ w, norms_and_sum, "features")


def halves(source: Any, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four fifths to train on, and what is shown."""
    order = np.random.default_rng(0).permutation(len(x))
    cut = len(x) * 4 // 5
    return [(x[at], np.asarray(source.labels)[at]) for at in (order[:cut], order[cut:])]


def trainer(task: Task, settings: SGDSettings) -> Callable[..., Any]:
    """(key, clip norm, quantile, s, rate, follows, noise multiplier) -> accuracy on what is shown, clip
    norms over the steps. s = 0: the clip norm is fixed."""
    x, y = (jnp.asarray(each) for each in task.train)
    n, batch = len(x), settings.batch
    room = min(n, batch + 6 * math.ceil(batch**0.5))
    leaves, structure = jax.tree.flatten(task.params)

    def run(key: Any, start: Any, quantile: Any, s: Any, rate: Any, follows: Any, z: Any) -> Any:
        noise = z * jnp.sqrt(1 + s**2 / 4)

        def step(carry: Any, at: Any) -> Any:
            params, velocity, average, clip = carry
            own = jax.random.split(jax.random.fold_in(key, at), len(leaves) + 2)
            who = jnp.nonzero(jax.random.uniform(own[0], (n,)) < batch / n, size=room, fill_value=n)
            there = who[0] < n
            norms, total = task.norms_and_sum(
                params,
                x[jnp.minimum(who[0], n - 1)],
                y[jnp.minimum(who[0], n - 1)],
                lambda norms: there / jnp.maximum(norms, clip),
            )
            below = jnp.sum(jnp.where(there, (norms <= clip) - 0.5, 0.0))
            below += jax.random.normal(own[1]) * noise / jnp.where(s > 0, s, 1)
            drawn = [
                jax.random.normal(k, leaf.shape) for k, leaf in zip(own[2:], leaves, strict=True)
            ]
            gradient = jax.tree.map(
                lambda a, b: (a + noise * b) / batch, total, jax.tree.unflatten(structure, drawn)
            )
            velocity = jax.tree.map(lambda a, b: settings.momentum * a + b, velocity, gradient)
            each = rate * jnp.where(follows, clip / start, 1.0)
            params = jax.tree.map(lambda a, b: a - each * b, params, velocity)
            decay = jnp.minimum(settings.ema, (1 + at) / (10 + at))
            average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, params)
            after = clip * jnp.exp(-RATE * (below / batch + 0.5 - quantile) * (s > 0))
            return (params, velocity, average, jnp.clip(after, 1e-6, 1e6)), clip

        nothing = jax.tree.map(jnp.zeros_like, task.params)
        carry = (task.params, nothing, task.params, start)
        (_, _, average, _), clips = lax.scan(step, carry, jnp.arange(settings.steps))
        scores = task.scores(average, jnp.asarray(task.shown[0]))
        return jnp.mean(scores.argmax(1) == jnp.asarray(task.shown[1])), clips

    return jax.jit(run)


def weight_of_count(batch: float, z: float) -> float:
    """s above."""
    wanted = (batch / (20 * z)) ** 2 - 0.25
    most = 2 * math.sqrt(MOST**2 - 1)
    return min(most, wanted**-0.5) if wanted > 0 else most


def clips(settings: SGDSettings) -> list[Clip]:
    first = settings.clip_norm
    fixed = sorted({*FIXED, first})
    if first < min(FIXED):  # rows of norm about 1: larger ones never bind
        fixed = [first / 10, first, 10 * first, 100 * first, 1000 * first]
    adaptive = [Clip(first, quantile) for quantile in (0.2, 0.5, 0.8)]
    return [*map(Clip, fixed), *adaptive, Clip(10 * first, 0.5), Clip(first, 0.5, follows=True)]


def half_width(values: list[float]) -> float:
    count = len(values)
    return float(student.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--epsilon", type=float, nargs="*", default=[3.0, 8.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="*", default=list(RATES))
    asked = parser.parse_args()
    source = data.open(
        asked.data, data_dir=asked.data_dir, options=ReadOptions(share=asked.share)
    ).train
    task = (head if by_name.is_features(asked.model) else network)(source, asked.model)
    n, began = len(task.train[0]), time.monotonic()
    lines = [
        "| ε | clip norm | default rate | best of the rates | C at the end | noise |",
        "|---|---|---|---|---|---|",
    ]
    for epsilon in asked.epsilon:
        _, delta = privacy_target(epsilon, None, n)
        settings = default_settings(task.kind, n, epsilon, gaussian_mu_for(epsilon, delta))
        z = noise_multiplier(
            lambda z, own=settings: Counter(
                {PoissonSampledEvent(own.batch / n, GaussianEvent(z)): own.steps}
            ),
            epsilon,
            delta,
        )
        run = trainer(task, settings)
        for clip in clips(settings):
            s = 0.0 if clip.quantile is None else weight_of_count(settings.batch, z)
            found: dict[float, list[float]] = {}
            last = 0.0
            for factor, seed in itertools.product(asked.rates, range(asked.seeds)):
                rate = factor * settings.learning_rate
                right, over = run(
                    jax.random.key(seed), clip.start, clip.quantile or 0.0, s, rate, clip.follows, z
                )
                found.setdefault(factor, []).append(100 * float(right))
                last = float(over[-1])
            usual, best = found[1.0], max(found.values(), key=np.mean)
            lines.append(
                f"| {epsilon:g} | {clip.name} | {np.mean(usual):.1f} ± {half_width(usual):.1f} | "
                f"{np.mean(best):.1f} ± {half_width(best):.1f} | {last:.2g} | {math.hypot(1, s / 2):.3f} |"
            )
            print(lines[-1], f"{time.monotonic() - began:.0f} s", flush=True)
            write_section(
                f"Adaptive clipping: {asked.data}, {asked.model}",
                f"""`python benchmarks/adaptive_clipping.py`: {n:,} images to train on, batches of {settings.batch:,}, {settings.steps} steps,
default clip norm {settings.clip_norm:g}; accuracy in % on {len(task.shown[0]):,} others, mean of {asked.seeds} seeds and its 95 % interval. Best
of the rates: of {", ".join(f"{each:g}" for each in asked.rates)} times the default learning rate. Noise: of the gradient, over that without a count.

{chr(10).join(lines)}

{machine()}""",
            )


if __name__ == "__main__":
    main()
