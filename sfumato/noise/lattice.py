"""Gaussian noise on a lattice: no release tells, by the pattern of its last bits, what it was added
to.

A sum of floats plus a float of noise is one of few floats that this sum can reach, so bits that
should be noise show whether a record is there (Mironov 2012; Jin et al. 2021). Here every release
is a whole multiple of one public g, whatever the sum was:

    x = round(sum / g)      whole numbers; neighbors are apart by at most S / g + sqrt(d), as each of d roundings moves by 1/2
    y = x + k               k from the discrete Gaussian of deviation t = multiplier * (S / g + sqrt(d)) * (1 + SLACK)
    release = g y

Why the accounting of the continuous Gaussian holds, subsampled or not. x + Z with Z ~ N(0, t^2) is
the Gaussian mechanism itself, and rounding it is post-processing; as x is whole, round(x + Z) = x +
round(Z). The probabilities of round(Z) and of the discrete Gaussian differ at k = t u by a factor
of 1 + (u^2 - 1) / (24 t^2), which for t >= 2^30 and |u| <= 14 is within 2^-57 of 1. The sampler
(Canonne, Kamath & Steinke 2020, arXiv 2004.00010, Alg. 1 to 3, vectorized) draws every number from
whole random bits and compares with probabilities correct to 63 bits; what is lost is again a
factor, within 2^-52 of 1 for all |u| <= 14, and beyond that lies less than 2^-140. A factor of 1 +
h on each of N numbers of a run moves epsilon by 2 N h; SLACK lowers it by SLACK * epsilon or more.
So the promise holds for all N <= 2e10 epsilon: 2,000 steps of ten million numbers.

Noise drawn on the device (`whole_gaussian.py`) has its own bounds: factors within 2^-68 of 1, at most 10^-4 wider than asked for, and
the same time for every draw.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from sfumato.core.checks import noisy
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise.base import ROUNDING, Mechanism
from sfumato.noise.binding import Bound, bind
from sfumato.noise.drawing import drawing_of

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from sfumato.clip import BoundedSum
else:  # JAX is imported where noise is drawn, so that words can be had without it
    BoundedSum = PyTree = Any

SLACK = 1e-5
"""Noise is larger by this factor than the event says; it pays for everything that is not exact (see
above)."""

FINENESS = 30
"""The noise has a deviation of at least 2^FINENESS lattice steps."""

_LARGEST = 2**61
_BITS = 63
_INVERSE_E = np.exp(np.longdouble(-1))


@dataclass(frozen=True)
class LatticeGaussian(Mechanism):
    """Adds Gaussian noise of `multiplier` times the sensitivity on a lattice; claims the event of
    the continuous Gaussian."""

    name: ClassVar[str] = "discrete Gaussian"
    where: ClassVar[str] = ", on a lattice"
    limits: ClassVar[tuple[str, ...]] = (
        "Floating point, but for the lowest bits of the noise: every released number is a whole multiple of a public step, "
        "whatever the sum was, so that the known attacks on those bits find nothing.",
        ROUNDING,
        "The time that the noise took, where it is drawn on the host. Its sampler tries again until a draw fits, and large draws "
        "take longer; anyone who could time single releases would learn something about their noise.",
    )

    multiplier: float

    def __post_init__(self) -> None:
        noisy("multiplier", self.multiplier)
        if np.finfo(np.longdouble).nmant < _BITS:
            raise ArgumentError(
                "noise",
                "lattice",
                "needs long doubles of 64 bits or more, which this machine lacks",
            )

    def bind(self, total: BoundedSum, key: SecretKey) -> Bound:
        """key: this release's own."""
        return bind(total, key, "lattice", self.multiplier)

    def release(self, bound: Bound) -> PyTree:
        """The released value, float32."""
        import jax

        from sfumato.core.trees import leaf_names

        total, key = bound.total, bound.key
        leaves, structure = jax.tree.flatten(total.value)
        g, deviation = lattice(
            self.multiplier, total.sensitivity.add_or_remove, sum(leaf.size for leaf in leaves)
        )
        drawing, names = drawing_of(key), leaf_names(total.value)
        return jax.tree.unflatten(structure, drawing.lattice(leaves, names, key, g, deviation))


def lattice(multiplier: float, sensitivity: float, d: int) -> tuple[float, float]:
    """(g, deviation of the noise in steps of g) for d numbers. g is a power of two, so that
    dividing by it is exact."""
    g = 2.0 ** (math.floor(math.log2(multiplier * sensitivity)) - FINENESS)
    return g, multiplier * (sensitivity / g + math.sqrt(d)) * (1 + SLACK)


def whole_steps(value: Float64[np.ndarray, " n"], g: float) -> Int64[np.ndarray, " n"]:
    """Rounded to steps. Cutting off, like rounding, brings no two sums further apart."""
    return np.asarray(np.rint(value / g).clip(-_LARGEST, _LARGEST).astype(np.int64))


def discrete_gaussian(
    stream: np.random.Generator, deviation: float, count: int
) -> Int64[np.ndarray, " count"]:
    """`count` whole numbers k with probability proportional to exp(-k^2 / (2 deviation^2)).
    deviation: 1 to 2^45."""
    t = math.floor(deviation) + 1
    square = np.longdouble(deviation) ** 2
    drawn, left = np.empty(count, np.int64), np.arange(count)
    while len(left):
        size = len(left)
        low = stream.integers(0, t, size, np.int64)
        accepted = _happens(stream, low / np.longdouble(t))
        high = _successes(stream, size)
        negative = stream.integers(0, 2, size, np.int64).astype(bool)
        size_of = low + t * high  # a discrete Laplace number of scale t, but for its sign
        accepted &= ~(negative & (size_of == 0))
        accepted &= _happens(stream, (size_of - square / t) ** 2 / (2 * square))
        drawn[left[accepted]] = np.where(negative, -size_of, size_of)[accepted]
        left = left[~accepted]
    return drawn


def _happens(stream: np.random.Generator, gamma: np.ndarray) -> Bool[np.ndarray, " b"]:
    """True with probability exp(-gamma), right to a factor of 1 + 2^-61 gamma however small it is:
    as a product."""
    whole = np.floor(gamma)
    happens = _coin(stream, np.exp(whole - gamma))
    while len(still := np.flatnonzero(happens & (whole > 0))):
        happens[still] = _coin(stream, np.full(len(still), _INVERSE_E))
        whole[still] -= 1
    return happens


def _successes(stream: np.random.Generator, size: int) -> Int64[np.ndarray, " size"]:
    """How often in a row something of probability 1/e happens."""
    count, still = np.zeros(size, np.int64), np.arange(size)
    while len(still):
        still = still[_coin(stream, np.full(len(still), _INVERSE_E))]
        count[still] += 1
    return count


def _coin(stream: np.random.Generator, probability: np.ndarray) -> Bool[np.ndarray, " b"]:
    bits = stream.integers(0, 2**_BITS, len(probability), np.uint64)
    return bits < (probability * np.longdouble(2) ** _BITS).astype(np.uint64)
