"""What is timed: networks, batches, and the ratios to reach."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from models import Model, mlp, resnet18, vit, wide_resnet
from nfnet import nfnet_f0

from sfumato.core.precision import PRECISIONS
from sfumato.networks.backbone import in_type

CLIP_NORM = 1.0


@dataclass(frozen=True)
class Case:
    """A row of the table.

    time, memory: the largest ratio of auto to the ordinary step to reach; peer: the least
    throughput in units of jax_privacy's. None: none was set. twin: the network in torch_models.py
    that Opacus is timed on.
    """

    title: str
    model: Callable[[], Model]
    shape: tuple[int, ...]
    batch: int
    views: int = 1
    time: float | None = None
    memory: float | None = None
    peer: float | None = None
    twin: str | None = None
    precision: str = "float32"


def small_vit(scan: bool) -> Callable[[], Model]:
    return lambda: vit(384, 6, scan=scan)


BIG, SMALL = (224, 224, 3), (32, 32, 3)

CASES = {
    "wrn": Case(
        "WRN-16-4, 32x32, b=32, K=1",
        lambda: wide_resnet(16, 4),
        SMALL,
        32,
        1,
        1.10,
        1.5,
        1.8,
        "wrn",
    ),
    "wrn-views": Case(
        "WRN-16-4, 32x32, b=16, K=4", lambda: wide_resnet(16, 4), SMALL, 16, 4, 0.80, 1.3, 1.8
    ),
    "resnet": Case(
        "ResNet-18 (GroupNorm), 64x64, b=16",
        lambda: resnet18(200),
        (64, 64, 3),
        16,
        1,
        1.15,
        1.5,
        1.8,
    ),
    "vit-scan": Case(
        "ViT-S/16, 224x224, b=8, scan over layers",
        small_vit(True),
        BIG,
        8,
        1,
        1.20,
        1.3,
        1.8,
        "vit",
    ),
    "vit": Case(
        "ViT-S/16, 224x224, b=8, unrolled", small_vit(False), BIG, 8, 1, 1.20, 1.3, 1.8, "vit"
    ),
    "mlp": Case("MLP 5 x 1024, b=64", lambda: mlp(784, 1024, 5, 10), (784,), 64, 1, 1.25, 1.5, 1.8),
}

GPU_CASES = {
    "gpu-wrn": Case(
        "WRN-16-4, bf16, b=256, K=16",
        lambda: wide_resnet(16, 4),
        SMALL,
        256,
        16,
        1.15,
        None,
        2.0,
        precision="bf16",
    ),
    "gpu-wide": Case(
        "WRN-28-10, bf16, b=64, K=1",
        lambda: wide_resnet(28, 10),
        SMALL,
        64,
        1,
        1.15,
        None,
        2.0,
        precision="bf16",
    ),
    "gpu-vit": Case(
        "ViT-B/16, 224x224, bf16, b=64",
        lambda: vit(768, 12, scan=True),
        BIG,
        64,
        1,
        1.15,
        None,
        2.0,
        precision="bf16",
    ),
    "gpu-nfnet": Case(
        "NFNet-F0, 192x192, bf16, b=32",
        lambda: nfnet_f0(1000),
        (192, 192, 3),
        32,
        1,
        1.15,
        None,
        2.0,
        precision="bf16",
    ),
}

Loss = Callable[[PyTree, PyTree], Float[Array, ""]]


def problem(case: Case) -> tuple[Loss, PyTree, PyTree]:
    """(loss of one example, parameters, batch); an example is (views, label). Pixels and labels are
    random."""
    params, apply = case.model()
    chosen = PRECISIONS[case.precision]
    products = None if jax.default_backend() == "cpu" else chosen.products

    def loss(params: PyTree, example: tuple[Array, Array]) -> Float[Array, ""]:
        """Mean cross entropy over the views of one example; parameters stay float32, the
        precision is that of what computes."""
        images, label = example
        params, images = in_type(params, chosen.compute), images.astype(chosen.compute)
        with jax.default_matmul_precision(products) if products else nullcontext():
            scores = jax.vmap(apply, (None, 0))(params, images).astype(jnp.float32)
        return -jax.nn.log_softmax(scores)[:, label].mean()

    draw = np.random.default_rng(0)
    images = draw.random((case.batch, case.views, *case.shape), np.float32)
    labels = draw.integers(10, size=case.batch).astype(np.int32)
    return loss, jax.tree.map(jnp.asarray, params), (jnp.asarray(images), jnp.asarray(labels))
