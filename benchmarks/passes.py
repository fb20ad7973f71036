"""Multiply-adds of a DP-SGD step by the numbers they are formed in, as an accelerator would compute it.

    python benchmarks/passes.py            # prints the table of benchmarks/RESULTS.md

Nothing is compiled and no accelerator is needed: steps are traced for a GPU (`clip.arithmetic`), and
the products and convolutions of the trace are counted. A product of halves is one pass; of float32, it
is TF32 (2 passes: half the rate) unless it asks for the highest precision (float32 units without
tensor cores: 16 passes). These are the rates of an H100: 989, 495 and 67 TFLOP/s.

XLA computes the weight gradient of a convolution, and the gradient for its image, with zeros between
pixels where there are strides; both are counted as they stand, for ordinary steps and for ours.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from sfumato.clip import _jax as J
from sfumato.clip import clipped_grad
from sfumato.clip.arithmetic import compiled_for
from sfumato.networks import catalog
from sfumato.networks.image_cost import multiply_adds_by
from sfumato.networks.input import Input
from sfumato.runs.jobs import loss_of

PASSES = {"half": 1, "TF32": 2, "float32": 16}


@dataclass(frozen=True)
class Step:
    """A network at a batch of `batch` examples of `views` views."""

    model: str
    side: int
    classes: int
    batch: int
    views: int

    def problem(self, precision: str) -> tuple[Callable[..., Any], PyTree, PyTree]:
        """(loss of one example, parameters, batch), arrays as shapes."""
        make, shape = catalog.find(self.model).make, (self.side, self.side, 3)
        network = eqx.filter_eval_shape(make, shape, self.classes, jax.random.key(0))
        params, static = eqx.partition(network, lambda x: isinstance(x, jax.ShapeDtypeStruct))
        images = jax.ShapeDtypeStruct((self.batch, self.views, *shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((self.batch,), jnp.int32)
        loss = loss_of(static, Input(), lambda views, _: views, precision)
        return loss, params, ((images, ()), labels)

    def ordinary(self, precision: str) -> Counter[str]:
        loss, params, batch = self.problem(precision)

        def mean(params: PyTree, batch: PyTree) -> Any:
            return jax.vmap(loss, (None, 0))(params, batch).mean()

        return counted(jax.grad(mean), params, batch)

    def clipped(self, precision: str) -> Counter[str]:
        loss, params, batch = self.problem(precision)
        mask = jax.ShapeDtypeStruct((self.batch,), jnp.bool_)
        return counted(lambda *args: clipped_grad(loss, 1.0)(*args).value, params, batch, mask)


STEPS = {
    "WRN-16-4, K = 16": Step("wrn-16-4", 32, 10, 16, 16),
    "WRN-16-4, K = 4": Step("wrn-16-4", 32, 10, 16, 4),
    "WRN-28-10, K = 16": Step("wrn-28-10", 32, 10, 16, 16),
    "WRN-28-10, K = 1": Step("wrn-28-10", 32, 10, 16, 1),
    "NF-ResNet-50": Step("nf_resnet50", 224, 1000, 16, 1),
    "ViT-B/16": Step("vit_base_patch16_224", 224, 1000, 16, 1),
}


def counted(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """By kind: "half", "TF32", "float32"; as traced for a GPU."""
    with compiled_for("gpu"):
        return multiply_adds_by(kind, function, *arguments)


def kind(eqn: Any) -> str:
    named = eqn.params["precision"] == jax.lax.DotAlgorithmPreset.BF16_BF16_F32  # of attention
    if named or all(atom.aval.dtype.itemsize == 2 for atom in eqn.invars):
        return "half"
    return "float32" if J.precision(eqn) == jax.lax.Precision.HIGHEST else "TF32"


def passes(counts: Counter[str]) -> int:
    return sum(PASSES[name] * count for name, count in counts.items())


def main() -> None:
    print(
        "| step | precision | multiply-adds / ordinary | half | TF32 | float32 | passes / ordinary |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, step in STEPS.items():
        for precision in ("bf16", "tf32"):
            ordinary, ours = step.ordinary(precision), step.clipped(precision)
            whole = ordinary.total()
            shares = " | ".join(f"{ours[each] / whole:.3f}" for each in PASSES)
            ratio, weighed = ours.total() / whole, passes(ours) / passes(ordinary)
            print(f"| {name} | {precision} | {ratio:.3f} | {shares} | {weighed:.3f} |", flush=True)


if __name__ == "__main__":
    main()
