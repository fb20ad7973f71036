"""Norms behind weight standardization without pulling every example back.

Output by output: kernel w of D inputs, c = w - mean(w) 1, V the gradient with respect to the weight
that the convolution sees. (Indices of outputs are left out.) Two functions of
`models/standardization` are known.

`standardize`: the weight is y u with u = s c, s = max(|c|^2, floor)^(-1/2), y the gain. The
gradients with respect to the gain and to w are

    u.V    and    y s (V - 1 (1.V) / D - u (u.V)),    the last term absent where the floor holds.

`unit_kernel`: the weight is u = s c, s = (|c|^2 / D + epsilon)^(-1/2). As ds/dw = -s^3 c / D, the
gradient with respect to w is

    s (V - 1 (1.V) / D - u (u.V) / D).

1 and u are orthogonal. |u|^2 is one in the former where the floor does not hold, and D f in the
latter, f = 1 - epsilon s^2. So with y = 1 where there is no gain, the squared norm of all together
is

    (y s)^2 (|V|^2 - (1.V)^2 / D - k (u.V)^2)  [+ (u.V)^2 with a gain],    k = 1, 0 where the floor holds, or (2 - f) / D.

In Gram form, with z = y u.a the convolution's output, 1.V = sum_t g_t (1.a_t) and u.V = sum_t g_t
z_t / y: no V is formed. Where a gain is too small to divide by, (u.V)^2 <= |V|^2 stands in for it.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sfumato.clip import _jax as J
from sfumato.clip._jax import JaxprEqn, Literal
from sfumato.clip.rules import Rule
from sfumato.clip.rules.conv import ConvRule
from sfumato.clip.scaling import Scaled, exponent_of, mass, power_of_two, raised, to_one
from sfumato.networks.layers.standardization import STANDARDIZATION_FLOOR, standardize, unit_kernel

Kernel = Float[Array, "kh kw d p"]
PerOutput = Float[Array, " p"]
SMALL_GAIN = 1e-3


def recognized(eqn: JaxprEqn) -> float | None:
    """The epsilon of a call of `unit_kernel`, 0 for one of `standardize`, None for any other
    equation.

    The program called is compared equation by equation (its name alone would prove nothing).
    """
    if eqn.primitive is not J.JIT or len(eqn.invars) != 2 or len(eqn.outvars) != 1:
        return None
    kernel, other = (J.aval(atom) for atom in eqn.invars)
    if len(kernel.shape) != 4 or kernel.dtype != jnp.float32 or other.dtype != jnp.float32:
        return None
    called, epsilon = str(eqn.params["jaxpr"]), eqn.invars[1]
    if other.shape == kernel.shape[-1:] and called == _expected(kernel.shape, True):
        return 0.0
    if (
        isinstance(epsilon, Literal)
        and float(epsilon.val) > 0
        and called == _expected(kernel.shape, False)
    ):
        return float(epsilon.val)
    return None


@lru_cache
def _expected(shape: tuple[int, ...], gain: bool) -> str:
    kernel, each = (jax.ShapeDtypeStruct(each, jnp.float32) for each in (shape, shape[-1:]))
    traced = (
        jax.make_jaxpr(standardize)(kernel, each)
        if gain
        else jax.make_jaxpr(lambda w: unit_kernel(w, 1.0))(kernel)
    )
    return str(traced.jaxpr.eqns[0].params["jaxpr"])


def covers(rule: Rule) -> bool:
    """Are the outputs, for each of which the kernel is standardized, the last axis of the weight?"""
    return isinstance(rule, ConvRule) and rule.numbers.rhs_spec[0] == 3


class Standardized(NamedTuple):
    """A standardized weight in numbers. gain: y, None where there is none; epsilon: of
    `unit_kernel`, else 0."""

    kernel: Kernel
    gain: PerOutput | None
    epsilon: float

    @property
    def fan_in(self) -> int:
        return self.kernel.shape[0] * self.kernel.shape[1] * self.kernel.shape[2]

    @property
    def gained(self) -> int:
        """1 with a gain, else 0."""
        return int(self.gain is not None)

    def direction(self) -> Kernel:
        """u."""
        if self.gain is None:
            return unit_kernel(self.kernel, self.epsilon)
        return standardize(self.kernel, jnp.ones_like(self.gain))

    def scales(self) -> tuple[PerOutput, PerOutput]:
        """y s, and k."""
        squares = jnp.square(self.kernel - self.kernel.mean((0, 1, 2))).sum((0, 1, 2))
        if self.gain is None:
            s = jax.lax.rsqrt(squares / self.fan_in + self.epsilon)
            return s, (1 + self.epsilon * jnp.square(s)) / self.fan_in
        s = jax.lax.rsqrt(jnp.maximum(squares, STANDARDIZATION_FLOOR))
        return self.gain * s, (squares > STANDARDIZATION_FLOOR).astype(jnp.float32)

    def largest(self) -> Float[Array, ""]:
        """A bound on the singular values of the pullback."""
        return self.gained + jnp.max(jnp.abs(self.scales()[0]))

    def outer_norm(self, formed: Kernel) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """From V of one example: the norm of its pullback, and what that could be at most, but for
        cancellation."""
        exponent = exponent_of(jnp.max(jnp.abs(formed)))
        formed, (scale, k) = formed * power_of_two(-exponent), self.scales()
        squares, ones = jnp.sum(jnp.square(formed), (0, 1, 2)), jnp.sum(formed, (0, 1, 2))
        own = jnp.sum(formed * self.direction(), (0, 1, 2))
        pulled = jnp.abs(scale) * jnp.sqrt(
            jnp.maximum(squares - ones**2 / self.fan_in - k * own**2, 0.0)
        )
        norm = jnp.sqrt(jnp.sum(jnp.square(pulled) + self.gained * own**2))
        return raised(norm, exponent), raised(self.largest() * jnp.sqrt(jnp.sum(squares)), exponent)

    def gram_norms(
        self, rule: ConvRule, records: tuple[Array, Array], cotangents: Array
    ) -> tuple[Float[Array, " b"], Float[Array, " b"], Int[Array, " b"]]:
        """For all examples: squared norms of the pullbacks, and M_i of `rules/base.py` with
        cotangents scaled as here; both of activations and cotangents of the size of 1, that is to
        be multiplied by 2^exponent (`scaling.py`), which is third.

        records: of the rule, and the value of the convolution.
        """
        (record, z), (scale, k), axis = records, self.scales(), 1 + rule.numbers.out_spec[1]
        (a, of_a), (g, of_g) = to_one(record, 0), to_one(cotangents, 0)
        z = z.astype(jnp.float32) * power_of_two(-of_a).reshape((-1,) + (1,) * (z.ndim - 1))
        gain = jnp.ones_like(scale) if self.gain is None else self.gain
        small = jnp.abs(gain) < SMALL_GAIN
        along = (-1,) + (1,) * (g.ndim - 1 - axis)
        positions = tuple(i for i in range(1, g.ndim) if i != axis)
        ones = scale * jnp.sum(g * rule.patch_sums(a), positions)
        own = jnp.sum(g * z, positions) / jnp.where(small, 1.0, gain)
        rest = (
            jnp.where(small, 0.0, self.gained * own**2 - k * (scale * own) ** 2)
            - ones**2 / self.fan_in
        )
        scaled = Scaled(a, g * (jnp.abs(scale) + small).reshape(along), of_a + of_g)
        bound = scaled._replace(cotangent=g * (self.gained + jnp.abs(scale)).reshape(along))
        squared = jnp.maximum(rule.gram(a, scaled.cotangent, ()) + jnp.sum(rest, 1), 0.0)
        return squared, mass(rule, bound, ()), scaled.exponent
