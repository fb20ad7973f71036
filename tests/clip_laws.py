"""The laws of a clipped sum, each a function of a callable `(params, batch, mask) -> BoundedSum`
and a case of the registry.

In a case the loss is multiplied by a number that each example carries. Gradients scale with it, so
one compiled function with C = 1 shows what happens for every clip norm: compiling takes most of the
tests' time.
"""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import (
    BAD,
    B,
    alone,
    assert_close,
    check_influence,
    everyone,
    flat,
    gradients,
    on_floats,
    only,
    slow_sum,
    spoiled,
)
from clip_registry import LOOSE, REGISTRY, built

from sfumato.clip import clipped_grad
from sfumato.clip.materialize import SLACK

ONE_OUT = ~alone(1)
QUICK = {"xla_backend_optimization_level": 0}
"""A third less time to compile. Half precision, where optimizing changes results, is tested
without."""


@dataclass(frozen=True)
class Case:
    """`each`: the gradient of every single example, a row each, by the slow loop."""

    name: str
    loss: object
    params: object
    members: object
    each: np.ndarray

    @property
    def norms(self):
        return np.linalg.norm(self.each, axis=1)

    def batch(self, scale, members=None):
        return (self.members if members is None else members), jnp.full(B, scale, jnp.float32)

    @property
    def strengths(self):
        """Scales with which the clip norm 1 is below all, amid and above all norms."""
        return 2 / self.norms.min(), 1 / np.median(self.norms), 0.5 / self.norms.max()

    @property
    def every(self):
        """Of values tried one after the other, a whole network takes each so many: its parts are
        entries of their own, and take all."""
        return 1 if self.each.shape[1] < 1000 else 5

    @property
    def tolerance(self):
        return LOOSE.get(self.name, 2e-5)


@cache
def case(name):
    loss, params, members = built(name)
    return Case(
        name, lambda p, e: e[1] * loss(p, e[0]), params, members, gradients(loss, params, members)
    )


@cache
def compiled(name, method, clip_norm=1.0, **settings):
    clipped = clipped_grad(case(name).loss, clip_norm, method=method, **settings)
    return jax.jit(clipped.__call__, compiler_options=QUICK)


def cases(fast):
    """Every entry with every method; the fast run takes those entries that `fast` names for a
    method."""
    return [
        pytest.param(name, method, marks=[] if name in fast[method] else [pytest.mark.slow])
        for method in fast
        for name in REGISTRY
    ]


# -- the laws


def law_of_the_slow_loop(clipped, it):
    for strength in it.strengths:
        for mask in (ONE_OUT, everyone()):
            got = clipped(it.params, it.batch(strength), mask)
            assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got.value))
            assert jax.tree.map(jnp.shape, got.value) == jax.tree.map(jnp.shape, it.params)
            assert_close(flat(got.value), slow_sum(strength * it.each, mask, 1.0), it.tolerance)


def law_of_influence(clipped, it):
    """The bound is kept, and attained by all: a smaller sum would need less noise than is added."""
    largest = check_influence(clipped, it.params, it.batch(it.strengths[0]), 1.0)
    assert largest > 1 - 2 * SLACK - (it.name in LOOSE) * it.tolerance


def law_of_the_mask(clipped, it):
    """Masked examples contribute nothing, whatever they hold: not a bit of the sum depends on it."""
    mask = jnp.array([True, False, True, False, True])
    members, scale = it.batch(it.strengths[1])
    one = clipped(it.params, (members, scale), mask)
    for value in (jnp.nan, 1e25):

        def other(leaf):
            return leaf.at[jnp.array([1, 3])].set(value)  # noqa: B023

        for changed in ((on_floats(other, members), scale), (members, other(scale))):
            assert np.array_equal(flat(one.value), flat(clipped(it.params, changed, mask).value))
    assert not flat(clipped(it.params, (members, scale), ~everyone()).value).any()


def law_of_absurd_examples(clipped, it):
    """They are bounded like any other, and what the others contribute does not depend on them."""
    members, scale = it.batch(1.0)
    for bad in BAD if it.every == 1 else (np.nan, 1e30, 1e19):
        for batch in ((spoiled(members, bad), scale), (members, spoiled(scale, bad))):
            check_influence(clipped, it.params, batch, 1.0)
            together = flat(clipped(it.params, batch, everyone()).value)
            one_by_one = sum(only(clipped, it.params, batch, alone(i)) for i in range(B))
            assert_close(together, one_by_one, 1e-5)


def law_of_scale(clipped, it):
    """An example is bounded however large or small its numbers are: squares of either kind leave
    float32."""
    members, scale = it.batch(1.0)
    for strength in (1.0, it.strengths[0], 1e3 * it.strengths[0]):
        for k in range(-126, 127, it.every if strength == 1.0 else 9 * it.every):
            batch = on_floats(lambda leaf: leaf * np.float32(2.0**k), members), strength * scale  # noqa: B023
            one = alone(k % B)
            own = np.linalg.norm(only(clipped, it.params, batch, one))
            assert own <= 1.0, f"times 2^{k}, example {k % B} contributes {own}"


LAWS = (
    law_of_the_slow_loop,
    law_of_influence,
    law_of_the_mask,
    law_of_absurd_examples,
    law_of_scale,
)
