"""Which leaf is handled how: from the meetings of a trace to its parts.

A part is a set of leaves that share weights, with the sites of those weights. Its per-example
gradient is the pullback of the sites' V_i (`rules/base.py`) plus, for lifted leaves, what automatic
differentiation gives example by example.

* gram:   the weights are moved leaves of disjoint regions (`origin.py`), so norms are those of the V_i, taken without
          forming them; or the pullback is that of a standardized convolution (`standardized.py`)
* outer:  V_i is formed, one part at a time, and pulled back to the leaves; either kept for the sum or formed again in it
* lifted: no site; the leaf's gradient is held for all examples (biases, scales, whatever no rule
  covers)
* unused: the loss does not depend on the leaf
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from sfumato.clip.arithmetic import platform
from sfumato.clip.chain import Meetings, Path, Reads, Site, find_meetings
from sfumato.clip.rules.base import Sizes
from sfumato.clip.standardized import covers
from sfumato.clip.trace import Trace

KEEP = 5.0
"""V_i is kept if it takes at most so many times the memory of the activations and cotangents that
it is made of."""


@dataclass(frozen=True)
class Part:
    """leaves: indices. sites: may be none. direct: no pullback is needed for norms. standardized:
    the norm of the pullback is known. keeps: V_i is held until the sum.
    """

    leaves: tuple[int, ...]
    sites: tuple[Path, ...]
    how: str
    direct: bool = True
    standardized: bool = False
    keeps: bool = False


@dataclass(frozen=True)
class Handling:
    trace: Trace
    sites: dict[Path, Site]
    lifted: frozenset[int]
    met: dict[str, set[int]]
    convolved: bool
    reads: Reads
    parts: tuple[Part, ...]

    def method(self, asked: str) -> str:
        """What "auto" stands for: two passes if the loss asks for memory to be saved where
        parameters meet data."""
        if asked != "auto":
            return asked
        return (
            "two_pass"
            if any(site.rematerialized for site in self.sites.values())
            else "book_keeping"
        )

    def sizes(self, path: Path) -> Sizes:
        site = self.sites[path]
        return site.rule.sizes([loop.length for loop in site.loops], site.varies)


def handle(trace: Trace) -> Handling:
    """By abstract evaluation; nothing is computed."""
    found = Meetings()

    def walk(leaves: list[jax.Array]) -> list[jax.Array]:
        nonlocal found
        found = find_meetings(trace, leaves)
        return list(found.weights.values())

    jax.eval_shape(walk, [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in trace.shapes])
    bare = Handling(
        trace, found.sites, frozenset(found.lifted), found.met, found.convolved, found.reads, ()
    )
    return replace(
        bare, parts=tuple(_part(bare, leaves) for leaves in _components(found, len(trace.shapes)))
    )


def _components(found: Meetings, count: int) -> list[tuple[int, ...]]:
    """Leaves joined by a common weight, in the order of their first leaf."""
    together = [{leaf} for leaf in range(count)]
    for site in found.sites.values():
        joined = set().union(*(together[leaf] for leaf in site.origin.sources))
        for leaf in joined:
            together[leaf] = joined
    return list(dict.fromkeys(tuple(sorted(leaves)) for leaves in together))


def _part(handling: Handling, leaves: tuple[int, ...]) -> Part:
    paths = tuple(
        path for path, site in handling.sites.items() if site.origin.sources & set(leaves)
    )
    if not paths:
        return Part(leaves, (), "lifted" if handling.lifted & set(leaves) else "unused")
    origins = [handling.sites[path].origin for path in paths]
    apart = all(
        a.disjoint(b)
        for i, a in enumerate(origins)
        for b in origins[:i]
        if a.isometric and b.isometric
    )
    direct = (
        apart and all(origin.isometric for origin in origins) and not handling.lifted & set(leaves)
    )
    standardized = (
        len(paths) == 1
        and origins[0].standardized is not None
        and covers(handling.sites[paths[0]].rule)
    )
    standardized = (
        standardized and origins[0].sources == set(leaves) and not handling.lifted & set(leaves)
    )
    # The Gram form reads the output of the convolution, which halves and accelerators (TF32) round.
    exact = (
        standardized
        and handling.sites[paths[0]].output.dtype == jnp.float32
        and platform() == "cpu"
    )
    if (direct or exact) and all(handling.sizes(path).gram_is_cheaper for path in paths):
        return Part(leaves, paths, "gram", direct, standardized)
    # Elsewhere the pullback may enlarge, by no known factor, what rounding changes: only what is
    # kept is safe.
    known = standardized or all(origin.isometric for origin in origins)
    return Part(
        leaves,
        paths,
        "outer",
        direct,
        standardized,
        not known or _is_light(handling, leaves, paths),
    )


def _is_light(handling: Handling, leaves: tuple[int, ...], paths: tuple[Path, ...]) -> bool:
    held = sum(int(np.prod(handling.trace.shapes[leaf])) for leaf in leaves)
    return held <= KEEP * sum(handling.sizes(path).tape for path in paths)
