"""conv_general_dilated: any stride, padding, dilation, layout and number of feature groups, in any
number of dimensions.

A convolution is a dot product of patches: for kernel offset k, output position t and feature group
f,

    y[t, f, :] = sum_k x[t * stride + k * dilation, f, :] w[k, f].

With the patches of one offset side by side, D is (offsets x inputs of a group), P the outputs of a
group, S the groups.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from sfumato.clip._jax import CONV, JaxprEqn, aval
from sfumato.clip.arithmetic import UNROUNDED, Arithmetic, widened
from sfumato.clip.rules.base import (
    Rule,
    Sizes,
    kept,
    loop_sizes,
    loops_apart,
    matrices_gram,
    matrices_outer,
    matrices_weighted,
    per_example,
    total,
    varying_loops,
    weigh,
)


@dataclass(frozen=True)
class ConvRule(Rule):
    """w_shape, a_shape, g_shape: of one example and iteration; the specs name the axes as lax does:
    (batch or outputs, features or inputs, *space).
    """

    w_shape: tuple[int, ...]
    a_shape: tuple[int, ...]
    g_shape: tuple[int, ...]
    numbers: lax.ConvDimensionNumbers
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int
    operand: int = 1
    name: str = "conv"
    arithmetic: Arithmetic = UNROUNDED

    @classmethod
    def match(cls, eqn: JaxprEqn, from_params: list[bool]) -> "ConvRule | None":
        if (
            eqn.primitive is not CONV
            or from_params != [False, True]
            or eqn.params["batch_group_count"] > 1
        ):
            return None
        given = eqn.params
        return cls(
            aval(eqn.invars[1]).shape,
            aval(eqn.invars[0]).shape,
            aval(eqn.outvars[0]).shape,
            given["dimension_numbers"],
            tuple(given["window_strides"]),
            tuple(map(tuple, given["padding"])),
            tuple(given["lhs_dilation"]),
            tuple(given["rhs_dilation"]),
            given["feature_group_count"],
        )

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.w_shape[axis] for axis in self.numbers.rhs_spec[2:])

    @property
    def group_sizes(self) -> tuple[int, int]:
        """Inputs and outputs of one feature group."""
        return self.w_shape[self.numbers.rhs_spec[1]], self.w_shape[
            self.numbers.rhs_spec[0]
        ] // self.groups

    def record(self, operands: Sequence[Array]) -> Array:
        return operands[0]

    def sizes(self, loops: Sequence[int], varies: Sequence[bool]) -> Sizes:
        across, along = loop_sizes(loops, varies)
        inputs, outputs = self.group_sizes
        positions = int(np.prod(self.g_shape)) // (outputs * self.groups)
        tape = across * along * int(np.prod(self.a_shape) + np.prod(self.g_shape))
        return Sizes(
            across * self.groups,
            along * positions,
            int(np.prod(self.kernel)) * inputs,
            outputs,
            tape,
        )

    def outer(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> Float[Array, "b ..."]:
        a, g, loops = self._matrices(record, cotangent, varies)
        return self._as_weight(matrices_outer(a, g, self.arithmetic), loops)

    def gram(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        def one(record: Array, cotangent: Array) -> Float[Array, ""]:
            a, g, _ = self._matrices(
                jnp.expand_dims(record, len(varies)),
                jnp.expand_dims(cotangent, len(varies)),
                varies,
            )
            return matrices_gram(a, g, self.arithmetic)[0]

        return per_example(
            one, *(jnp.moveaxis(array, len(varies), 0) for array in (record, cotangent))
        )  # patches are large

    def mass(self, record: Array, cotangent: Array, varies: Sequence[bool]) -> Float[Array, " b"]:
        """The length of a patch is the square root of a window's sum, so no patch is formed."""
        (n, features, *space), (gn, gfeatures, *gspace) = (
            self.numbers.lhs_spec,
            self.numbers.out_spec,
        )
        inputs, outputs = self.group_sizes
        record, cotangent = map(self.arithmetic.rounded, (record, cotangent))
        a = loops_apart(record, varies, (), (n,), (*space, features)).astype(jnp.float32)
        g = loops_apart(cotangent, varies, (), (gn,), (*gspace, gfeatures)).astype(jnp.float32)
        a = jnp.sum(jnp.square(a).reshape(*a.shape[:-1], self.groups, inputs), -1)
        g = jnp.sum(jnp.square(g).reshape(*a.shape[:2], -1, self.groups, outputs), -1)
        windows = sum(each.reshape(*a.shape[:2], -1, self.groups) for each in self._offsets(a))
        return jnp.sum(jnp.sqrt(windows) * jnp.sqrt(g), (0, 2, 3))

    def weighted(
        self, record: Array, cotangent: Array, factors: Float[Array, " b"], varies: Sequence[bool]
    ) -> Float[Array, "..."]:
        if not varies and not self.arithmetic.short:  # a convolution of halves would give halves
            # The barrier keeps masks out of the transposed copies that the convolution makes: they
            # would take much longer.
            return self._weighted_at_once(
                *lax.optimization_barrier(
                    (
                        kept(self.arithmetic.rounded(record), factors),
                        weigh(self.arithmetic.rounded(cotangent), factors),
                    )
                )
            )
        a, g, loops = self._matrices(record, cotangent, varies)
        summed = matrices_weighted(a, g, factors, self.arithmetic)
        return self._as_weight(summed[None], loops)[0]

    def _weighted_at_once(
        self, record: Float[Array, "b ..."], cotangent: Float[Array, "b ..."]
    ) -> Float[Array, "..."]:
        """As the weight gradient of one convolution over all examples: outside of loops there is
        nothing faster."""

        def together(array: Array, spec: Sequence[int]) -> Array:
            """The examples' axis next to the convolution's own batch axis, then merged with it."""
            moved = jnp.moveaxis(array, 0, spec[0])
            return moved.reshape(*moved.shape[: spec[0]], -1, *moved.shape[spec[0] + 2 :])

        a = together(widened(record), self.numbers.lhs_spec)
        forward = lambda w: lax.conv_general_dilated(  # noqa: E731
            a,
            w,
            self.strides,
            self.padding,
            self.lhs_dilation,
            self.rhs_dilation,
            self.numbers,
            feature_group_count=self.groups,
            precision=self.arithmetic.precision,
        )
        back = jax.linear_transpose(forward, jax.ShapeDtypeStruct(self.w_shape, jnp.float32))
        parts = self.arithmetic.cut(together(cotangent, self.numbers.out_spec))
        return total(back(part)[0] for part in parts)

    def patch_sums(self, record: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
        """The sum over each patch, in the layout of the output: for every feature the one of its
        group."""
        (n, features, *space), (gn, gfeatures, *gspace) = (
            self.numbers.lhs_spec,
            self.numbers.out_spec,
        )
        a = loops_apart(record, (), (), (n,), (*space, features)).astype(jnp.float32)
        sums = sum(self._offsets(jnp.sum(a.reshape(*a.shape[:-1], self.groups, -1), -1)))
        each = jnp.repeat(sums, self.group_sizes[1], -1)[0]  # examples, images, *space, features
        order = [0] * each.ndim
        for place, axis in enumerate((gn, *gspace, gfeatures)):
            order[1 + axis] = 1 + place
        return jnp.transpose(each, order)

    def _matrices(
        self, record: Array, cotangent: Array, varies: Sequence[bool]
    ) -> tuple[Float[Array, "s b t d"], Float[Array, "s b t p"], tuple[int, ...]]:
        """Patches and cotangents, rounded, in the notation of rules/base.py, and the lengths of the
        varying loops."""
        record, cotangent = map(self.arithmetic.rounded, (record, cotangent))
        (n, features, *space), (gn, gfeatures, *gspace) = (
            self.numbers.lhs_spec,
            self.numbers.out_spec,
        )
        inputs, outputs = self.group_sizes
        a = loops_apart(record, varies, (), (n,), (*space, features))
        g = loops_apart(cotangent, varies, (), (gn,), (*gspace, gfeatures))
        s, b = a.shape[:2]
        patches = jnp.stack(
            [each.reshape(s, b, -1, self.groups, inputs) for each in self._offsets(a)], -2
        )
        patches = jnp.moveaxis(
            patches, 3, 1
        )  # blocks, groups, examples, positions, offsets, inputs
        g = jnp.moveaxis(g.reshape(s, b, -1, self.groups, outputs), 3, 1)
        a, g = (x.reshape(s * self.groups, b, x.shape[3], -1) for x in (patches, g))
        return a, g, varying_loops(record, varies)

    def _offsets(self, a: Float[Array, "s b n *space c"]) -> list[Float[Array, "s b n *out c"]]:
        """What the kernel sees at each of its offsets, at all output positions."""
        none = (0, 0, 0)
        pads = [
            (low, high, dilation - 1)
            for (low, high), dilation in zip(self.padding, self.lhs_dilation, strict=True)
        ]
        padded = lax.pad(a, jnp.zeros((), a.dtype), [none, none, none, *pads, none])
        out = [self.g_shape[axis] for axis in self.numbers.out_spec[2:]]
        slices = []
        for offset in itertools.product(*map(range, self.kernel)):
            start = [k * dilation for k, dilation in zip(offset, self.rhs_dilation, strict=True)]
            stop = [
                low + (count - 1) * stride + 1
                for low, count, stride in zip(start, out, self.strides, strict=True)
            ]
            limits = (*a.shape[:3], *stop, a.shape[-1])
            slices.append(
                lax.slice(padded, (0, 0, 0, *start, 0), limits, (1, 1, 1, *self.strides, 1))
            )
        return slices

    def _as_weight(
        self, blocks: Float[Array, "b s d p"], loops: tuple[int, ...]
    ) -> Float[Array, "b ..."]:
        inputs, outputs = self.group_sizes
        b, space = blocks.shape[0], len(self.kernel)
        apart = blocks.reshape(b, int(np.prod(loops)), self.groups, *self.kernel, inputs, outputs)
        apart = jnp.moveaxis(apart, 2, -2).reshape(
            b, *loops, *self.kernel, inputs, self.groups * outputs
        )
        first, spec = 1 + len(loops), self.numbers.rhs_spec
        order = [0] * len(spec)  # own axis -> its place in (*kernel, inputs, outputs)
        for place, axis in enumerate((*spec[2:], spec[1], spec[0])):
            order[axis] = place
        assert len(order) == space + 2
        return jnp.transpose(apart, [*range(first), *(first + place for place in order)])
