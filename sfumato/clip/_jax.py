"""All that this house assumes about the inside of JAX, versions 0.10 to 0.12, in one file."""

from collections.abc import Sequence

import jax
import jax.extend.core as core
from jax import lax
from jax.extend.core import primitives
from jaxtyping import Array

ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var = core.ClosedJaxpr, core.Jaxpr, core.JaxprEqn, core.Literal, core.Var

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


def bind(eqn: JaxprEqn, values: Sequence[Array]) -> list[Array]:
    """Evaluate one equation."""
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def calls(eqn: JaxprEqn) -> bool:
    """Is there a jaxpr inside the equation?"""
    return any(True for _ in core.jaxprs_in_params(eqn.params))


def called(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Array]]:
    """The jaxpr inside a jit, remat or scan equation, and its constants."""
    inner = eqn.params["jaxpr"]
    return (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())


def scan_parts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many of a scan's inputs are constants and how many are carried; the others are scanned over."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].update(range(len(eqn.invars))).unpack()  # from jax 0.12 on
    return len(list(consts)), len(list(carry))


def checkpoint_like(eqn: JaxprEqn, function):  # type: ignore[no-untyped-def]
    """`function` under the same rematerialisation as the equation's."""
    return jax.checkpoint(function, policy=eqn.params["policy"], prevent_cse=eqn.params["prevent_cse"])


def scan_like(eqn: JaxprEqn, body, init, xs):  # type: ignore[no-untyped-def]
    """`lax.scan` of another body over the same length, in the same order."""
    given = eqn.params
    return lax.scan(body, init, xs, length=given["length"], reverse=given["reverse"], unroll=given["unroll"])
