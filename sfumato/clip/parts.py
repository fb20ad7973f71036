"""One part of the parameters: the norms of its per-example gradients, then its share of the clipped
sum.

Upper bounds. With M_i as in `rules/base.py`, float32 products err by at most GAMMA M_i in norm;
GAMMA = 8 u is what sums of random rounding errors stay well below, and the sums of real ones were
never seen to pass (docs/engine.md). So that no example made for cancellation passes its bound, what
enters the clip factors is

    gram:                (sqrt(|V|^2 + GAMMA M^2) + r M)^2     the Gram form errs by GAMMA M^2, whatever |V| is
    outer, formed again: (|J^T V| + (GAMMA + r) |J| M)^2       the vector measured and the one summed differ by that much
    held:                |J^T V|^2                             the vector measured is the vector summed

r is what rounding the factors of a weighted sum on purpose adds, 0 in float32 (`clip/arithmetic.py`).

|J| is the largest singular value of the pullback: 1 where numbers are merely moved, at most `Standardized.largest()` behind
weight standardization. Anywhere else it is not known, so what is measured is held. (An iteration
for it finds a lower bound.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from sfumato.clip import scaling
from sfumato.clip.chain import Path, Site, weights_of
from sfumato.clip.factors import Clipper
from sfumato.clip.handling import Handling, Part
from sfumato.clip.jaxpr_replay import ByPath
from sfumato.clip.materialize import contract, contract_finite
from sfumato.clip.rules.base import per_example
from sfumato.clip.rules.conv import ConvRule
from sfumato.clip.standardized import Standardized
from sfumato.core.trees import squared_norm

GAMMA = 2.0**-21
ByLeaf = dict[int, Array]


@dataclass
class Tape:
    """Records and cotangents of all sites (*loops, b, *own), and the per-example gradients of the
    lifted leaves (b, *leaf)."""

    records: dict[Path, Any]
    cotangents: ByPath
    lifted: ByLeaf

    def data(self, path: Path) -> Array:
        """The record of the rule; that of a standardized convolution has the output beside it."""
        record = self.records[path]
        return record[0] if isinstance(record, tuple) else record


@dataclass
class Measured:
    """squared: upper bounds on squared norms by leaf. held, by leaf, or formed, by site:
    per-example gradients, if kept."""

    part: Part
    squared: ByLeaf
    pull: "Pullback"
    held: ByLeaf = field(default_factory=dict)
    formed: ByPath = field(default_factory=dict)


def measure(
    handling: Handling,
    part: Part,
    leaves: Sequence[Array],
    tape: Tape,
    clipper: Clipper,
    count: int,
) -> Measured:
    """Norms of the per-example gradients of `count` examples."""
    pull = pullback(handling, part, leaves)
    if part.how == "unused":
        return Measured(part, {leaf: jnp.zeros(count) for leaf in part.leaves}, pull)
    if part.how == "lifted":
        held = {leaf: tape.lifted[leaf] for leaf in part.leaves}
        return Measured(
            part, {leaf: jax.vmap(squared_norm)(each) for leaf, each in held.items()}, pull, held
        )
    if part.standardized and clipper.share_group(part.leaves):
        return _standardized(handling, part, leaves, tape, pull)
    if part.direct and not part.keeps:
        sites = (handling.sites[path] for path in part.sites)
        norms = [
            site_norms(
                site, part.how, tape.records[site.path], tape.cotangents[site.path], site.varies
            )
            for site in sites
        ]
        return Measured(part, {part.leaves[0]: jnp.sum(jnp.stack(norms), 0)}, pull)
    return _outer(handling, part, tape, pull)


def part_sum(
    handling: Handling,
    measured: Measured,
    tape: Tape,
    factors: Sequence[Float[Array, " b"]],
    clipper: Clipper,
) -> ByLeaf:
    """The sum over examples of factor times gradient, for each leaf of the part."""
    part, sums = measured.part, ByLeaf()
    if part.how == "unused":
        return {leaf: jnp.zeros(handling.trace.shapes[leaf]) for leaf in part.leaves}
    if measured.held:
        add = contract if part.how == "lifted" else contract_finite
        return {leaf: add(factors[leaf], held) for leaf, held in measured.held.items()}
    if measured.formed:
        factor = factors[part.leaves[0]]
        return measured.pull(
            {path: contract_finite(factor, each) for path, each in measured.formed.items()}
        )
    for group in {clipper.of_leaf[leaf] for leaf in part.leaves}:
        own = [leaf for leaf in part.leaves if clipper.of_leaf[leaf] == group]
        pulled = measured.pull(
            {path: _weighted(handling, path, tape, factors[own[0]]) for path in part.sites}
        )
        sums |= {leaf: pulled[leaf] + _lifted_sum(leaf, tape, factors[leaf]) for leaf in own}
    return sums


@dataclass(frozen=True)
class Pullback:
    """From gradients with respect to the weights of a part's sites to those with respect to its
    leaves, in float32.

    linear: None for the identity.
    """

    part: Part
    weights: ByPath
    linear: Callable[[ByPath], tuple[list[Array]]] | None

    def __call__(self, cotangents: ByPath) -> ByLeaf:
        if self.linear is None:
            return {
                leaf: cotangents[path]
                for leaf, path in zip(self.part.leaves, self.part.sites, strict=True)
            }
        typed = {path: each.astype(self.weights[path].dtype) for path, each in cotangents.items()}
        return dict(zip(self.part.leaves, self.linear(typed)[0], strict=True))


def pullback(handling: Handling, part: Part, leaves: Sequence[Array]) -> Pullback:
    if not part.sites or (len(part.sites) == 1 and handling.sites[part.sites[0]].origin.untouched):
        return Pullback(part, {}, None)

    def weights(own: list[Array]) -> ByPath:
        given = dict(zip(part.leaves, own, strict=True))
        found = weights_of(handling.trace, handling.reads, given)
        return {path: found[path] for path in part.sites}

    return Pullback(
        part, *jax.vjp(weights, [leaves[leaf].astype(jnp.float32) for leaf in part.leaves])
    )


def site_norms(
    site: Site, how: str, records: Array, cotangents: Array, varies: Sequence[bool]
) -> Float[Array, " b"]:
    """Upper bounds on |V_i|^2, for a weight of which nothing is held."""
    small = scaling.scaled(records, cotangents, len(varies))
    mass = scaling.mass(site.rule, small, varies)
    if how == "gram":
        squared = (
            jnp.maximum(site.rule.gram(small.record, small.cotangent, varies), 0.0)
            + GAMMA * mass**2
        )
        norm = jnp.sqrt(squared) + site.rule.arithmetic.error * mass
        return jnp.square(scaling.raised(norm, small.exponent))
    each = (jnp.moveaxis(array, len(varies), 0) for array in (records, cotangents))
    squared = per_example(
        lambda record, cotangent: squared_norm(formed(site, record, cotangent, varies)), *each
    )
    return (jnp.sqrt(squared) + again(site) * scaling.raised(mass, small.exponent)) ** 2


def rounding(
    site: Site, records: Array, cotangents: Array, varies: Sequence[bool]
) -> Float[Array, " b"]:
    """How far V_i may be from V_i formed again, in a sum."""
    small = scaling.scaled(records, cotangents, len(varies))
    return again(site) * scaling.raised(scaling.mass(site.rule, small, varies), small.exponent)


def again(site: Site) -> float:
    """That, in units of M_i."""
    return GAMMA + site.rule.arithmetic.error


def formed(site: Site, record: Array, cotangent: Array, varies: Sequence[bool]) -> Array:
    """V of one example."""
    axis = len(varies)
    return site.rule.outer(jnp.expand_dims(record, axis), jnp.expand_dims(cotangent, axis), varies)[
        0
    ]


def _standardized(
    handling: Handling, part: Part, leaves: Sequence[Array], tape: Tape, pull: Pullback
) -> Measured:
    """See `standardized.py`. The norm of both leaves, if it has two, is told as one of them's; they
    share their factor."""
    (path,) = part.sites
    site, record, cotangent = handling.sites[path], tape.records[path], tape.cotangents[path]
    assert isinstance(site.rule, ConvRule)
    weight = standardized(site, leaves)
    if part.how == "gram":
        squared, most, exponent = weight.gram_norms(site.rule, record, cotangent)
        norm = jnp.sqrt(squared + GAMMA * jnp.square(most)) + site.rule.arithmetic.error * most
        return Measured(part, _as_one(part, jnp.square(scaling.raised(norm, exponent))), pull)

    def one(record: Array, cotangent: Array) -> tuple[tuple[Array, Array], ByPath]:
        gradient = formed(site, record, cotangent, ())
        norms = weight.outer_norm(gradient)
        return norms, {path: _if_finite(norms[1], gradient)} if part.keeps else {}

    (norm, most), kept = per_example(one, record, cotangent)
    error = GAMMA * most if part.keeps else weight.largest() * rounding(site, record, cotangent, ())
    return Measured(part, _as_one(part, jnp.square(norm + error)), pull, formed=kept)


def standardized(site: Site, leaves: Sequence[Array]) -> Standardized:
    """The standardized weight of a site."""
    assert site.origin.standardized is not None
    kernel, gain, epsilon = site.origin.standardized
    return Standardized(
        leaves[kernel].astype(jnp.float32),
        None if gain is None else leaves[gain].astype(jnp.float32),
        epsilon,
    )


def _if_finite(norm: Float[Array, ""], gradient: Array) -> Array:
    """Zeros for an example that is going to count nothing. norm: or its square."""
    return jnp.where(jnp.isfinite(norm), gradient, 0.0)


def _as_one(part: Part, squared: Float[Array, " b"]) -> ByLeaf:
    return {
        leaf: squared if leaf == part.leaves[0] else jnp.zeros_like(squared) for leaf in part.leaves
    }


def _outer(handling: Handling, part: Part, tape: Tape, pull: Pullback) -> Measured:
    """Of a part that is kept or must be pulled back. Where it merely moves numbers, it need not be
    kept."""
    keeps = part.keeps or not all(handling.sites[path].origin.isometric for path in part.sites)

    def one(records: ByPath, cotangents: ByPath, lifted: ByLeaf) -> tuple[ByLeaf, ByLeaf]:
        sites = (handling.sites[path] for path in part.sites)
        pulled = pull(
            {
                site.path: formed(site, records[site.path], cotangents[site.path], site.varies)
                for site in sites
            }
        )
        gradients = {leaf: each + lifted.get(leaf, 0.0) for leaf, each in pulled.items()}
        norms = {leaf: squared_norm(each) for leaf, each in gradients.items()}
        return norms, {
            leaf: _if_finite(norms[leaf], each) for leaf, each in gradients.items()
        } if keeps else {}

    data = {path: tape.data(path) for path in part.sites}
    own = [
        {path: jnp.moveaxis(each[path], len(handling.sites[path].loops), 0) for path in part.sites}
        for each in (data, tape.cotangents)
    ]
    lifted = {
        leaf: tape.lifted[leaf].astype(jnp.float32) for leaf in part.leaves if leaf in tape.lifted
    }
    squared, held = per_example(one, *own, lifted)
    if not keeps:
        sites = (handling.sites[path] for path in part.sites)
        error = sum(
            rounding(site, tape.data(site.path), tape.cotangents[site.path], site.varies)
            for site in sites
        )
        squared = {leaf: (jnp.sqrt(each) + error) ** 2 for leaf, each in squared.items()}
    return Measured(part, squared, pull, held)


def each_example(
    handling: Handling, function: Callable[[list[Array]], PyTree], batch: Sequence[Array]
) -> PyTree:
    """`function(example)` for every example: vmap, but one by one where that would let examples
    touch each other.

    On some devices vmap turns convolutions with a kernel per example into one whose kernel holds
    zeros for all the others, and zero times NaN or infinity is NaN.
    """
    if handling.convolved:
        return lax.map(function, list(batch))
    return jax.vmap(function)(list(batch))


def _weighted(handling: Handling, path: Path, tape: Tape, factors: Float[Array, " b"]) -> Array:
    site = handling.sites[path]
    return scaling.weighted(site.rule, tape.data(path), tape.cotangents[path], factors, site.varies)


def _lifted_sum(leaf: int, tape: Tape, factors: Float[Array, " b"]) -> Array | float:
    return contract(factors, tape.lifted[leaf]) if leaf in tape.lifted else 0.0
