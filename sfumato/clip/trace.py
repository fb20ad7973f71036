"""The single-example loss as a jaxpr: what every faster method works from."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from sfumato.clip import _jax as J
from sfumato.clip._jax import ClosedJaxpr
from sfumato.core.errors import ArgumentError
from sfumato.core.trees import leaf_names

ALONE = "vmap would show it other examples; take jax.custom_batching.sequential_vmap or vmap_method='sequential', or leave it out"
COLLECTIVE = "it would mix examples or devices; let the loss see one example only, without psum, pmean, axis_index and the like"

Loss = Callable[[PyTree, PyTree], Float[Array, ""]]


@dataclass(frozen=True)
class Trace:
    """jaxpr: `(*parameter leaves, *example leaves) -> loss`. names, shapes: of the parameter
    leaves."""

    jaxpr: ClosedJaxpr
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def has_grouped_convolution(self) -> bool:
        return any(map(_is_grouped, J.equations(self.jaxpr.jaxpr)))


def trace_loss(loss: Loss, params: PyTree, example: PyTree) -> Trace:
    """Trace `loss(params, example)` for ONE example; only shapes and dtypes of the arguments
    matter.

    Raises ArgumentError for parameters that are not real floating-point numbers, for no parameters
    at all, for a loss that is not a real scalar, for a collective over a named axis
    (`check_collectives`), for what `vmap` shows several examples (`check_alone`) and for a convolution
    that reads other examples (`check_convolutions`). Where rules of one's own stand for the gradient
    (`jax.custom_vjp`), what they compute is looked at too.
    """
    names = tuple(check_params(params))
    leaves, treedef = jax.tree.flatten(params)

    def flat(leaves: list[Array], example: PyTree) -> Array:
        out = loss(jax.tree.unflatten(treedef, leaves), example)
        check_scalar(out)
        return out

    try:
        traced = jax.make_jaxpr(flat)(leaves, example)
        programs = [traced.jaxpr]
        if any(map(J.has_own_backward, J.equations(traced.jaxpr))):
            programs.append(jax.make_jaxpr(jax.grad(flat))(leaves, example).jaxpr)
    except NameError as error:  # JAX's word for a collective over an axis that nobody has named
        if "axis name" not in str(error):
            raise
        raise ArgumentError("loss", str(error).splitlines()[0], COLLECTIVE) from None
    trace = Trace(traced, names, tuple(leaf.shape for leaf in leaves))
    for program in programs:
        check_collectives(program)
        check_alone(program)
        check_convolutions(program)
    return trace


def _is_grouped(eqn: J.JaxprEqn) -> bool:
    return (
        eqn.primitive is J.CONV
        and max(eqn.params["feature_group_count"], eqn.params["batch_group_count"]) > 1
    )


def check_params(params: PyTree) -> list[str]:
    """The names of the leaves; ArgumentError unless there are some and all can be differentiated."""
    names = leaf_names(params)
    if not names:
        raise ArgumentError("params", params, "there is no array in it to differentiate")
    for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
        dtype = getattr(leaf, "dtype", None)
        real = isinstance(leaf, float) if dtype is None else jnp.issubdtype(dtype, jnp.floating)
        if not real:
            raise ArgumentError(
                "params",
                f"{name}: {type(leaf).__name__ if dtype is None else dtype}",
                "every leaf must hold real floating-point numbers; keep others "
                "out of the parameters (equinox.partition) and let the loss close over them",
            )
    return names


def check_scalar(out: PyTree) -> None:
    """Raise ArgumentError unless a loss returned one real floating-point number."""
    shapes = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(out)]
    alone = jax.tree_util.all_leaves([out]) and jnp.shape(out) == ()
    if not alone or not jnp.issubdtype(jnp.result_type(out), jnp.floating):
        raise ArgumentError(
            "loss",
            " and ".join(shapes) or "nothing",
            "let it return one real scalar for one example; "
            "average over views and positions inside it, and return no auxiliary output",
        )


def check_collectives(jaxpr: J.Jaxpr) -> None:
    """Raise ArgumentError for an equation over a named axis (`lax.psum`, `pmean`, `all_gather`,
    `axis_index`, ...). Whoever named the axis, outside of the loss, has other examples on it, and
    their gradients would enter this one's. An axis that the loss itself names, by `jax.vmap` over
    its views, leaves no such equation.
    """
    for eqn in J.equations(jaxpr):
        if names := J.named_axes(eqn):
            raise ArgumentError(
                "loss", f"{eqn.primitive.name} over axis {', '.join(names)}", COLLECTIVE
            )


def check_alone(jaxpr: J.Jaxpr) -> None:
    """Raise ArgumentError for an equation that is told by `vmap` of all examples at once and may do with
    them what it likes, such as a batch norm written as `custom_vmap`. No clip bounds what one example
    does to the others there."""
    for eqn in J.equations(jaxpr):
        if found := J.sees_batch(eqn):
            raise ArgumentError("loss", found, ALONE)


def check_convolutions(jaxpr: J.Jaxpr) -> None:
    """Raise ArgumentError for a convolution that XLA computes from values outside of the image.

    Its code for CPUs takes a convolution that crops the front of an axis (negative padding) and
    pads the end for one without padding, and reads beyond the axis: the next row, the next EXAMPLE
    of the batch, or what happened to lie in memory (openxla/xla issue 48713). Clipping bounds
    nothing then. The gradient for the image is such a convolution too where the front is padded by
    the kernel's width or more.
    """
    for eqn in J.equations(jaxpr):
        if eqn.primitive is J.CONV:
            padding = [tuple(pads) for pads in eqn.params["padding"]]
            if any(low < 0 < high for low, high in padding + _padding_of_image_gradient(eqn)):
                raise ArgumentError(
                    "loss",
                    f"convolution with padding {padding}",
                    "XLA would read other examples where it "
                    "crops or over-pads the front of an axis and pads the end; slice or jnp.pad the image",
                )


def _padding_of_image_gradient(eqn: J.JaxprEqn) -> list[tuple[int, int]]:
    """Of the convolution of cotangents and reversed kernel, which spreads the cotangents by the
    strides: the front gets k - 1 - low, and the rest makes the result as long as the image, for a
    kernel that spans k."""
    image, kernel = (J.aval(atom).shape for atom in eqn.invars)
    given, numbers = eqn.params, eqn.params["dimension_numbers"]
    out = J.aval(eqn.outvars[0]).shape
    pads = []
    for axis, (low, _) in enumerate(given["padding"]):
        length = _spread(image[numbers.lhs_spec[2 + axis]], given["lhs_dilation"][axis])
        span = _spread(kernel[numbers.rhs_spec[2 + axis]], given["rhs_dilation"][axis])
        cotangents = _spread(out[numbers.out_spec[2 + axis]], given["window_strides"][axis])
        pads.append((span - 1 - low, length + low - cotangents))
    return pads


def _spread(size: int, by: int) -> int:
    """Length of an axis with `by` - 1 gaps between its elements."""
    return (size - 1) * by + 1
