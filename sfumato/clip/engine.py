"""`clipped_grad`: from a loss of ONE example to the clipped gradient sum of a batch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from sfumato.clip import _jax as J
from sfumato.clip import book_keeping, materialize, two_pass
from sfumato.clip.bounded_sum import BoundedSum, Sensitivity
from sfumato.clip.factors import (
    CLIP_NORMS,
    Clipper,
    Grouping,
    check_clip_norm,
    check_clipping,
    make_clipper,
    normalizer,
    total_norm,
)
from sfumato.clip.handling import handle
from sfumato.clip.microbatch import Microbatch, check_microbatch, fitting, in_microbatches
from sfumato.clip.trace import Loss, check_params, trace_loss
from sfumato.core.checks import choice
from sfumato.core.errors import ArgumentError

METHODS = ("auto", "book_keeping", "two_pass", "materialize")

__all__ = ["CLIP_NORMS", "METHODS", "ClippedGrad", "check_clip_norm", "clipped_grad"]


@dataclass(frozen=True)
class ClippedGrad:
    """Callable `(params, batch, mask, *frozen) -> BoundedSum`; may be jitted. Build it with
    `clipped_grad`."""

    loss: Callable[..., Float[Array, ""]]
    clip_norm: float | Mapping[str, float]
    method: str = "auto"
    groups: Grouping = "flat"
    clipping: str = "hard"
    normalized: bool = False
    microbatch: Microbatch = None

    def __hash__(self) -> int:
        """Also of clip norms by group, so that `jax.jit` takes it."""
        norm = self.clip_norm
        own = norm if isinstance(norm, int | float) else frozenset(norm.items())
        return hash((self.loss, own, self.method, self.groups, self.clipping, self.normalized))

    @property
    def sensitivity(self) -> Sensitivity:
        total = total_norm(self.clip_norm)
        return Sensitivity.of_contribution(total / normalizer(self.clip_norm, self.normalized))

    def unclipped(self) -> "ClippedGrad":
        """The sum of the gradients as they are, whose sensitivity is infinite."""
        own = self.clip_norm
        norm = dict.fromkeys(own, math.inf) if isinstance(own, Mapping) else math.inf
        return replace(self, clip_norm=norm)

    def __call__(
        self,
        params: PyTree,
        batch: PyTree[Shaped[Array, "b ..."]],
        mask: Bool[Array, " b"],
        *frozen: PyTree,
    ) -> BoundedSum:
        """The sum over the examples i with mask[i]; every leaf of `batch` has the example axis in
        front.

        frozen: what the loss takes after the example, such as weights that are not trained: the
        same for all examples, not differentiated. Given here and not closed over, it is an argument
        of a compiled program instead of a part of it.
        """
        _check_batch(batch, mask)
        names = check_params(params)
        params = jax.tree.map(jnp.asarray, params)
        clipper = make_clipper(names, self.clip_norm, self.groups, self.clipping)

        def clipped_sum(params: PyTree, batch: PyTree, mask: Array, *frozen: PyTree) -> PyTree:
            return self._sum(self.loss_with(*frozen), clipper, params, batch, mask)

        size = self.microbatch
        if isinstance(size, str):
            size = fitting(clipped_sum, (self.loss, self.method), params, batch, mask, *frozen)
        value = J.let_compiler_shard(
            lambda *args: in_microbatches(clipped_sum, size, *args), params, batch, mask, *frozen
        )
        if self.normalized:
            by = normalizer(self.clip_norm, self.normalized)
            value = jax.tree.map(lambda leaf: leaf / by, value)
        return BoundedSum(value, self.sensitivity)

    def loss_with(self, *frozen: PyTree) -> Loss:
        """The loss as a function of parameters and example alone."""
        return (
            (lambda params, example: self.loss(params, example, *frozen)) if frozen else self.loss
        )

    def _sum(
        self, loss: Loss, clipper: Clipper, params: PyTree, batch: PyTree, mask: Array
    ) -> PyTree:
        trace = trace_loss(loss, params, first_example(batch))
        if self.method == "materialize":
            return materialize.clipped_sum(loss, trace, clipper, params, batch, mask)
        handling = handle(trace)
        passes = two_pass if handling.method(self.method) == "two_pass" else book_keeping
        return passes.clipped_sum(handling, clipper, params, batch, mask)


def clipped_grad(
    loss: Callable[..., Float[Array, ""]],
    clip_norm: float | Mapping[str, float],
    *,
    method: str = "auto",
    groups: Grouping = "flat",
    clipping: str = "hard",
    normalized: bool = False,
    microbatch: Microbatch = None,
) -> ClippedGrad:
    """Per-example clipping for any JAX loss. De et al. 2022, Alg. 1; Abadi et al. 2016.

    loss: `loss(params, example) -> scalar` for ONE example (a tree of arrays without a batch axis).
        An example may hold several augmented views; a loss that averages over them is then clipped
        once per example (augmentation multiplicity), not once per view. Called with frozen
        arguments, it is `loss(params, example, *frozen)`.
    clip_norm: C > 0, in the unit of the gradient; or one for each group. math.inf clips nothing: no
        noise can hide such a sum, and nothing is divided by C.
    method: "book_keeping" takes one forward and one backward pass and holds per-example gradients
        of single layers only; "two_pass" takes a second pass in place of the memory for cotangents;
        "materialize" holds every example's gradient. "auto" is two_pass for a loss that
        rematerializes (`jax.checkpoint`) the layers that meet data, else book_keeping. All give the
        same sum up to rounding. `explain` shows how each leaf is handled.
    groups: "flat" clips the gradient as a whole; "per_layer" by parent in the parameter tree; or a
        function from leaf names ("blocks/0/kernel") to group names. With one clip_norm C, each of G
        groups is clipped at C / sqrt(G).
    clipping: "hard" or "automatic" (Bu et al. 2023), see `clip/factors.py`.
    normalized: divide the sum by C, so that its sensitivity is 1 and the learning rate does not
        depend on C (De et al.).
    microbatch: examples to differentiate at once; bounds memory, does not change the result beyond
        rounding. "auto" finds the largest that fits the device from the compiled program's own
        memory analysis.

    Raises ArgumentError for a finite C outside [1e-10, 1e10], an unknown method, grouping or clipping, a bad
    microbatch; when called, for parameters that are not real floating-point numbers, a loss that is
    not scalar, clip norms that do not match the groups, or a batch and mask that differ in length.
    """
    check_clipping(clip_norm, groups, clipping)
    choice("method", method, METHODS)
    check_microbatch(microbatch)
    if isinstance(clip_norm, Mapping):
        clip_norm = dict(clip_norm)  # whoever changes theirs later does not change this one
    return ClippedGrad(loss, clip_norm, method, groups, clipping, normalized, microbatch)


def first_example(batch: PyTree) -> PyTree:
    """Shapes and dtypes of one example."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch)


def _check_batch(batch: PyTree, mask: Array) -> None:
    if mask.ndim != 1 or mask.dtype != bool:
        raise ArgumentError(
            "mask",
            mask.shape,
            f"give a vector of booleans, one per example (dtype is {mask.dtype})",
        )
    for leaf in jax.tree.leaves(batch):
        if leaf.ndim == 0 or leaf.shape[0] != mask.shape[0]:
            raise ArgumentError(
                "batch",
                leaf.shape,
                f"give leaves whose first axis is the mask's {mask.shape[0]} examples",
            )
