"""dot_general: dense layers, batched and multi-operand einsums; also the arithmetic of
convolutions, once in patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sfumato.clip._jax import DOT, JaxprEqn, aval
from sfumato.clip.arithmetic import UNROUNDED, Arithmetic
from sfumato.clip.rules.base import (
    Rule,
    Sizes,
    loop_sizes,
    loops_apart,
    matrices_gram,
    matrices_mass,
    matrices_outer,
    matrices_weighted,
    varying_loops,
)


@dataclass(frozen=True)
class DotRule(Rule):
    """operand: which of the two is the weight. Axes are places among the own axes of weight (w),
    data (a) and output (g): `batch` run along both, `contract` are summed, `free` are the rest.
    w_shape, a_shape: of one example, one iteration.
    """

    operand: int
    w_shape: tuple[int, ...]
    a_shape: tuple[int, ...]
    w_batch: tuple[int, ...]
    w_contract: tuple[int, ...]
    a_batch: tuple[int, ...]
    a_contract: tuple[int, ...]
    name: str = "dot"
    arithmetic: Arithmetic = UNROUNDED

    @classmethod
    def match(cls, eqn: JaxprEqn, from_params: list[bool]) -> "DotRule | None":
        if eqn.primitive is not DOT or sum(from_params) != 1:
            return None
        operand = from_params.index(True)
        contract, batch = eqn.params["dimension_numbers"]
        other = 1 - operand
        return cls(
            operand,
            aval(eqn.invars[operand]).shape,
            aval(eqn.invars[other]).shape,
            tuple(batch[operand]),
            tuple(contract[operand]),
            tuple(batch[other]),
            tuple(contract[other]),
        )

    @property
    def w_free(self) -> list[int]:
        return [
            axis
            for axis in range(len(self.w_shape))
            if axis not in (*self.w_batch, *self.w_contract)
        ]

    @property
    def a_free(self) -> list[int]:
        return [
            axis
            for axis in range(len(self.a_shape))
            if axis not in (*self.a_batch, *self.a_contract)
        ]

    def record(self, operands: Sequence[Array]) -> Array:
        return operands[1 - self.operand]

    def sizes(self, loops: Sequence[int], varies: Sequence[bool]) -> Sizes:
        w, a = np.array(self.w_shape, int), np.array(self.a_shape, int)
        across, along = loop_sizes(loops, varies)
        sizes = [
            int(np.prod(part))
            for part in (w[[*self.w_batch]], a[self.a_free], w[[*self.w_contract]], w[self.w_free])
        ]
        tape = across * along * sizes[0] * sizes[1] * (sizes[2] + sizes[3])
        return Sizes(across * sizes[0], along * sizes[1], sizes[2], sizes[3], tape)

    def outer(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> Float[Array, "b ..."]:
        a, g, loops = self._matrices(record, cotangent, varies)
        return self._as_weight(matrices_outer(a, g, self.arithmetic), loops)

    def gram(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        return matrices_gram(*self._matrices(record, cotangent, varies)[:2], self.arithmetic)

    def mass(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        return matrices_mass(*self._matrices(record, cotangent, varies)[:2])

    def weighted(
        self, record: Array, cotangent: Array, factors: Float[Array, " b"], varies: Sequence[bool]
    ) -> Float[Array, "..."]:
        a, g, loops = self._matrices(record, cotangent, varies)
        summed = matrices_weighted(a, g, factors, self.arithmetic)
        return self._as_weight(summed[None], loops)[0]

    def _matrices(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> tuple[Float[Array, "s b t d"], Float[Array, "s b t p"], tuple[int, ...]]:
        """Both, rounded, in the notation of rules/base.py, and the lengths of the varying loops."""
        record, cotangent = map(self.arithmetic.rounded, (record, cotangent))
        a = loops_apart(record, varies, self.a_batch, self.a_free, self.a_contract)
        batch = list(range(len(self.a_batch)))
        of_a, of_w = len(self.a_free), len(self.w_free)
        first, second = (of_w, of_a) if self.operand == 0 else (of_a, of_w)
        lhs = list(range(len(batch), len(batch) + first))
        rhs = list(range(len(batch) + first, len(batch) + first + second))
        positions, outputs = (rhs, lhs) if self.operand == 0 else (lhs, rhs)
        g = loops_apart(cotangent, varies, batch, positions, outputs)
        loops = varying_loops(record, varies)
        size = lambda axes: int(np.prod([self.w_shape[axis] for axis in axes]))  # noqa: E731
        return (
            a.reshape(*a.shape[:3], size(self.w_contract)),
            g.reshape(*g.shape[:3], size(self.w_free)),
            loops,
        )

    def _as_weight(
        self, blocks: Float[Array, "b s d p"], loops: tuple[int, ...]
    ) -> Float[Array, "b ..."]:
        order = [*self.w_batch, *self.w_contract, *self.w_free]
        apart = blocks.reshape(blocks.shape[0], *loops, *(self.w_shape[axis] for axis in order))
        first = 1 + len(loops)
        return jnp.transpose(
            apart, [*range(first), *(first + int(place) for place in np.argsort(order))]
        )
