"""Features of pretrained-size networks: images per second here and in torch, on the same cores in
the same minutes.

    python benchmarks/forward.py [--only NAME ...] [--rounds 5] [--print]

Needs torch and timm beside Sfumato (BENCH_VENV of the Makefile, with timm). Both compute the
features (what the head sees) of 64 images by the same random weights, in turns, and are timed only
if they agree. torch: eager, in inference mode, channels last for convolutions, BatchNorm folded as
it is here. In groups: `jax.lax.map` over 8 images at a time instead of all at once, so that a
layer's maps stay in the cache.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float
from record import machine, write_section
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sfumato.networks import catalog
from sfumato.networks.backbone import Backbone
from sfumato.weights.layout import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from torch_references import saved, timm_model

IMAGES, GROUP, AGREEMENT, TARGET = 64, 8, 1e-4, 0.8


@dataclass(frozen=True)
class Case:
    """name: of the network, here and in timm. size: side of its images."""

    name: str
    size: int


CASES = (
    Case("mobilenetv2_100", 128),
    Case("mobilenetv2_100", 160),
    Case("vit_small_patch16_224", 224),
    Case("resnet50", 224),
)


def folded(module: torch.nn.Module) -> torch.nn.Module:
    """The network with every BatchNorm folded into the convolution before it."""
    before = ""
    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, before, fuse_conv_bn_eval(getattr(module, before), child))
            setattr(
                module, name, getattr(child, "act", torch.nn.Identity())
            )  # timm's norms may hold an activation
        else:
            folded(child)
        before = name
    return module


def theirs(
    network: torch.nn.Module, images: np.ndarray, layout: torch.memory_format
) -> Callable[[], np.ndarray]:
    network = folded(network).to(memory_format=layout)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def features() -> np.ndarray:
        with torch.inference_mode():
            return network.forward_head(network.forward_features(batch), pre_logits=True).numpy()

    return features


def ours(network: Backbone, images: np.ndarray, group: int | None) -> Callable[[], np.ndarray]:
    batch = jnp.asarray(images)

    @eqx.filter_jit
    def features(network: Backbone, batch: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        return (
            jax.vmap(network.features)(batch)
            if group is None
            else jax.lax.map(network.features, batch, batch_size=group)
        )

    return lambda: np.asarray(features(network, batch))


def contestants(case: Case) -> dict[str, Callable[[], np.ndarray]]:
    """Name -> features of the same images by the same weights."""
    architecture = catalog.find(case.name)
    options = {"img_size": case.size} if architecture.family == "vit" else {}
    reference = timm_model(case.name, **options)
    layout = import_module(f"sfumato.weights.timm_{architecture.family}")
    empty = eqx.filter_eval_shape(
        architecture.make, (case.size, case.size, 3), 1000, jax.random.key(0)
    )
    with tempfile.TemporaryDirectory() as directory:
        arrays = saved(reference, Path(directory) / "weights.safetensors")
    network = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), empty)
    network = fill(network, arrays, layout.layout, layout.unused, keep_head=True)
    images = (
        np.random.default_rng(0)
        .standard_normal((IMAGES, case.size, case.size, 3))
        .astype(np.float32)
    )
    best = torch.contiguous_format if architecture.family == "vit" else torch.channels_last
    return {
        "torch": theirs(reference, images, best),
        "ours": ours(network, images, None),
        "in groups": ours(network, images, GROUP),
    }


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Images per second of each contestant, the median over the rounds."""
    runs = contestants(case)
    expected = runs["torch"]()
    for name, run in runs.items():  # compiles, too
        apart = np.abs(run() - expected).max() / np.abs(expected).max()
        if apart > AGREEMENT:
            raise SystemExit(
                f"{case.name}: features of {name} are {apart:.1e} from torch's, relative to the largest"
            )
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: IMAGES / median(taken) for name, taken in seconds.items()}


def table(results: dict[Case, dict[str, float]]) -> str:
    lines = [
        f"| network | size | torch | ours | in groups of {GROUP} | ours / torch | in groups / torch |",
        "|---" * 7 + "|",
    ]
    for case, speed in results.items():
        ratios = [speed[name] / speed["torch"] for name in ("ours", "in groups")]
        speeds = " | ".join(f"{speed[name]:.1f}" for name in ("torch", "ours", "in groups"))
        lines.append(
            f"| {case.name} | {case.size} | {speeds} | {ratios[0]:.2f} | {ratios[1]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", default=[case.name for case in CASES], help="names of networks"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--print", action="store_true", help="print the table and leave RESULTS.md alone"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    results = {}
    for case in CASES:
        if case.name in arguments.only:
            results[case] = measure(case, arguments.rounds)
            print(case.name, case.size, results[case], flush=True)
    text = table(results)
    print(text)
    if not arguments.print:
        facts = f"`benchmarks/forward.py`; {machine()}, torch {torch.__version__}."
        what = (
            f"Images per second, features of {IMAGES} images at a time, float32; the target is {TARGET} of torch's. "
            "Features are extracted in groups (`sfumato/features/extraction.py`)."
        )
        write_section("Forward pass", f"{facts}\n\n{what}\n\n{text}")


if __name__ == "__main__":
    main()
