"""The audits that docs/audits.md reports, with the shipped trainer: lower bounds on epsilon beside
the claims, and the time.

    python benchmarks/audits.py [whitebox|blackbox|all] [--data-dir DIR] [--models 400] [--seed 0]

Run it on an idle machine. Fashion-MNIST is looked for in --data-dir (default: $SFUMATO_DATA, then
the user's cache). The tables are printed as Markdown; every result is also appended to
benchmarks/audits.jsonl.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import optax

from sfumato import data
from sfumato.audit.blackbox import blackbox, hardest_label, pretrained
from sfumato.audit.canaries import whitebox
from sfumato.audit.result import AuditResult, Claim
from sfumato.clip import clipped_grad
from sfumato.data.named import default_data_dir
from sfumato.features import by_name
from sfumato.noise import Gaussian
from sfumato.privacy.calibration import noise_multiplier
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, Tally
from sfumato.sampling import FullBatch, Poisson
from sfumato.train.dpsgd import DPSGD

DELTA = 1e-5
OUT = Path(__file__).with_name("audits.jsonl")


def network(shape: tuple[int, int, int], clip_norm: float):  # type: ignore[no-untyped-def]
    """The small CNN of `--model cnn`: its parameters, and per-example clipping of its cross
    entropy."""
    params, static = eqx.partition(
        by_name.network("cnn", shape, 10, jax.random.key(0)), eqx.is_inexact_array
    )

    def loss(params, example):  # type: ignore[no-untyped-def]
        image, label = example
        return optax.softmax_cross_entropy_with_integer_labels(
            eqx.combine(params, static)(image), label
        )

    return params, clipped_grad(loss, clip_norm, normalized=True)


def calibrated(epsilon: float, rate: float, steps: int) -> tuple[Gaussian, Claim]:
    def tally(sigma: float) -> Tally:
        return {
            GaussianEvent(sigma)
            if rate == 1
            else PoissonSampledEvent(rate, GaussianEvent(sigma)): steps
        }

    sigma = noise_multiplier(tally, epsilon, DELTA)
    return Gaussian(sigma), Claim(tally(sigma), DELTA)


def white(seed: int) -> Iterator[tuple[str, AuditResult]]:
    """The small CNN on 8 x 8 digits, 8,000 canaries a run; epsilon = 1 needs more runs, for its
    guesses are the least sure."""
    source = data.open("digits").train
    params, clipped = network(source.shape, 0.1)
    for epsilon, runs in ((1.0, 5), (4.0, 2), (8.0, 2)):
        for rate, steps in ((1.0, 10), (0.1, 40)):
            noise, claim = calibrated(epsilon, rate, steps)
            trainer = DPSGD(
                clipped,
                params,
                source,
                sampler=Poisson(rate, steps, len(source)),
                noise=noise,
                optimizer=optax.sgd(2.0),
                physical_batch_size=64,
            )
            for result in whitebox(
                trainer, claim, np.random.default_rng(seed), canaries=8000, runs=runs
            ):
                yield f"digits, cnn, q = {rate:g}, {steps} steps, {runs} runs", result


def black(seed: int, models: int, data_dir: Path | None) -> Iterator[tuple[str, AuditResult]]:
    """Annamalai & De Cristofaro 2024: full batches of 1,000 images, parameters trained on 1,000
    others, a blank target.

    The steps are short: along a short way the loss of the target is linear, and shows as much as
    the releases do. With a learning rate of 0.5 / 0.1 per unit of gradient, the other images'
    gradients amplify the noise and the target drowns.
    """
    n, steps = 1000, 6
    source = data.open("fashion_mnist", data_dir=data_dir).train
    images, labels = source.images(np.arange(2 * n)), source.labels[: 2 * n]
    params, clipped = network(source.shape, 1.0)
    params = pretrained(clipped.loss, params, (images[:n], labels[:n]))
    blank = np.zeros(source.shape, np.float32)
    label = hardest_label(clipped.loss, params, blank, 10)
    noise, claim = calibrated(10.0, 1.0, steps)
    trainer = DPSGD(
        clipped,
        params,
        fetch=lambda indices, step: (images[n + indices], labels[n + indices]),
        sampler=FullBatch(steps, n),
        noise=noise,
        optimizer=optax.sgd(0.02),
        physical_batch_size=64,
    )
    began = time.monotonic()

    def advance(done: int) -> None:
        print(f"\r{done} of {models} models, {time.monotonic() - began:.0f} s", end="", flush=True)

    stream = np.random.default_rng(seed)
    for result in blackbox(
        trainer, (blank, np.int32(label)), claim, stream, models=models, advance=advance
    ):
        yield f"fashion_mnist, cnn, full batch, {n} records, {steps} steps, {models} models", result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=("whitebox", "blackbox", "all"))
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    parser.add_argument("--models", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = [
        *(white(given.seed) if given.what != "blackbox" else ()),
        *(black(given.seed, given.models, given.data_dir) if given.what != "whitebox" else ()),
    ]
    print("\n| trainer | attack | bound | ε claimed | ε at least | share | guesses | seconds |")
    print("|---" * 8 + "|")
    with OUT.open("a") as file:
        for name, each in found:
            print(
                f"| {name} | {each.attack} | {each.method} | {each.epsilon:.3f} | {each.lower_bound:.3f} | "
                f"{100 * each.lower_bound / each.epsilon:.0f} % | {each.observations:,} | {each.seconds:.0f} |"
            )
            file.write(json.dumps({"trainer": name, "seed": given.seed, **each.to_json()}) + "\n")


if __name__ == "__main__":
    main()
