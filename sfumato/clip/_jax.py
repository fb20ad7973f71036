"""All that this house assumes about the inside of JAX, versions 0.10 to 0.12, in one file."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.extend.core as core
from jax import lax
from jax._src.core import NamedAxisEffect  # no public name, in no version
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, primitives
from jaxtyping import Array, PyTree

DOT = primitives.dot_general_p
CONV = primitives.conv_general_dilated_p
GATHER = primitives.gather_p
JIT = primitives.jit_p
REMAT = primitives.remat_p
SCAN = primitives.scan_p
CONVERT = primitives.convert_element_type_p
RESHAPE = primitives.reshape_p
TRANSPOSE = primitives.transpose_p
SQUEEZE = primitives.squeeze_p
SLICE = primitives.slice_p
BROADCAST = primitives.broadcast_in_dim_p
COPY = primitives.copy_p
REV = primitives.rev_p


__all__ = ["ClosedJaxpr", "Jaxpr", "JaxprEqn", "Literal", "Var"]


def aval(atom: Var | Literal) -> Any:
    """Shape and dtype of a variable."""
    return atom.aval


def bind(eqn: JaxprEqn, values: Sequence[Any]) -> list[Array]:
    """Evaluate one equation."""
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """The equations of a jaxpr, and those inside them."""
    for eqn in jaxpr.eqns:
        yield from within(eqn)


def within(eqn: JaxprEqn) -> Iterator[JaxprEqn]:
    """The equation, and those inside it."""
    yield eqn
    for jaxpr in core.jaxprs_in_params(eqn.params):
        yield from equations(jaxpr)


def named_axes(eqn: JaxprEqn) -> list[str]:
    """The named axes over which the equation itself works, such as those of `lax.pmean`: what its
    type says of its effects, and what its parameters name.
    """
    found = [str(effect.name) for effect in eqn.effects if isinstance(effect, NamedAxisEffect)]
    for key in ("axes", "axis_name"):
        given = eqn.params.get(key, ())
        found += [
            name
            for name in (given if isinstance(given, tuple | list) else [given])
            if isinstance(name, str)
        ]
    return list(dict.fromkeys(found))


def has_own_backward(eqn: JaxprEqn) -> bool:
    """Is its gradient a function of Python (`jax.custom_vjp`), of which the program shows nothing?"""
    return eqn.primitive.name.startswith("custom_vjp_call")


def sees_batch(eqn: JaxprEqn) -> str | None:
    """What the equation is, in words, where `vmap` shows it several examples at once: rules of one's own
    and calls to Python or to other libraries, but for those that are asked one example at a time."""
    name = eqn.primitive.name
    if name == "custom_vmap_call":
        # JAX's own rule is that of `sequential_vmap`.
        theirs = str(getattr(eqn.params["rule"], "__module__", "")).startswith("jax.")
        return None if theirs else "custom_vmap"
    if name in ("pure_callback", "ffi_call"):
        method = eqn.params["vmap_method"]
        one_by_one = method in ("sequential", "sequential_unrolled")
        return None if one_by_one else f"{name} with vmap_method={method!r}"
    return None


def precision(eqn: JaxprEqn) -> lax.Precision | None:
    """The lowest that a product or convolution asks for; HIGHEST for an algorithm that is named; None
    of an equation that is neither."""
    if eqn.primitive not in (DOT, CONV):
        return None
    given = eqn.params["precision"]
    each = given if isinstance(given, tuple) else (given,)
    levels = [lax.Precision.DEFAULT if one is None else one for one in each]
    known = all(isinstance(one, lax.Precision) for one in levels)
    return min(levels, key=lambda one: one.value) if known else lax.Precision.HIGHEST


def called(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """The jaxpr inside a jit, remat or scan equation, and its constants."""
    inner = eqn.params["jaxpr"]
    return (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())


def scan_parts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many of a scan's inputs are constants and how many are carried; the others are scanned
    over."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = (
        eqn.params["ft_in"].update(range(len(eqn.invars))).unpack()
    )  # from jax 0.12 on
    return len(list(consts)), len(list(carry))


def checkpoint_like(eqn: JaxprEqn, function):  # type: ignore[no-untyped-def]
    """`function` under the same rematerialization as the equation's."""
    return jax.checkpoint(
        function, policy=eqn.params["policy"], prevent_cse=eqn.params["prevent_cse"]
    )


def scan_like(eqn: JaxprEqn, body, init, xs):  # type: ignore[no-untyped-def]
    """`lax.scan` of another body over the same length, in the same order."""
    given = eqn.params
    return lax.scan(
        body, init, xs, length=given["length"], reverse=given["reverse"], unroll=given["unroll"]
    )


def on_mesh(array: Array) -> bool:
    """May the array be spread over several devices, as far as its type tells? Not where a program is
    written for each device by itself (`shard_map`)."""
    kinds = jax.typeof(array).sharding.mesh.axis_types
    return any(kind != jax.sharding.AxisType.Manual for kind in kinds)


def let_compiler_shard(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """`function(*args)`, the result on every device. Where it is part of types how arrays are
    spread over an explicit mesh, many operations must be told how to spread their results; here the
    compiler chooses, as on other meshes.
    """
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(args)]
    explicit = [mesh for mesh in meshes if jax.sharding.AxisType.Explicit in mesh.axis_types]
    if not explicit:
        return function(*args)
    with jax.sharding.use_abstract_mesh(explicit[0]):
        everywhere = jax.sharding.PartitionSpec()
        return jax.sharding.auto_axes(
            function, axes=explicit[0].axis_names, out_sharding=everywhere
        )(*args)
