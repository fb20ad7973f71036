"""What every rule offers, and the arithmetic they share.

Notation, for one site and example i: the weight is S blocks of a D x P matrix, the site is used at
T positions, and with activations a_i (S x T x D) and cotangents g_i (S x T x P) of the loss at the
site's output the gradient of block s is

    V_is = sum_t a_ist g_ist^T.

Three things are wanted: V_i itself ("outer"), its squared norm without forming it ("gram",
Goodfellow 2015; Li et al. 2021)

    |V_i|^2 = sum_s sum_tu (a_ist . a_isu)(g_ist . g_isu),

and the weighted sum over examples sum_i c_i V_i without forming any V_i: one matrix product over
all examples and positions.

Rounding. V_i may be small against M_i = sum_st |a_ist| |g_ist|, by cancellation over positions, and
an example can be made so that it is. Products in float32 err by some u M_i (in norm; u = 2^-24), so
what is computed here and what is summed there may differ by more than any relative slack. Therefore
norms come with M_i, and clipping uses an upper bound (`clip/parts.py`). What accelerators round on
purpose is in `clip/arithmetic.py`.
"""

import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from sfumato.clip import _jax as J
from sfumato.clip._jax import JaxprEqn
from sfumato.clip.arithmetic import Arithmetic, platform, widened


@dataclass(frozen=True)
class Sizes:
    """S blocks of D x P, T positions, and numbers in record and cotangent: of one example."""

    blocks: int
    positions: int
    inputs: int
    outputs: int
    tape: int

    @property
    def gram_is_cheaper(self) -> bool:
        """In memory, two Gram matrices of T^2 numbers against a gradient of D P; in time, T^2 (D +
        P) products against TDP."""
        t, d, p = self.positions, self.inputs, self.outputs
        return 2 * t * t <= d * p and t * (d + p) <= d * p


