"""gather: rows of an embedding table. V_i has g_it added into row k_it; two positions meet only
where their rows are equal."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from sfumato.clip._jax import GATHER, JaxprEqn, aval
from sfumato.clip.arithmetic import UNROUNDED, Arithmetic, widened
from sfumato.clip.rules.base import Rule, Sizes, loop_sizes, loops_apart, varying_loops, weigh


@dataclass(frozen=True)
class GatherRule(Rule):
    """Takes whole rows along axis 0 of a table; the indices' last axis has length 1."""

    w_shape: tuple[int, ...]
    i_shape: tuple[int, ...]
    offset_dims: tuple[int, ...]
    clamps: bool
    operand: int = 0
    name: str = "gather"
    arithmetic: Arithmetic = UNROUNDED

    @classmethod
    def match(cls, eqn: JaxprEqn, from_params: list[bool]) -> "GatherRule | None":
        if eqn.primitive is not GATHER or from_params != [True, False]:
            return None
        numbers, w, i = (
            eqn.params["dimension_numbers"],
            aval(eqn.invars[0]).shape,
            aval(eqn.invars[1]).shape,
        )
        rows = (
            numbers.collapsed_slice_dims == (0,)
            and numbers.start_index_map == (0,)
            and not numbers.operand_batching_dims
            and tuple(eqn.params["slice_sizes"]) == (1, *w[1:])
            and i[-1] == 1
        )
        clamps = lax.GatherScatterMode.from_any(eqn.params["mode"]) == lax.GatherScatterMode.CLIP
        return cls(w, i, tuple(numbers.offset_dims), clamps) if rows else None

    def record(self, operands: Sequence[Array]) -> Array:
        return operands[1]

    def sizes(self, loops: Sequence[int], varies: Sequence[bool]) -> Sizes:
        across, along = loop_sizes(loops, varies)
        positions, width = along * int(np.prod(self.i_shape)), int(np.prod(self.w_shape[1:]))
        return Sizes(across, positions, self.w_shape[0], width, across * positions * (width + 1))

    def outer(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> Float[Array, "b ..."]:
        rows, _, g, loops = self._rows(record, cotangent, varies)
        blocks = jnp.moveaxis(jax.vmap(jax.vmap(self._scatter))(rows, g), 1, 0)
        return blocks.reshape(blocks.shape[0], *loops, *self.w_shape)

    def gram(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        rows, inside, g, _ = self._rows(record, cotangent, varies)
        same = (rows[..., :, None] == rows[..., None, :]) & inside[..., :, None]
        return jnp.sum(
            jnp.where(same, self.arithmetic.product("sbtp,sbup->sbtu", g, g), 0.0), (0, 2, 3)
        )

    def mass(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        _, _, g, _ = self._rows(record, cotangent, varies)
        return jnp.sum(jnp.linalg.norm(g, axis=-1), (0, 2))

    def weighted(
        self, record: Array, cotangent: Array, factors: Float[Array, " b"], varies: Sequence[bool]
    ) -> Float[Array, "..."]:
        rows, _, g, loops = self._rows(record, cotangent, varies)
        s, g = len(rows), jax.vmap(weigh, (0, None))(g, factors)
        return jax.vmap(self._scatter)(rows.reshape(s, -1), g.reshape(s, -1, g.shape[-1])).reshape(
            *loops, *self.w_shape
        )

    def _rows(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> tuple[Int[Array, "s b t"], Bool[Array, "s b t"], Float[Array, "s b t p"], tuple[int, ...]]:
        """Row numbers, whether they exist, and cotangents in float32; a row that does not exist has
        no gradient."""
        rows = loops_apart(record[..., 0], varies, (), range(record.ndim - 2 - len(varies)), ())
        own = range(len(self.i_shape) - 1 + len(self.offset_dims))
        g = loops_apart(
            cotangent,
            varies,
            (),
            [axis for axis in own if axis not in self.offset_dims],
            self.offset_dims,
        )
        g = widened(g.reshape(*g.shape[:3], -1))
        rows = jnp.clip(rows, 0, self.w_shape[0] - 1) if self.clamps else rows
        inside = (rows >= 0) & (rows < self.w_shape[0])
        loops = varying_loops(record, varies)
        return rows, inside, jnp.where(inside[..., None], g, 0.0), loops

    def _scatter(self, rows: Int[Array, " n"], g: Float[Array, "n p"]) -> Float[Array, "v p"]:
        return jnp.zeros((self.w_shape[0], g.shape[-1]), jnp.float32).at[rows].add(g, mode="drop")
