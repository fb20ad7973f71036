"""The laws of a clipped sum, each a function of `sums` (many questions `(batch, mask)` -> a row each)
and a case of the registry.

In a case the loss is multiplied by a number that each example carries. Gradients scale with it, so
one compiled function with C = 1 shows what happens for every clip norm: compiling takes most of the
tests' time. The rest was calling it some hundred times for each law, so a loop in the compiled
program answers many questions at once.
"""

from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import (
    BAD,
    B,
    absent,
    alone,
    assert_close,
    bounded,
    everyone,
    gradients,
    neighbors,
    on_floats,
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
        return (self.members if members is None else members), np.full(B, scale, np.float32)

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


MANY = 32


def answered(function):
    """`(params, questions) -> rows` of a function `(params, batch, mask) -> a tree of sums`."""

    @partial(jax.jit, compiler_options=QUICK)
    def program(params, questions):
        return jax.lax.map(lambda each: function(params, *each), questions)

    def sums(params, questions):
        rows = []
        for first in range(0, len(questions), MANY):
            part = questions[first : first + MANY]
            padded = part + part[-1:] * (MANY - len(part))
            found = program(params, jax.tree.map(_stacked, *padded))
            assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
            assert jax.tree.map(lambda leaf: leaf.shape[1:], found) == jax.tree.map(
                jnp.shape, params
            )
            each = [
                np.asarray(leaf, np.float64).reshape(MANY, -1) for leaf in jax.tree.leaves(found)
            ]
            rows.append(np.concatenate(each, axis=1)[: len(part)])
        return np.concatenate(rows)

    return sums


def _stacked(*leaves):
    random_keys = jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key)
    return (jnp if random_keys else np).stack(leaves)


@cache
def sums_of(name, method):
    clipped = clipped_grad(case(name).loss, 1.0, method=method)
    return answered(lambda *asked: clipped(*asked).value)


def cases(fast):
    """Every entry with every method; the fast run takes those entries that `fast` names for a
    method."""
    return [
        pytest.param(name, method, marks=[] if name in fast[method] else [pytest.mark.slow])
        for method in fast
        for name in REGISTRY
    ]


# -- the laws


def law_of_the_slow_loop(sums, it):
    asked = [(strength, mask) for strength in it.strengths for mask in (ONE_OUT, everyone())]
    found = sums(it.params, [(it.batch(strength), mask) for strength, mask in asked])
    for got, (strength, mask) in zip(found, asked, strict=True):
        assert_close(got, slow_sum(strength * it.each, mask, 1.0), it.tolerance)


def law_of_influence(sums, it):
    """The bound is kept, and attained by all: a smaller sum would need less noise than is added."""
    largest = bounded(sums(it.params, neighbors(it.batch(it.strengths[0]))), 1.0)
    assert largest > 1 - 2 * SLACK - (it.name in LOOSE) * it.tolerance


def law_of_the_mask(sums, it):
    """Masked examples contribute nothing, whatever they hold: not a bit of the sum depends on it."""
    mask = np.array([True, False, True, False, True])
    members, scale = it.batch(it.strengths[1])
    asked = [((members, scale), mask)]
    for value in (np.nan, 1e25):

        def other(leaf):
            leaf = np.array(leaf)
            leaf[[1, 3]] = value  # noqa: B023
            return leaf

        asked += [((on_floats(other, members), scale), mask), ((members, other(scale)), mask)]
    one, *others, nobody = sums(it.params, [*asked, ((members, scale), np.zeros(B, bool))])
    for changed in others:
        assert np.array_equal(one, changed)
    assert not nobody.any()


def law_of_absurd_examples(sums, it):
    """They are bounded like any other, and what the others contribute does not depend on them."""
    members, scale = it.batch(1.0)
    asked = []
    for bad in BAD if it.every == 1 else (np.nan, 1e30, 1e19):
        for batch in ((spoiled(members, bad), scale), (members, spoiled(scale, bad))):
            asked += neighbors(batch)
    for rows in np.split(sums(it.params, asked), len(asked) // (1 + 2 * B)):
        bounded(rows, 1.0)
        assert_close(rows[0], rows[2::2].sum(0), 1e-5)


def law_of_scale(sums, it):
    """An example is bounded however large or small its numbers are: squares of either kind leave
    float32."""
    members, asked, told = on_floats(np.asarray, it.members), [], []
    for strength in (1.0, it.strengths[0], 1e3 * it.strengths[0]):
        for k in range(-126, 127, it.every if strength == 1.0 else 9 * it.every):
            with np.errstate(over="ignore"):
                scaled = on_floats(lambda leaf: leaf * np.float32(2.0**k), members)  # noqa: B023
            one = np.arange(B) == k % B
            asked.append((absent(it.batch(strength, scaled), ~one), one))
            told.append(f"times 2^{k}, example {k % B} contributes")
    for row, what in zip(sums(it.params, asked), told, strict=True):
        own = np.linalg.norm(row)
        assert own <= 1.0, f"{what} {own}"


LAWS = (
    law_of_the_slow_loop,
    law_of_influence,
    law_of_the_mask,
    law_of_absurd_examples,
    law_of_scale,
)
