"""In which numbers the products of a site are formed, on which device, and what that costs the bound.

Accelerators multiply short numbers fast: bfloat16, of 8 significant bits, and TF32, float32 of which
11 bits are read, both summed in float32. Products of such numbers are exact in float32, so only what
is *rounded to them* errs. A site computes in the type that its equation computes in: bfloat16 for
bfloat16 operands; for float32 operands what the device makes of its precision (TF32 on GPUs,
bfloat16 on TPUs, unless a higher one is asked for); float32 for everything else, and on CPUs always.

Activations a and cotangents g are rounded to that type, once, by an operation that no compiler
leaves out, before anything is measured. The gradient is then V = sum_t a_t g_t^T *of the rounded
numbers*, for the norm and for the sum alike: however they were rounded, the vector measured is the
vector summed.

One number more is rounded where V is not kept. The weighted sum is a product of a with c g, and the
factor c is known only after the norm. Let y = c g be cut into n parts of k bits, each the rounded
rest of those before. A part is off by at most 2^-k of what it rounds, so all of them together by
2^-nk of y, number by number, and

    |sum_t a_t (y_t + e_t)^T - c V| = |sum_t a_t e_t^T| <= sum_t |a_t| |e_t| <= 2^-nk c M,   M = sum_t |a_t| |g_t|.

So where the upper bound on the norm is N >= |V| + 2^-nk M, the contribution c (|V| + 2^-nk M) is at
most c N <= C, whatever the example. (`clip/parts.py` adds that term; c g itself, in float32, errs by
2^-24 c M, which GAMMA covers.)

The price is 2^-nk M / |V| of a contribution. M / |V| is sqrt(T) where T positions point anywhere, and
less where they agree:

    type       parts   passes   2^-nk    price at T = 197    at T = 4096
    bfloat16   1       1        2^-8     5.5 %               25 %
    bfloat16   2       2        2^-16    0.02 %              0.1 %
    TF32       1       1        2^-11    0.7 %               3.1 %
    float32    1       (6)      0        0                   0

One part is taken unless its price may pass PRICE. That hangs on the shapes of the program alone,
never on an example. (A factor of few bits would make c g exact in float16, but 3 bits lose 10 % of a
contribution on average, and numbers leave float16's range.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from sfumato.clip import _jax as J

PRICE = 1 / 8
"""Of a contribution: what one part may cost, by the estimate above, before there are two. A second
one costs a third of an ordinary step."""

BITS = {"gpu": 11, "tpu": 8}
"""Significant bits that a device reads of float32 where no precision is asked for."""

_platform: ContextVar[str | None] = ContextVar("platform", default=None)


def platform() -> str:
    """What is being compiled for: "cpu", "gpu" or "tpu"; JAX's default, unless `compiled_for` says
    otherwise."""
    return _platform.get() or jax.default_backend()


@contextmanager
def compiled_for(name: str) -> Iterator[None]:
    """What is traced within is for this platform, wherever it is traced: to count an accelerator's
    program, and to attack it, on a CPU."""
    token = _platform.set(name)
    try:
        yield
    finally:
        _platform.reset(token)


@dataclass(frozen=True)
class Arithmetic:
    """bits: significant ones of a, of g and of each part of c g; None: they are taken as they come.
    parts: of c g."""

    bits: int | None = None
    parts: int = 1

    @property
    def error(self) -> float:
        """2^-nk of this module's text: in units of c M, how far a weighted sum may be from c V."""
        return 0.0 if self.bits is None else 2.0 ** -(self.bits * self.parts)

    @property
    def words(self) -> str:
        if self.bits is None:
            return "float32"
        name = "bfloat16" if self.bits == 8 else "TF32"
        return f"{name}, sum in {self.parts} pass{'es' * (self.parts > 1)}"

    @property
    def short(self) -> bool:
        """Have operands 16 bits?"""
        return self.bits == 8

    @property
    def precision(self) -> lax.Precision:
        return lax.Precision.HIGHEST if self.bits is None else lax.Precision.DEFAULT

    def rounded(self, array: Array) -> Array:
        """To the type that products are formed in; what has it already stays what it is."""
        if self.bits is None or (self.short and array.dtype == jnp.bfloat16):
            return array
        return self._cut(widened(array)).astype(jnp.bfloat16 if self.short else jnp.float32)

    def product(
        self, spec: str, x: Float[Array, "..."], y: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """An einsum of rounded arrays, summed in float32."""
        if self.bits is None and (x.dtype != y.dtype or x.dtype.itemsize > 2):
            x, y = widened(x), widened(y)
        return jnp.einsum(spec, x, y, precision=self.precision, preferred_element_type=jnp.float32)

    def cut(self, y: Float32[Array, "..."]) -> list[Array]:
        """c g as the sum of its parts."""
        if self.bits is None:
            return [y]
        found, rest = [], y
        for _ in range(self.parts):
            found.append(self._cut(rest))
            rest = rest - found[-1]
        return [part.astype(jnp.bfloat16) for part in found] if self.short else found

    def _cut(self, array: Float32[Array, "..."]) -> Float32[Array, "..."]:
        assert self.bits is not None
        return lax.reduce_precision(array, 8, self.bits - 1)


UNROUNDED = Arithmetic()


def arithmetic_of(eqn: J.JaxprEqn, positions: int) -> Arithmetic:
    """That of an equation in which weights meet data. positions: at which it uses the weight, without
    those of loops around it."""
    device = platform()
    precision = J.precision(eqn)
    if device == "cpu" or precision is None:
        return UNROUNDED
    types = {J.aval(atom).dtype for atom in eqn.invars}
    fast = precision == lax.Precision.DEFAULT or (
        device == "gpu" and precision == lax.Precision.HIGH
    )
    if types == {jnp.dtype(jnp.bfloat16)}:
        bits = 8
    elif types == {jnp.dtype(jnp.float32)} and fast:
        bits = BITS.get(device, 8)
    else:
        return UNROUNDED
    return Arithmetic(bits, 1 if 2.0**-bits * positions**0.5 <= PRICE else 2)


def widened(array: Array) -> Float32[Array, "..."]:
    """To float32. The rounding that made a half is written down again, because compilers leave out
    halves between two float32 (XLA's excess precision), and what is summed would not be what was
    measured."""
    wide = array.astype(jnp.float32)
    if array.dtype.itemsize > 2:
        return wide
    kind = jnp.finfo(array.dtype)
    return lax.reduce_precision(wide, kind.nexp, kind.nmant)