class Rule(abc.ABC):
    """A kind of equation in which a weight meets data.

    Records and cotangents have shape (*loops, examples, *own): `loops` are the lengths of the
    enclosing scans, outermost first, and `varies` says which of them have a weight per iteration.
    Weights have shape (*varying loops, *own). arithmetic: of its products.
    """

    name: str
    operand: int
    arithmetic: Arithmetic

    @classmethod
    @abc.abstractmethod
    def match(cls, eqn: JaxprEqn, from_params: list[bool]) -> "Rule | None":
        """The rule for this equation if it covers it."""

    @abc.abstractmethod
    def record(self, operands: Sequence[Array]) -> Array:
        """What must be kept of the equation's data."""

    @abc.abstractmethod
    def sizes(self, loops: Sequence[int], varies: Sequence[bool]) -> Sizes: ...

    @abc.abstractmethod
    def outer(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> Float[Array, "b ..."]:
        """V_i for every example, shaped like the weight, float32."""

    @abc.abstractmethod
    def gram(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        """|V_i|^2."""

    @abc.abstractmethod
    def mass(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        """M_i of the module's text."""

    @abc.abstractmethod
    def weighted(
        self, record: Array, cotangent: Array, factors: Float[Array, " b"], varies: Sequence[bool]
    ) -> Float[Array, "..."]:
        """sum_i factors_i V_i; examples of factor 0 count nothing, whatever they hold."""


def matrices_outer(
    a: Float[Array, "s b t d"], g: Float[Array, "s b t p"], arithmetic: Arithmetic
) -> Float[Array, "b s d p"]:
    return arithmetic.product("sbtd,sbtp->bsdp", a, g)


def matrices_gram(
    a: Float[Array, "s b t d"], g: Float[Array, "s b t p"], arithmetic: Arithmetic
) -> Float[Array, " b"]:
    if a.shape[2] == 1:
        return jnp.sum(_squares(a) * _squares(g), (0, 2))
    of_a = arithmetic.product("sbtd,sbud->sbtu", a, a)
    return jnp.sum(of_a * arithmetic.product("sbtp,sbup->sbtu", g, g), (0, 2, 3))


def matrices_mass(a: Float[Array, "s b t d"], g: Float[Array, "s b t p"]) -> Float[Array, " b"]:
    return jnp.sum(jnp.sqrt(_squares(a)) * jnp.sqrt(_squares(g)), (0, 2))


def matrices_weighted(
    a: Float[Array, "s b t d"],
    g: Float[Array, "s b t p"],
    factors: Float[Array, " b"],
    arithmetic: Arithmetic,
) -> Float[Array, "s d p"]:
    def block(pair: tuple[Float[Array, "b t d"], Float[Array, "b t p"]]) -> Float[Array, "d p"]:
        a, g = kept(pair[0], factors), weigh(pair[1], factors)
        a, g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
        return total(arithmetic.product("td,tp->dp", a, part) for part in arithmetic.cut(g))

    if a.shape[0] == 1:
        return block((a[0], g[0]))[None]
    if platform() == "cpu":  # one product with a batch axis would first copy all of a, transposed
        return lax.map(block, (a, g))
    return jax.vmap(block)((a, g))


def weigh(array: Float[Array, "b ..."], factors: Float[Array, " b"]) -> Float[Array, "b ..."]:
    """factors_i times entry i, in float32; zero where the factor is, also for NaN."""
    return widened(kept(array, factors)) * _per_example(factors, array)


def total(arrays: Iterable[Array]) -> Array:
    return reduce(jnp.add, arrays)


def kept(array: Array, factors: Float[Array, " b"]) -> Array:
    """Zeros in place of examples of factor 0."""
    return jnp.where(_per_example(factors > 0, array), array, jnp.zeros((), array.dtype))


def per_example(function: Callable[..., PyTree], *batched: PyTree) -> PyTree:
    """`vmap`, but one example after the other on a CPU, where big batched products of small
    matrices are slow and large."""
    if platform() == "cpu" and not any(J.on_mesh(each) for each in jax.tree.leaves(batched)):
        return lax.map(lambda each: function(*each), batched)
    return jax.vmap(function)(*batched)


def loops_apart(
    array: Array,
    varies: Sequence[bool],
    blocks: Sequence[int],
    positions: Sequence[int],
    last: Sequence[int],
) -> Array:
    """(*loops, b, *own) -> (S, b, T, *last): own axes named by their place among the own ones;
    loops join S or T."""
    examples = len(varies)
    first = 1 + examples
    across = [depth for depth, varying in enumerate(varies) if varying] + [
        first + axis for axis in blocks
    ]
    along = [depth for depth, varying in enumerate(varies) if not varying] + [
        first + axis for axis in positions
    ]
    s, t = (int(np.prod([array.shape[axis] for axis in axes])) for axes in (across, along))
    moved = jnp.transpose(array, [*across, examples, *along, *(first + axis for axis in last)])
    return moved.reshape(s, array.shape[examples], t, *moved.shape[1 + len(across) + len(along) :])


def varying_loops(array: Array, varies: Sequence[bool]) -> tuple[int, ...]:
    """The lengths of the loops with a weight per iteration, of an array (*loops, b, *own)."""
    return tuple(array.shape[depth] for depth, varying in enumerate(varies) if varying)


def loop_sizes(loops: Sequence[int], varies: Sequence[bool]) -> tuple[int, int]:
    """How many iterations have weights of their own, and how many share each."""
    across = [n for n, varying in zip(loops, varies, strict=True) if varying]
    along = [n for n, varying in zip(loops, varies, strict=True) if not varying]
    return int(np.prod(across)), int(np.prod(along))


def _squares(array: Float[Array, "s b t d"]) -> Float[Array, "s b t"]:
    return jnp.sum(jnp.square(array.astype(jnp.float32)), -1)


def _per_example(vector: Float[Array, " b"] | Bool[Array, " b"], like: Array) -> Array:
    return vector.reshape((-1,) + (1,) * (like.ndim - 1))
