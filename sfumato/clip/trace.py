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

Loss = Callable[[PyTree, PyTree], Float[Array, ""]]


@dataclass(frozen=True)
class Trace:
    """jaxpr: `(*parameter leaves, *example leaves) -> loss`. names, shapes: of the parameter leaves."""

    jaxpr: ClosedJaxpr
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def has_grouped_convolution(self) -> bool:
        return any(J.contains(eqn, _is_grouped) for eqn in self.jaxpr.jaxpr.eqns)


def trace_loss(loss: Loss, params: PyTree, example: PyTree) -> Trace:
    """Trace `loss(params, example)` for ONE example; only shapes and dtypes of the arguments matter.

    Raises ArgumentError for parameters that are not real floating-point numbers, for no parameters at all and for a loss
    that is not a real scalar.
    """
    names = tuple(check_params(params))
    leaves, treedef = jax.tree.flatten(params)

    def flat(leaves: list[Array], example: PyTree) -> Array:
        out = loss(jax.tree.unflatten(treedef, leaves), example)
        check_scalar(out)
        return out

    return Trace(jax.make_jaxpr(flat)(leaves, example), names, tuple(leaf.shape for leaf in leaves))


def _is_grouped(eqn: J.JaxprEqn) -> bool:
    return eqn.primitive is J.CONV and max(eqn.params["feature_group_count"], eqn.params["batch_group_count"]) > 1


def check_params(params: PyTree) -> list[str]:
    """The names of the leaves; ArgumentError unless there are some and all can be differentiated."""
    names = leaf_names(params)
    if not names:
        raise ArgumentError("params", params, "there is no array in it to differentiate")
    for name, leaf in zip(names, jax.tree.leaves(params), strict=True):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ArgumentError("params", f"{name}: {dtype}", "every leaf must hold real floating-point numbers; keep others "
                                "out of the parameters (equinox.partition) and let the loss close over them")
    return names


def check_scalar(out: PyTree) -> None:
    """Raise ArgumentError unless a loss returned one real floating-point number."""
    shapes = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(out)]
    alone = jax.tree_util.all_leaves([out]) and jnp.shape(out) == ()
    if not alone or not jnp.issubdtype(jnp.result_type(out), jnp.floating):
        raise ArgumentError("loss", " and ".join(shapes) or "nothing", "let it return one real scalar for one example; "
                            "average over views and positions inside it, and return no auxiliary output")
