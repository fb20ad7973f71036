"""One forward pass, one backward pass: activations and cotangents of all sites are kept until the
clip factors are known.

After Bu et al. 2022 (arXiv 2210.00038), here for any traced loss. The loss of one example is
replayed with a tap at each site, whose gradient is the cotangent g_i there; vmap adds the examples.
From records and cotangents come the norms, from the norms the factors c_i, and from all three the
sum (`rules/`). The pullback of a sum is the sum of pullbacks, so each part is pulled back to its
leaves once.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree, Shaped

from sfumato.clip._jax import JaxprEqn
from sfumato.clip.chain import Path, Site, find_meetings
from sfumato.clip.factors import Clipper
from sfumato.clip.handling import Handling
from sfumato.clip.jaxpr_replay import ByPath, Records, Replay, evaluate
from sfumato.clip.parts import ByLeaf, Tape, each_example, measure, part_sum


def clipped_sum(
    handling: Handling,
    clipper: Clipper,
    params: PyTree,
    batch: PyTree[Shaped[Array, "b ..."]],
    mask: Bool[Array, " b"],
) -> PyTree:
    """As `materialize.clipped_sum`, of the loss that was traced for `handling`."""
    leaves, structure = jax.tree.flatten(params)
    tape = record(handling, leaves, jax.tree.leaves(batch))
    measured = [
        measure(handling, part, leaves, tape, clipper, len(mask)) for part in handling.parts
    ]
    squared = {leaf: each for part in measured for leaf, each in part.squared.items()}
    factors = clipper([squared[leaf] for leaf in range(len(leaves))], mask)
    sums: ByLeaf = {}
    for part in measured:
        sums |= part_sum(handling, part, tape, factors, clipper)
    return jax.tree.unflatten(structure, [sums[leaf] for leaf in range(len(leaves))])


def record(
    handling: Handling, leaves: Sequence[Array], batch: Sequence[Shaped[Array, "b ..."]]
) -> Tape:
    """One forward and one backward pass."""
    weights = find_meetings(handling.trace, leaves).weights
    taps = {
        path: jnp.zeros(site.output.shape, site.output.dtype)
        for path, site in handling.sites.items()
    }
    with_value = {
        path
        for part in handling.parts
        if part.standardized and part.how == "gram"
        for path in part.sites
    }

    def tapped(
        site: Site, eqn: JaxprEqn, operands: list[Any], weight: Array, tap: Array | None
    ) -> tuple[Array, PyTree]:
        assert tap is not None
        value, kept = evaluate(site, eqn, operands, weight), site.rule.record(operands)
        return _tap(value, tap), (kept, value) if site.path in with_value else kept

    replay = Replay(handling.trace, handling.sites, tapped)

    def loss(lifted: ByLeaf, taps: ByPath, example: Sequence[Array]) -> tuple[Array, Records]:
        return replay(
            [lifted.get(leaf, value) for leaf, value in enumerate(leaves)], example, weights, taps
        )

    gradient = jax.grad(loss, (0, 1), has_aux=True)
    own = {leaf: leaves[leaf] for leaf in sorted(handling.lifted)}
    (lifted, cotangents), records = each_example(
        handling, lambda example: gradient(own, taps, example), batch
    )
    # Examples behind loops: so a scan stacks them, and vmap moves them in front for nothing but to
    # have them moved back.
    return Tape(_behind_loops(handling, records), _behind_loops(handling, cotangents), lifted)


def _behind_loops(handling: Handling, by_path: Records) -> Records:
    def moved(path: Path, array: Array) -> Array:
        return jnp.moveaxis(array, 0, len(handling.sites[path].loops))

    return {path: jax.tree.map(partial(moved, path), arrays) for path, arrays in by_path.items()}


@jax.custom_vjp
def _tap(value: Array, tap: Array) -> Array:
    """value; its cotangent goes to both. (value + tap would cost an addition.)"""
    return value


_tap.defvjp(lambda value, tap: (value, None), lambda _, cotangent: (cotangent, cotangent))
