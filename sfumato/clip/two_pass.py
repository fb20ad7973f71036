"""Two backward passes and the memory of one: the first sums squared norms on its way, the second
weighs examples.

After Lee & Kifer 2021 (arXiv 2009.03106), here for any traced loss. In the first pass every site
carries a *probe*, a number that the loss does not depend on, whose cotangent is defined as the
squared norm of the gradient there; activations and cotangents are dropped as soon as an ordinary
backward pass would drop them. In the second, the gradient of a site's weight is defined as the
weighted sum over examples, so what no factor admits (NaN included) never enters it.

The second pass computes activations and cotangents anew, and the compiler may round them otherwise
than in the first. For most examples that is nothing. But an example can be made that rounding
decides (pixels of 1e19, all alike, whose variance is that of the rounded mean), and what is summed
would then not be what was measured. So the second pass measures again, and where a site's norm has
become larger, it is brought back to the one that the factors were made from. (Of a site in a loop
only the norm over all iterations is known: there each iteration is held to that.)

What a probe cannot measure, because several sites add up to one gradient, is held for all examples,
as lifted leaves are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from sfumato.clip import scaling
from sfumato.clip._jax import JaxprEqn
from sfumato.clip.chain import Path, Site, find_meetings
from sfumato.clip.factors import Clipper
from sfumato.clip.handling import Handling, Part
from sfumato.clip.jaxpr_replay import ByPath, Replay, evaluate
from sfumato.clip.materialize import contract
from sfumato.clip.parts import (
    ByLeaf,
    each_example,
    formed,
    pullback,
    rounding,
    site_norms,
    standardized,
)
from sfumato.clip.rules.base import per_example
from sfumato.core.trees import squared_norm

Norms = Callable[[Array, Array], Float[Array, " b"]]
"""(records, cotangents) of a site, examples first -> upper bounds on the squared norms of its
part's gradients."""


Bounds = tuple[Float[Array, ""], Float[Array, ""]]
"""An example's factor, and its squared norm at a site as the first pass measured it."""


def clipped_sum(
    handling: Handling,
    clipper: Clipper,
    params: PyTree,
    batch: PyTree[Shaped[Array, "b ..."]],
    mask: Bool[Array, " b"],
) -> PyTree:
    """As `materialize.clipped_sum`, of the loss that was traced for `handling`."""
    leaves, structure = jax.tree.flatten(params)
    probed = [part for part in handling.parts if can_probe(handling, part, clipper)]
    norms = {path: _norms(handling, part, leaves, path) for part in probed for path in part.sites}
    squared, held, measured = _first_pass(
        handling, probed, norms, leaves, jax.tree.leaves(batch), len(mask)
    )
    factors = clipper([squared[leaf] for leaf in range(len(leaves))], mask)
    # Without the barrier the compiler would take the second forward pass for the first one and hold
    # all it computed.
    batch, factors, measured = jax.lax.optimization_barrier((batch, factors, measured))
    sums = {leaf: contract(factors[leaf], each) for leaf, each in held.items()}
    sums |= _second_pass(handling, probed, norms, leaves, jax.tree.leaves(batch), factors, measured)
    unused = {
        leaf: jnp.zeros(shape)
        for leaf, shape in enumerate(handling.trace.shapes)
        if leaf not in sums
    }
    return jax.tree.unflatten(structure, [(sums | unused)[leaf] for leaf in range(len(leaves))])


def can_probe(handling: Handling, part: Part, clipper: Clipper) -> bool:
    """Is the part's gradient that of one site, iteration by iteration, with one factor for all of
    it, and is it known how much longer the pullback may make what rounding changes?
    """
    sites = [handling.sites[path] for path in part.sites]
    own_weights = all(all(site.varies) for site in sites)
    if part.direct:
        return bool(sites) and own_weights
    return part.standardized and not sites[0].loops and clipper.share_group(part.leaves)


