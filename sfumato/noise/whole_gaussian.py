"""Whole numbers of the discrete Gaussian law, each from 16 words of 32 random bits, in integers alone:
the same bits on every device, in the same time whatever is drawn.

The law D_s: k with probability proportional to exp(-k^2 / (2 s^2)). Four draws k_1 .. k_4 of D_400 come from a
table; they are put together twice (Micciancio & Walter 2017, "Gaussian Sampling over the Integers",
Sec. 4; Peikert 2010, Thm. 3.1):

    y_1 = k_1 + 249 k_2        y_2 = k_3 + 249 k_4        y = y_1 + m y_2        s^2(y) = s_1^2 (1 + m^2),  s_1^2 = 400^2 (1 + 249^2)

Why y has the law D_s. Let a and b have the law D_t. The probability that a + m b = y is proportional to

    sum over b of exp(-(y - m b)^2 / 2t^2 - b^2 / 2t^2)  =  exp(-y^2 / (2 t^2 (1 + m^2))) * sum over b of exp(-(b - c)^2 / 2r^2)

with r = t / sqrt(1 + m^2) and a c that depends on y. By Poisson's summation formula the second sum is
r sqrt(2 pi) times 1 + 2 sum over j >= 1 of cos(2 pi j c) exp(-2 pi^2 r^2 j^2): with r >= 1.6 (`NARROWEST`), within a factor of
1 + 2^-71.8 of a constant. So the probabilities of y are those of D_s up to a factor of 1 + 2^-70 for one step,
and of 1 + 2^-68 for all three.

The table (Walker 1977, "alias method") gives D_400 on -4096 .. 4095: 13 bits choose a column, 96 bits decide
between its two numbers. Cut off is a mass of 2 Q(10.24) < 2^-79; probabilities are rounded to multiples of
2^-109, 8,192 of them. Four draws are within 2^-76 of the law in total variation. So N numbers of a
run are within N 2^-76 in total variation of numbers whose probabilities are exact to a factor of (1 + 2^-68)^N; for N = 2^42
(2,000 steps of two billion numbers) that adds 2^-34 to delta and 2^-25 to epsilon.

How far this is from a continuous Gaussian Z: round(Z) differs from D_s by a factor that is within (u^2 + 1) / (24 s^2) of
1 at u deviations, less than 2^-57 for s >= 2^30 and |u| <= 14 (`lattice.py`); and Z from round(Z) by half a step, 2^-31
deviations. Tails end at 10 deviations of s and more.
"""

import math
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32

NARROW = 400
"""Deviation of what the table draws."""

FIRST = 249
NARROWEST = 1.6
COLUMNS = 2**13
_BITS = 96
_MASK = np.uint32(0xFFFFFFFF)
WIDE = NARROW * math.sqrt(1 + FIRST**2)
"""Deviation after the first step."""

MOST = math.isqrt(int((WIDE / NARROWEST) ** 2) - 1)
"""The largest m."""


class AliasTable(NamedTuple):
    """below: of column k, 96 bits in three words, the highest first; a draw below it is column k, another
    one `other[k]`."""

    below: UInt32[np.ndarray, "3 columns"]
    other: Int32[np.ndarray, " columns"]


class Whole(NamedTuple):
    """Whole numbers of 64 bits (two's complement) as two words of 32, as JAX has no others by default."""

    high: UInt32[Array, "..."]
    low: UInt32[Array, "..."]


def weights() -> list[int]:
    """Of the columns, with the sum 2^109: D_400 of column - 4096, to one unit."""
    half, total = COLUMNS // 2, COLUMNS << _BITS
    with localcontext() as exact:
        exact.prec = 60
        side = [(-Decimal(k * k) / (2 * NARROW**2)).exp() for k in range(half + 1)]
        every = [side[abs(column - half)] for column in range(COLUMNS)]
        unit = total / sum(every, start=Decimal(0))
        found = [int((each * unit).to_integral_value()) for each in every]
    found[half] += total - sum(found)
    return found


