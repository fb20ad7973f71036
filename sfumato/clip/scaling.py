"""Activations and cotangents of one site, brought to the size of 1 by powers of two, example by
example.

Norms without gradients multiply squares, |a|^2 |g|^2. In float32 the square of a number below 1e-19
is 0, so an example with cotangents that small would be measured 0 and summed whole, however large
its activations are. Therefore each example's a and g are first divided by the powers of two that
their largest numbers have: exact, whatever they hold. Norms are formed of these, and multiplied by
2^exponent at the very end, where nothing is squared any more. Of sums, which square nothing, only
the cotangents are scaled (see `weighted`).

What is still lost: with numbers of a and g below 4, all that is dropped for being small is less
than 2^-63 for each of the S D P numbers of V, in T positions. FLUSHED times T sqrt(S D P), added to
M of `rules/base.py`, is more than that both in
|V| + GAMMA M and in |V|^2 + GAMMA M^2, GAMMA = 2^-21 (`parts.py`).

What is squared unscaled are norms of whole gradients. Those below 1e-19 count as nothing, far below
any clip norm that is allowed (`factors.CLIP_NORMS`); those above 1e19 are not finite, and their
examples count nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from sfumato.clip.arithmetic import widened
from sfumato.clip.rules import Rule

FLUSHED = 2.0**-40
LIMIT = 126
"""2^-126 to 2^126 have normal inverses."""


class Scaled(NamedTuple):
    """record, cotangent: (*loops, b, *own) as rules take them, divided by powers of two whose
    product is 2^exponent."""

    record: Array
    cotangent: Array
    exponent: Int[Array, " b"]


def scaled(record: Array, cotangent: Array, axis: int) -> Scaled:
    """axis: that of the examples. A record of integers, such as row numbers, stays as it is."""
    g, of_g = to_one(cotangent, axis)
    if not jnp.issubdtype(record.dtype, jnp.floating):
        return Scaled(record, g, of_g)
    a, of_a = to_one(record, axis)
    return Scaled(a, g, of_a + of_g)


def exponent_of(largest: Float[Array, "..."]) -> Int[Array, "..."]:
    """e with 2^e <= largest < 2^(e + 1), from -126 to 126, read off the bits. (Not a logarithm,
    which rounds.)"""
    bits = lax.bitcast_convert_type(largest.astype(jnp.float32), jnp.int32)
    return jnp.clip(((bits >> 23) & 255) - 127, -LIMIT, LIMIT)


def power_of_two(exponent: Int[Array, "..."]) -> Float[Array, "..."]:
    """2^exponent for exponents from -126 to 126, made of bits."""
    return lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)


def raised(numbers: Float[Array, "..."], exponent: Int[Array, "..."]) -> Float[Array, "..."]:
    """numbers times 2^exponent, for exponents from -252 to 252: in two steps, neither of which
    leaves float32 by itself."""
    half = exponent // 2
    return numbers * power_of_two(half) * power_of_two(exponent - half)


def mass(rule: Rule, each: Scaled, varies: Sequence[bool]) -> Float[Array, " b"]:
    """M_i of `rules/base.py`, and what scaling loses, in units of 2^exponent."""
    sizes = rule.sizes(each.cotangent.shape[: len(varies)], varies)
    numbers = float(sizes.blocks) * sizes.inputs * sizes.outputs
    return rule.mass(each.record, each.cotangent, varies) + FLUSHED * sizes.positions * numbers**0.5


def weighted(
    rule: Rule, record: Array, cotangent: Array, factors: Float[Array, " b"], varies: Sequence[bool]
) -> Float[Array, "..."]:
    """sum_i factors_i V_i. The cotangents are scaled, the record is not: scaled, it would be the
    end of another chain of operations than the one that was measured, which the compiler fuses, and
    so rounds, in its own way (docs/engine.md).
    """
    cotangent, exponent = to_one(cotangent, len(varies))
    return rule.weighted(record, cotangent, raised(factors, exponent), varies)


def to_one(array: Array, axis: int) -> tuple[Array, Int[Array, " b"]]:
    """Each example divided by 2^exponent, and the exponents. bfloat16, whose exponents are those of
    float32, stays what it is; all others become float32.
    """
    array = array if array.dtype == jnp.bfloat16 else widened(array)
    others = tuple(i for i in range(array.ndim) if i != axis)
    exponent = exponent_of(jnp.max(jnp.abs(array), others, initial=0))
    inverse = power_of_two(-exponent).astype(array.dtype)
    return array * inverse.reshape([-1 if i == axis else 1 for i in range(array.ndim)]), exponent