def _first_pass(
    handling: Handling,
    probed: Sequence[Part],
    norms: dict[Path, Norms],
    leaves: Sequence[Array],
    batch: Sequence[Array],
    count: int,
) -> tuple[ByLeaf, ByLeaf, ByPath]:
    """Squared norms by leaf, the gradients of all leaves that are not probed, and the squared norms
    by site of the others."""
    weights = find_meetings(handling.trace, leaves).weights
    held = {path: weight for path, weight in weights.items() if path not in norms}

    def loss(lifted: ByLeaf, held: ByPath, probes: ByPath, example: Sequence[Array]) -> Array:
        def meet(
            site: Site, eqn: JaxprEqn, operands: list[Any], weight: Array, tap: Any
        ) -> tuple[Array, None]:
            if site.path not in norms:
                return _formed(site, eqn, operands, weight), None
            return _probed(site, eqn, norms[site.path], operands, weight, probes[site.path]), None

        replay = Replay(handling.trace, handling.sites, meet)
        return replay(
            [lifted.get(leaf, value) for leaf, value in enumerate(leaves)],
            example,
            weights | held,
            {},
        )[0]

    gradient, probes = jax.grad(loss, (0, 1, 2)), dict.fromkeys(norms, jnp.zeros(()))
    lifted = {leaf: leaves[leaf] for leaf in sorted(handling.lifted)}
    of_lifted, of_held, of_probes = each_example(
        handling, lambda example: gradient(lifted, held, probes, example), batch
    )
    squared = {leaf: jnp.zeros(count) for leaf in range(len(leaves))}
    for part in probed:  # what is not told apart by leaf may stand with any
        squared[part.leaves[0]] = sum(of_probes[path] for path in part.sites)
    gradients: ByLeaf = {}
    for part in (part for part in handling.parts if part not in probed and part.how != "unused"):
        gradients |= _held(handling, part, leaves, of_lifted, of_held)
    squared |= {leaf: jax.vmap(squared_norm)(each) for leaf, each in gradients.items()}
    return squared, gradients, of_probes


def _norms(handling: Handling, part: Part, leaves: Sequence[Array], path: Path) -> Norms:
    site = handling.sites[path]
    if part.direct:
        return lambda records, cotangents: site_norms(site, part.how, records, cotangents, ())
    pull, largest = pullback(handling, part, leaves), standardized(site, leaves).largest()

    def norms(records: Array, cotangents: Array) -> Float[Array, " b"]:
        def one(record: Array, cotangent: Array) -> Array:
            return squared_norm(pull({path: formed(site, record, cotangent, ())}))

        squared = per_example(one, records, cotangents)
        return (jnp.sqrt(squared) + largest * rounding(site, records, cotangents, ())) ** 2

    return norms


def _held(
    handling: Handling, part: Part, leaves: Sequence[Array], lifted: ByLeaf, weights: ByPath
) -> ByLeaf:
    """The per-example gradients of the leaves of a part that is not probed, from those of its
    lifted leaves and weights."""
    pulled: ByLeaf = {}
    if part.sites:
        pulled = jax.vmap(pullback(handling, part, leaves))(
            {path: weights[path] for path in part.sites}
        )
    own = {
        leaf: [each[leaf].astype(jnp.float32) for each in (pulled, lifted) if leaf in each]
        for leaf in part.leaves
    }
    return {leaf: each[0] if len(each) == 1 else each[0] + each[1] for leaf, each in own.items()}


def _second_pass(
    handling: Handling,
    probed: Sequence[Part],
    norms: dict[Path, Norms],
    leaves: Sequence[Array],
    batch: Sequence[Array],
    factors: Sequence[Array],
    measured: ByPath,
) -> ByLeaf:
    """The sums of the probed leaves."""
    if not probed:
        return {}
    weights = find_meetings(handling.trace, leaves).weights
    of_site = {
        path: (factors[part.leaves[0]], measured[path]) for part in probed for path in part.sites
    }

    def loss(own: ByPath, example: Sequence[Array], bounds: dict[Path, Bounds]) -> Array:
        def meet(
            site: Site, eqn: JaxprEqn, operands: list[Any], weight: Array, tap: Any
        ) -> tuple[Array, None]:
            if site.path not in of_site:
                return evaluate(site, eqn, operands, weight), None
            return _weighed(site, eqn, norms[site.path], operands, weight, bounds[site.path]), None

        return Replay(handling.trace, handling.sites, meet)(leaves, example, weights | own, {})[0]

    def total(own: ByPath) -> Array:
        return jnp.sum(jax.vmap(loss, in_axes=(None, 0, 0))(own, list(batch), of_site))

    gradients = jax.grad(total)({path: weights[path] for path in of_site})
    sums: ByLeaf = {}
    for part in probed:
        sums |= pullback(handling, part, leaves)({path: gradients[path] for path in part.sites})
    return sums