@lru_cache(maxsize=1)
def table() -> AliasTable:
    """Walker's, in exact integers: each column holds 2^96 of the weights, its own first, then one other's."""
    left, one = weights(), 1 << _BITS
    below, other = [one] * COLUMNS, list(range(COLUMNS))
    poor = [column for column in range(COLUMNS) if left[column] < one]
    rich = [column for column in range(COLUMNS) if left[column] >= one]
    while poor:
        column, giver = poor.pop(), rich[-1]
        below[column], other[column] = left[column], giver
        left[giver] -= one - left[column]
        if left[giver] < one:
            poor.append(rich.pop())
    # A full column draws itself either way, so what does not fit into 96 bits need not.
    words = [[min(each, one - 1) >> shift & int(_MASK) for each in below] for shift in (64, 32, 0)]
    return AliasTable(np.array(words, np.uint32), np.array(other, np.int32))


def multiple(deviation: float) -> int:
    """The least m whose law is as wide as that: wider by less than 10^-4. deviation: 2^30 to about 2^32.5."""
    return max(1, math.ceil(math.sqrt((deviation / WIDE) ** 2 - 1)))


def deviation_of(m: int) -> float:
    return WIDE * math.sqrt(1 + m**2)


def narrow(words: list[jax.Array], known: AliasTable) -> Int32[Array, "..."]:
    """A draw of D_400 from four words."""
    column = (words[0] >> np.uint32(19)).astype(jnp.int32)
    first, second, third, other = (
        jnp.asarray(each).at[column].get(mode="promise_in_bounds")
        for each in (*known.below, known.other)
    )
    tie = (words[2] < second) | ((words[2] == second) & (words[3] < third))
    own = (words[1] < first) | ((words[1] == first) & tie)
    return jnp.where(own, column, other) - COLUMNS // 2


def wide(words: list[jax.Array], m: jax.Array, known: AliasTable) -> Whole:
    """A draw of D_s, s = `deviation_of(m)`, from sixteen words."""
    one, two, three, four = (narrow(words[4 * k : 4 * k + 4], known) for k in range(4))
    y_1, y_2 = one + FIRST * two, three + FIRST * four  # below 2^21
    # m y_2 in two parts, each below 2^27: y_2 = 1024 high + low
    high, low = m * (y_2 >> 10), m * (y_2 & 1023)
    shifted = Whole((high >> 22).astype(jnp.uint32), high.astype(jnp.uint32) << np.uint32(10))
    return plus(shifted, _extended(low + y_1))


def _extended(number: Int32[Array, "..."]) -> Whole:
    return Whole((number >> 31).astype(jnp.uint32), number.astype(jnp.uint32))


def plus(a: Whole, b: Whole) -> Whole:
    low = a.low + b.low
    return Whole(a.high + b.high + (low < a.low).astype(jnp.uint32), low)


def negated(a: Whole, where: jax.Array) -> Whole:
    flip = jnp.where(where, _MASK, np.uint32(0))
    one = where.astype(jnp.uint32)
    return plus(Whole(a.high ^ flip, a.low ^ flip), Whole(jnp.zeros_like(one), one))


def rounded(number: jax.Array) -> Whole:
    """The nearest whole number of each float32, cut off at 2^61; 0 of what is no number. Exact: whatever
    bits a float32 has, its two halves have them."""
    nearest = jnp.clip(jnp.rint(jnp.where(jnp.isnan(number), 0, number)), -(2.0**61), 2.0**61)
    size = jnp.abs(nearest)
    high = jnp.floor(size * np.float32(2.0**-32))
    low = size - high * np.float32(2.0**32)
    return negated(Whole(high.astype(jnp.uint32), low.astype(jnp.uint32)), nearest < 0)


def as_float(number: Whole) -> jax.Array:
    """float32, of the number alone."""
    below = (number.high >> np.uint32(31)) == 1
    size = negated(number, below)
    found = size.high.astype(jnp.float32) * np.float32(2.0**32) + size.low.astype(jnp.float32)
    return jnp.where(below, -found, found)
