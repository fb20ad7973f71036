"""Sums that are the same to the last bit in whatever order their parts are added, and on however many
devices.

Floating-point numbers do not add up to the same in another order. Integers do. A block of examples, a
physical batch, is summed by one program of one shape, so its sum v is the same wherever it is computed
on a kind of device. Let s be the power of two at or above the sensitivity, and n examples take part at
most. v is then rounded to whole multiples of a spacing and added as integers, in two words of 32 bits:

    v / s  =  2^-A high + 2^-(A+22) low,     |low| <= 2^21,     A = min(12, 30 - bits of n)

* No word overflows: a number of a sum is at most n s, so |high| < 2^30; low is at most 2^21 on each
  device, so that up to 1,000 of them are added before the carry.
* Rounding: v / s times 2^A is exact, so is its distance to the next integer, so the only error is that
  of the last rounding, half a spacing, 2^-(A+23) s a number. An example moves one block, so the rounded
  sum moves by what the exact one does and at most a spacing more in each of d numbers: sqrt(d) 2^-(A+22) s
  together, which is 2e-7 s for 10^7 parameters and 2e-6 s for 10^9, of up to 2^18 examples. Clip
  factors leave 1e-5 of the bound (`clip/factors.py`), half of it for this and half for the rounding of
  norms. Of more examples words are coarser (2e-3 s for 10^9 parameters and 2^28 examples): what passes that
  half is part of the sensitivity that the sum states (`train/spread.py`), and so noise is added for it.

(float32, which this replaces, loses up to 2^-24 of the *whole* sum at each addition. So much is lost once
more where the total becomes float32: that is not covered, see docs/guarantee.md.)

What is not a number counts as nothing, and what no bounded sum holds is cut at 2^30 spacings of high.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

LOW = 22
"""Bits of the low word, its carry apart."""
SHARE = 5e-6
"""Of the sensitivity: what clip factors leave for rounding to words."""
_MOST = 2.0**30
UNBOUNDED = 2.0**10
"""The scale where nothing is clipped (`--epsilon inf`): a number of a sum may reach 2^28, and is rounded to
2^-24 or finer, for up to 2^18 examples."""

Words = tuple[Int32[Array, "..."], Int32[Array, "..."]]
"""high and low."""


class Lattice:
    """Of sums of at most n contributions of at most `bound` each; an infinite one stands for UNBOUNDED."""

    def __init__(self, bound: float, n: int):
        fraction, exponent = math.frexp(UNBOUNDED if bound == math.inf else bound)
        self.scale = math.ldexp(1.0, exponent - (fraction == 0.5))
        self.bits = min(12, 30 - n.bit_length())
        if self.bits < -20:
            raise ValueError(f"{n} contributions are more than words have room for")

    @property
    def spacing(self) -> float:
        return self.scale * 2.0 ** -(self.bits + LOW)

    def moved(self, d: int) -> float:
        """How much further than the exact sum, at most, one example moves the rounded one, of d numbers."""
        return math.sqrt(d) * self.spacing

    def words(self, value: Float[Array, "..."]) -> Words:
        """The nearest multiple of the spacing."""
        exact = value.astype(jnp.float32) * (2.0**self.bits / self.scale)
        known = jnp.clip(jnp.where(jnp.isnan(exact), 0.0, exact), -_MOST, _MOST)
        high = jnp.round(known)
        low = jnp.round((known - high) * 2.0**LOW)
        return high.astype(jnp.int32), low.astype(jnp.int32)

    def value(self, words: Words) -> Float32[Array, "..."]:
        high, low = carried(words)
        found = high.astype(jnp.float32) + low.astype(jnp.float32) * 2.0**-LOW
        return found * (self.scale / 2.0**self.bits)


def zeros(shape: tuple[int, ...]) -> Words:
    return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32)


def plus(total: Words, part: Words) -> Words:
    return carried((total[0] + part[0], total[1] + part[1]))


def carried(words: Words) -> Words:
    """The same number, |low| at most half of what makes 1 of high."""
    high, low = words
    carry = (low + 2 ** (LOW - 1)) >> LOW
    return high + carry, low - (carry << LOW)
