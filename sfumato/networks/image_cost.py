"""What a network costs, from its abstract evaluation: no parameter is drawn, no image computed."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from sfumato.networks.architecture import Architecture, Shape
from sfumato.networks.backbone import Backbone


def outline(architecture: Architecture, shape: Shape, classes: int) -> Backbone:
    """The network for images of this shape, with `jax.ShapeDtypeStruct`s in place of its
    parameters."""
    return eqx.filter_eval_shape(architecture.make, shape, classes, jax.random.key(0))


def parameters(network: Any) -> int:
    """The number of its parameters; the network may be abstract."""
    arrays = [leaf for leaf in jax.tree.leaves(network) if hasattr(leaf, "dtype")]
    return sum(math.prod(leaf.shape) for leaf in arrays if jnp.issubdtype(leaf.dtype, jnp.inexact))


def forward_cost(network: Any, shape: tuple[int, ...]) -> int:
    """Multiply-adds of the network (which may be abstract) for one image of this shape. See
    `multiply_adds`."""
    own, static = eqx.partition(
        network, lambda leaf: eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
    )
    return multiply_adds(
        lambda own, image: eqx.combine(own, static)(image),
        own,
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-adds in the products and convolutions of `function(*arguments)`, whose arguments may
    be abstract.

    This is what tables of networks call FLOPs; elementwise work is not counted, padding counts as
    if it were image. Of the branches of a conditional the dearest counts; a `while` loop, whose
    length is unknown, counts once.
    """
    return multiply_adds_by(lambda eqn: None, function, *arguments).total()


def multiply_adds_in(jaxpr: Any) -> int:
    """The same of a trace."""
    return _of_jaxpr(lambda eqn: None, jaxpr).total()


def multiply_adds_by(
    kind: Callable[[Any], Any], function: Callable[..., Any], *arguments: Any
) -> Counter[Any]:
    """The same, by the kind of the products and convolutions: `kind(equation)`."""
    return _of_jaxpr(kind, jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(kind: Callable[[Any], Any], jaxpr: Any) -> Counter[Any]:
    return sum((_of_equation(kind, eqn) for eqn in jaxpr.eqns), Counter())


def _of_equation(kind: Callable[[Any], Any], eqn: Any) -> Counter[Any]:
    if eqn.primitive in (lax.dot_general_p, lax.conv_general_dilated_p):
        return Counter({kind(eqn): _of_product(eqn)})
    inner = [_of_jaxpr(kind, each) for each in inside(eqn)]
    if eqn.primitive is lax.cond_p:
        return max(inner, key=Counter.total)
    times = eqn.params["length"] if eqn.primitive is lax.scan_p else 1
    return Counter({key: times * count for key, count in sum(inner, Counter()).items()})


def _of_product(eqn: Any) -> int:
    if eqn.primitive is lax.dot_general_p:
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(
            eqn.invars[0].aval.shape[axis] for axis in contracted
        )
    kernel = eqn.invars[1].aval.shape
    outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // outputs


def inside(eqn: Any) -> Iterator[Any]:
    """The jaxprs that an equation calls: bodies of jit, remat, scan, branches of a conditional."""
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if hasattr(each, "eqns"):
                yield each
            elif hasattr(each, "jaxpr"):
                yield each.jaxpr