def _probed(
    site: Site,
    eqn: JaxprEqn,
    norms: Norms,
    operands: list[Any],
    weight: Array,
    probe: Float[Array, ""],
) -> Array:
    """The value of a site. Backward, the probe receives the squared norm and the weight nothing."""
    measure = custom_vmap(lambda record, cotangent: norms(record[None], cotangent[None])[0])
    measure.def_vmap(lambda size, batched, *each: (norms(*_batched(size, batched, each)), True))

    def backward(
        record: Array, cotangent: Array, weight: Array, probe: Array
    ) -> tuple[Array, Array]:
        return jnp.zeros_like(weight), measure(record, cotangent)

    return _meet(site, eqn, backward, operands, weight, probe)


def _weighed(
    site: Site, eqn: JaxprEqn, norms: Norms, operands: list[Any], weight: Array, bounds: Bounds
) -> Array:
    """The value of a site. Backward, the weight receives the gradient times the example's factor,
    under vmap their sum."""

    def weighted(record: Array, cotangent: Array, factors: Array, measured: Array) -> Array:
        now = norms(record, cotangent)
        longer = ~(now <= measured)  # written so that a NaN counts nothing
        share = jnp.where(longer, jnp.where(jnp.isfinite(now), jnp.sqrt(measured / now), 0.0), 1.0)
        return scaling.weighted(site.rule, record, cotangent, factors * share, ())

    weigh = custom_vmap(lambda *each: weighted(*(x[None] for x in each)))
    weigh.def_vmap(lambda size, batched, *each: (weighted(*_batched(size, batched, each)), False))

    def backward(
        record: Array, cotangent: Array, weight: Array, bounds: Bounds
    ) -> tuple[Array, Bounds]:
        return weigh(record, cotangent, *bounds), (
            jnp.zeros_like(bounds[0]),
            jnp.zeros_like(bounds[1]),
        )

    return _meet(site, eqn, backward, operands, weight, bounds)


def _formed(site: Site, eqn: JaxprEqn, operands: list[Any], weight: Array) -> Array:
    """The value of a site. Backward, the weight receives V of `rules/base.py`, which vmap keeps
    apart for each example."""

    def backward(record: Array, cotangent: Array, weight: Array, extra: Any) -> tuple[Array, Any]:
        return formed(site, record, cotangent, ()).astype(weight.dtype), extra

    return _meet(site, eqn, backward, operands, weight, jnp.zeros(()))


Backward = Callable[[Array, Array, Array, Any], tuple[Array, Any]]
"""(record, cotangent, weight, extra) -> cotangents of weight and extra."""


def _meet(
    site: Site, eqn: JaxprEqn, backward: Backward, operands: list[Any], weight: Array, extra: Any
) -> Array:
    """The site's equation, differentiated as usual with respect to its data and by `backward`
    otherwise."""
    real = [
        i
        for i, x in enumerate(operands)
        if i != site.rule.operand and jnp.issubdtype(x.dtype, jnp.floating)
    ]

    @jax.custom_vjp
    def value(operands: list[Any], weight: Array, extra: Any) -> Array:
        return evaluate(site, eqn, operands, weight)

    def pull(saved: tuple[list[Any], Array, Any], cotangent: Array) -> tuple[list[Any], Array, Any]:
        operands, weight, extra = saved

        def of_data(*data: Array) -> Array:
            every = list(operands)
            for i, each in zip(real, data, strict=True):
                every[i] = each
            return evaluate(site, eqn, every, weight)

        _, back = jax.vjp(of_data, *(operands[i] for i in real))
        cotangents = [
            jnp.zeros_like(x)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else np.zeros(x.shape, jax.dtypes.float0)
            for x in operands
        ]
        for i, each in zip(real, back(cotangent), strict=True):
            cotangents[i] = each
        return cotangents, *backward(site.rule.record(operands), cotangent, weight, extra)

    value.defvjp(
        lambda operands, weight, extra: (value(operands, weight, extra), (operands, weight, extra)),
        pull,
    )
    return value(operands, weight, extra)


def _batched(size: int, batched: Sequence[bool], arrays: Sequence[Array]) -> list[Array]:
    return [
        x if has else jnp.broadcast_to(x, (size, *x.shape))
        for has, x in zip(batched, arrays, strict=True)
    ]
