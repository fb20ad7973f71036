"""Norms behind weight standardisation without pulling every example back.

For each output p with D inputs, the weight of a standardised convolution (`models/standardisation.standardise`) is

    y_p u_p,    u_p = s_p (w_p - mean(w_p) 1),    s_p = max(|w_p - mean(w_p) 1|^2, floor)^(-1/2),    y_p the gain,

and with V_p the gradient with respect to it, those with respect to the gain and to w_p are

    u_p.V_p    and    y_p s_p (V_p - 1 (1.V_p) / D - u_p (u_p.V_p)),    the last term absent where the floor holds.

1 and u_p are orthogonal, and u_p has length one where the floor does not hold. So the squared norm of both together is

    (y_p s_p)^2 (|V_p|^2 - (1.V_p)^2 / D - (u_p.V_p)^2) + (u_p.V_p)^2.

In Gram form, with z = y_p u_p.a the convolution's output, 1.V_p = sum_t g_tp (1.a_t) and u_p.V_p = sum_t g_tp z_tp / y_p: no V
is formed. Where a gain is too small to divide by, (u_p.V_p)^2 <= |V_p|^2 stands in for it.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sfumato.clip import _jax as J
from sfumato.clip._jax import JaxprEqn
from sfumato.clip.rules import Rule
from sfumato.clip.rules.conv import ConvRule
from sfumato.models.standardisation import STANDARDISATION_FLOOR, standardise

Kernel = Float[Array, "kh kw d p"]
Gain = Float[Array, " p"]
SMALL_GAIN = 1e-3


def is_standardise(eqn: JaxprEqn) -> bool:
    """Is it a call of `standardise`, equation by equation? (The name alone would prove nothing.)"""
    if eqn.primitive is not J.JIT or len(eqn.invars) != 2 or len(eqn.outvars) != 1:
        return False
    kernel, gain = (J.aval(atom) for atom in eqn.invars)
    fits = len(kernel.shape) == 4 and gain.shape == kernel.shape[-1:] and kernel.dtype == gain.dtype == jnp.float32
    return fits and str(eqn.params["jaxpr"]) == _expected(kernel.shape)


@lru_cache
def _expected(shape: tuple[int, ...]) -> str:
    kernel, gain = (jax.ShapeDtypeStruct(each, jnp.float32) for each in (shape, shape[-1:]))
    (eqn,) = jax.make_jaxpr(standardise)(kernel, gain).jaxpr.eqns
    return str(eqn.params["jaxpr"])


def covers(rule: Rule) -> bool:
    """Are the outputs, for each of which the kernel is standardised, the last axis of the weight?"""
    return isinstance(rule, ConvRule) and rule.numbers.rhs_spec[0] == 3


def scales(kernel: Kernel, gain: Gain) -> tuple[Gain, Gain]:
    """y_p s_p, and 1 where u_p has length one, 0 where the floor holds."""
    squares = jnp.square(kernel - kernel.mean((0, 1, 2))).sum((0, 1, 2))
    free = (squares > STANDARDISATION_FLOOR).astype(jnp.float32)
    return gain * jax.lax.rsqrt(jnp.maximum(squares, STANDARDISATION_FLOOR)), free


def outer_norm(kernel: Kernel, gain: Gain, formed: Kernel) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """From V of one example: the squared norm of its pullback, and what that could be at most, but for cancellation."""
    scale, free = scales(kernel, gain)
    squares, ones = jnp.sum(jnp.square(formed), (0, 1, 2)), jnp.sum(formed, (0, 1, 2))
    own = jnp.sum(formed * standardise(kernel, jnp.ones_like(gain)), (0, 1, 2))
    fan_in = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    pulled = scale**2 * (squares - ones**2 / fan_in - free * own**2)
    return jnp.sum(jnp.maximum(pulled, 0.0) + own**2), jnp.sum((1 + scale**2) * squares)


def gram_norms(
    rule: ConvRule, kernel: Kernel, gain: Gain, records: tuple[Array, Array], cotangents: Array
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """For all examples: squared norms of the pullbacks, and M_i of `rules/base.py` with cotangents scaled as here.

    records: of the rule, and the value of the convolution.
    """
    (a, z), (scale, free), axis = records, scales(kernel, gain), 1 + rule.numbers.out_spec[1]
    small = jnp.abs(gain) < SMALL_GAIN
    along = (-1,) + (1,) * (cotangents.ndim - 1 - axis)
    g = cotangents.astype(jnp.float32)
    positions = tuple(i for i in range(1, g.ndim) if i != axis)
    ones = jnp.sum(g * rule.patch_sums(a), positions)
    own = jnp.sum(g * z.astype(jnp.float32), positions) / jnp.where(small, 1.0, gain)
    fan_in = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    rest = jnp.where(small, 0.0, (1 - free * scale**2) * own**2) - scale**2 * ones**2 / fan_in
    scaled = g * jnp.sqrt(scale**2 + small).reshape(along)
    bound = g * jnp.sqrt(1 + scale**2).reshape(along)
    return jnp.maximum(rule.gram(a, scaled, ()) + jnp.sum(rest, 1), 0.0), rule.mass(a, bound, ())
