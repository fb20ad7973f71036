"""What an accelerator would compute, on a CPU: a function is traced as for it (`compiled_for`), and
every product of float32 numbers that asks for less than the highest precision has its operands
rounded as the device rounds them. Products of halves are exact in float32 here as there."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sfumato.clip import _jax as J
from sfumato.clip.arithmetic import BITS, compiled_for

PLATFORMS = tuple(BITS)


def emulated(function: Callable[..., Any], platform: str) -> Callable[..., Any]:
    """The function as `platform` would compute it, compiled for this machine."""

    def run(*args: Any) -> Any:
        with compiled_for(platform):
            traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        out = _walk(traced.jaxpr, traced.consts, jax.tree.leaves(args), platform)
        return jax.tree.unflatten(jax.tree.structure(shapes), out)

    return jax.jit(run)


def _walk(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], platform: str) -> list[Any]:
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, J.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        out = _evaluate(eqn, [read(atom) for atom in eqn.invars], platform)
        env |= dict(zip(eqn.outvars, out, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate(eqn: J.JaxprEqn, inputs: list[Any], platform: str) -> list[Any]:
    inner = [value for value in eqn.params.values() if hasattr(value, "eqns")]
    closed = [value for value in eqn.params.values() if hasattr(value, "consts")]
    if eqn.primitive is J.SCAN:
        consts, carries = J.scan_parts(eqn)
        body, constants = J.called(eqn)

        def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
            out = _walk(body, constants, [*inputs[:consts], *carry, *xs], platform)
            return out[:carries], out[carries:]

        first, xs = inputs[consts : consts + carries], inputs[consts + carries :]
        carry, ys = J.scan_like(eqn, step, first, xs)
        return [*carry, *ys]
    if inner:
        return _walk(inner[0], (), inputs, platform)
    if closed:
        return _walk(closed[0].jaxpr, closed[0].consts, inputs, platform)
    if eqn.primitive in (J.DOT, J.CONV) and _is_rounded(eqn, platform):
        inputs = [lax.reduce_precision(each, 8, BITS[platform] - 1) for each in inputs]
    return J.bind(eqn, inputs)


def _is_rounded(eqn: J.JaxprEqn, platform: str) -> bool:
    least = lax.Precision.HIGH if platform == "tpu" else lax.Precision.HIGHEST
    precision = J.precision(eqn)
    assert precision is not None
    short = precision.value < least.value
    return short and all(J.aval(atom).dtype == jnp.float32 for atom in eqn.invars)
