"""`clipped_grad`: from a loss of ONE example to the clipped gradient sum of a batch."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from sfumato.clip.bounded_sum import BoundedSum, Sensitivity
from sfumato.clip.materialise import clipped_sum
from sfumato.core.checks import choice, positive, whole
from sfumato.core.errors import ArgumentError

Loss = Callable[[PyTree, PyTree], Float[Array, ""]]
METHODS = ("auto", "materialise")
CLIP_NORMS = (1e-10, 1e10)
"""Beyond these, squares of norms near C underflow in float32 (an example would pass unclipped) or overflow."""


@dataclass(frozen=True)
class ClippedGrad:
    """Callable `(params, batch, mask) -> BoundedSum`; may be jitted. Build it with `clipped_grad`."""

    loss: Loss
    clip_norm: float
    normalised: bool
    microbatch: int | None

    @property
    def sensitivity(self) -> Sensitivity:
        return Sensitivity.of_contribution(1.0 if self.normalised else self.clip_norm)

    def __call__(self, params: PyTree, batch: PyTree[Shaped[Array, "b ..."]], mask: Bool[Array, "b"]) -> BoundedSum:
        """The sum over the examples i with mask[i]; every leaf of `batch` has the example axis in front."""
        _check_batch(batch, mask)
        if self.microbatch is None or self.microbatch >= mask.shape[0]:
            value = clipped_sum(self.loss, self.clip_norm, params, batch, mask)
        else:
            value = self._in_microbatches(params, batch, mask)
        if self.normalised:
            value = jax.tree.map(lambda leaf: leaf / self.clip_norm, value)
        return BoundedSum(value, self.sensitivity)

    def _in_microbatches(self, params: PyTree, batch: PyTree, mask: Array) -> PyTree:
        """The same sum, `microbatch` examples at a time; the last microbatch is padded with masked zeros."""
        size = self.microbatch
        assert size is not None
        count = -(-mask.shape[0] // size)

        def split(leaf: Array) -> Array:
            padding = [(0, count * size - leaf.shape[0])] + [(0, 0)] * (leaf.ndim - 1)
            return jnp.pad(leaf, padding).reshape((count, size, *leaf.shape[1:]))

        def step(total: PyTree, part: tuple[PyTree, Array]) -> tuple[PyTree, None]:
            value = clipped_sum(self.loss, self.clip_norm, params, *part)
            return jax.tree.map(jnp.add, total, value), None

        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
        return jax.lax.scan(step, zeros, (jax.tree.map(split, batch), split(mask)))[0]


def clipped_grad(
    loss: Loss, clip_norm: float, *, method: str = "auto", normalised: bool = False, microbatch: int | None = None
) -> ClippedGrad:
    """Per-example clipping for any JAX loss. De et al. 2022, Alg. 1; Abadi et al. 2016.

    loss: `loss(params, example) -> scalar` for ONE example (a tree of arrays without a batch axis). An example may hold
        several augmented views; a loss that averages over them is then clipped once per example (augmentation
        multiplicity), not once per view.
    clip_norm: C > 0, in the unit of the gradient.
    method: "materialise" holds every example's gradient; "auto" is the fastest exact method there is.
    normalised: divide the sum by C, so that its sensitivity is 1 and the learning rate does not depend on C (De et al.).
    microbatch: examples to differentiate at once; bounds memory, does not change the result beyond rounding.
    Raises ArgumentError for C outside [1e-10, 1e10], an unknown method, a bad microbatch or (when called) a batch and mask
    that differ in length.
    """
    check_clip_norm(clip_norm)
    choice("method", method, METHODS)
    if microbatch is not None:
        whole("microbatch", microbatch)
    return ClippedGrad(loss, float(clip_norm), normalised, microbatch)


def check_clip_norm(clip_norm: float) -> None:
    """Raise ArgumentError unless norms can be compared with it in float32."""
    positive("clip_norm", clip_norm)
    if not CLIP_NORMS[0] <= clip_norm <= CLIP_NORMS[1]:
        raise ArgumentError("clip_norm", clip_norm, f"give a number from {CLIP_NORMS[0]:g} to {CLIP_NORMS[1]:g}")


def _check_batch(batch: PyTree, mask: Array) -> None:
    if mask.ndim != 1 or mask.dtype != bool:
        raise ArgumentError("mask", mask.shape, f"give a vector of booleans, one per example (dtype is {mask.dtype})")
    for leaf in jax.tree.leaves(batch):
        if leaf.ndim == 0 or leaf.shape[0] != mask.shape[0]:
            raise ArgumentError("batch", leaf.shape, f"give leaves whose first axis is the mask's {mask.shape[0]} examples")
