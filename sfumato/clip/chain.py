"""The parameter-only part of a trace: where parameters first meet data, and the values they meet it
with.

Walking the jaxpr of the single-example loss, every value is either *known* (computed from
parameters and constants alone) or data. An equation that reads both is a meeting. If a rule covers
it (`rules/`), it is a **site**: its known operand is the site's *weight*, and the gradient of a
leaf is the pullback of the gradients of such weights through the known part. For any other meeting
the leaves behind its known operands are **lifted**: differentiated example by example.

The body of a scan is walked once, its scanned inputs standing for all iterations at once (vmap): a
weight that depends on them is stacked in front, one that does not is the same in every iteration.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sfumato.clip import _jax as J
from sfumato.clip._jax import Jaxpr, JaxprEqn, Literal, Var
from sfumato.clip.origin import Origin, Standardization, after, is_structural
from sfumato.clip.rules import Rule, rule_for
from sfumato.clip.standardized import recognized
from sfumato.clip.trace import Trace

Path = tuple[int, ...]
"""Positions of equations, from the outermost jaxpr inwards."""


class Loop(NamedTuple):
    """A scan equation and its length."""

    path: Path
    length: int


@dataclass(frozen=True)
class Known:
    """value: an array, also one of NumPy's, as constants in jaxprs are."""

    value: Any
    origin: Origin


Reads = dict[Path, frozenset[int]]
"""For each equation that reads leaves, or gives something known, the leaves behind what it reads."""

Value = Known | None
"""None stands for data."""


@dataclass(frozen=True)
class Site:
    """rule: what the equation is. origin: of its weight. loops: the enclosing scans, outermost
    first. output: its value's shape and dtype, over all iterations. rematerialized: under
    `jax.checkpoint`.
    """

    path: Path
    rule: Rule
    origin: Origin
    loops: tuple[Loop, ...]
    output: jax.ShapeDtypeStruct
    rematerialized: bool = False

    @property
    def varies(self) -> tuple[bool, ...]:
        """Per enclosing scan, whether its iterations have weights of their own."""
        return tuple(depth in self.origin.loops for depth in range(len(self.loops)))


@dataclass(frozen=True)
class Only:
    """Of a trace that was walked before, the equations that make weights of these leaves."""

    reads: Reads
    leaves: frozenset[int]

    @cached_property
    def _by_jaxpr(self) -> dict[Path, tuple[list[int], list[int]]]:
        """For the jaxpr in the equation of a path: positions of those that read the leaves, and of those
        that read none."""
        found: dict[Path, tuple[list[int], list[int]]] = {}
        for path, behind in self.reads.items():
            if not behind or not behind.isdisjoint(self.leaves):
                found.setdefault(path[:-1], ([], []))[not behind].append(path[-1])
        return found

    def positions(self, jaxpr: Jaxpr, path: Path) -> list[int]:
        """Those that read the leaves, and the constants that these need."""
        chosen, constants = self._by_jaxpr.get(path, ([], []))
        needed = {id(atom) for at in chosen for atom in jaxpr.eqns[at].invars}
        needed.update(map(id, jaxpr.outvars))
        chosen = list(chosen)
        for at in reversed(constants):
            eqn = jaxpr.eqns[at]
            if not needed.isdisjoint(map(id, eqn.outvars)):
                chosen.append(at)
                needed.update(map(id, eqn.invars))
        return sorted(chosen)


@dataclass
class Meetings:
    """What a walk found. weights: by site, in float32 where nothing but moving happened to the
    leaf. lifted: leaves; met: where they were. convolved: some convolution has a kernel of its own
    for each example. reads: of the equations walked. only: some are walked, the values of the
    others count as data.
    """

    sites: dict[Path, Site] = field(default_factory=dict)
    weights: dict[Path, Array] = field(default_factory=dict)
    lifted: set[int] = field(default_factory=set)
    met: dict[str, set[int]] = field(default_factory=dict)
    convolved: bool = False
    reads: Reads = field(default_factory=dict)
    only: "Only | None" = None


def find_meetings(trace: Trace, leaves: Sequence[Array]) -> Meetings:
    """Walk the trace. Differentiable in `leaves`: `weights` is the function J of this module's
    text."""
    return _found(Meetings(), trace, leaves)


def weights_of(trace: Trace, reads: Reads, leaves: dict[int, Array]) -> dict[Path, Array]:
    """The weights that come from these leaves alone. reads: of `find_meetings`. Only what these leaves
    need is walked: so all weights of a network, leaf by leaf, take as long as one walk of the trace and
    not as its square."""
    every = [leaves.get(index) for index in range(len(trace.names))]
    return _found(Meetings(only=Only(reads, frozenset(leaves))), trace, every).weights


def _found(found: Meetings, trace: Trace, leaves: Sequence[Array | None]) -> Meetings:
    """A leaf that is None is taken for data."""
    known: list[Value] = [
        None if leaf is None else Known(leaf.astype(jnp.float32), Origin.of_leaf(index, leaf.shape))
        for index, leaf in enumerate(leaves)
    ]
    jaxpr = trace.jaxpr.jaxpr
    args = [*known, *[None] * (len(jaxpr.invars) - len(known))]
    _lift(found, _walk(found, jaxpr, trace.jaxpr.consts, args, (), ()), "the value of the loss")
    return found


def _walk(
    found: Meetings,
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Value],
    path: Path,
    loops: tuple[Loop, ...],
) -> list[Value]:
    env: dict[Var, Value] = dict(zip(jaxpr.invars, args, strict=True))
    env |= {var: Known(const, Origin()) for var, const in zip(jaxpr.constvars, consts, strict=True)}

    def read(atom: Var | Literal) -> Value:
        return Known(atom.val, Origin()) if isinstance(atom, Literal) else env.get(atom)

    only = found.only
    for position in range(len(jaxpr.eqns)) if only is None else only.positions(jaxpr, path):
        eqn, here = jaxpr.eqns[position], (*path, position)
        inputs = [read(atom) for atom in eqn.invars]
        if eqn.primitive in (J.JIT, J.REMAT):
            outputs = _walk(found, *J.called(eqn), inputs, here, loops)
            if eqn.primitive is J.REMAT:
                _mark_rematerialized(found, here)
            # In this order: to recognize a program takes long, to look at its inputs nothing.
            if (
                inputs
                and _is_leaf(inputs[0])
                and (epsilon := recognized(eqn)) is not None
                and all(_is_leaf(each) for each in inputs[: 1 + (epsilon == 0)])
            ):
                outputs = [_standardized(outputs[0], inputs, epsilon)]
        elif all(each is not None for each in inputs):
            outputs = _evaluate(eqn, inputs)
        elif eqn.primitive is J.SCAN:
            outputs = _walk_scan(found, eqn, inputs, here, loops)
        else:
            _meet(found, eqn, inputs, here, loops)
            outputs = [None] * len(eqn.outvars)
        if only is None:
            _note(found, here, inputs, outputs)
        env |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _note(found: Meetings, path: Path, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
    of_leaves = frozenset[int]().union(
        *(each.origin.sources for each in inputs if each is not None)
    )
    if of_leaves or any(each is not None for each in outputs):
        found.reads[path] = of_leaves


def _evaluate(eqn: JaxprEqn, inputs: Sequence[Value]) -> list[Value]:
    """A parameter-only equation. Moving equations keep float32 even where the program casts to half
    precision."""
    known = [each for each in inputs if each is not None]
    origin = after(eqn, [each.origin for each in known])
    if is_structural(eqn) and eqn.primitive is J.CONVERT and origin.sources:
        return [Known(known[0].value, origin)]
    values = [each.value for each in known]
    if not is_structural(eqn):
        values = [_typed(value, atom) for value, atom in zip(values, eqn.invars, strict=True)]
    return [Known(value, origin) for value in J.bind(eqn, values)]


def _typed(value: Any, atom: Var | Literal) -> Any:
    wanted = J.aval(atom).dtype
    return value if not hasattr(value, "dtype") or value.dtype == wanted else value.astype(wanted)


def _meet(
    found: Meetings, eqn: JaxprEqn, inputs: Sequence[Value], path: Path, loops: tuple[Loop, ...]
) -> None:
    """An equation that reads data, and perhaps parameters."""
    rule = rule_for(eqn, [each is not None and bool(each.origin.sources) for each in inputs])
    if rule is None:
        kernel = inputs[1] if eqn.primitive is J.CONV else None
        found.convolved |= any(map(_is_convolution, J.within(eqn))) and (
            kernel is None or bool(kernel.origin.sources)
        )
        _lift(found, inputs, eqn.primitive.name)
        return
    weight = inputs[rule.operand]
    assert weight is not None
    aval = J.aval(eqn.outvars[0])
    output = jax.ShapeDtypeStruct((*(loop.length for loop in loops), *aval.shape), aval.dtype)
    found.sites[path] = Site(path, rule, weight.origin, loops, output)
    found.weights[path] = weight.value


def _is_leaf(value: Value) -> bool:
    return value is not None and value.origin.untouched and not value.origin.loops


def _standardized(output: Value, inputs: Sequence[Value], epsilon: float) -> Value:
    assert output is not None
    kernel, *gain = (
        min(each.origin.sources) for each in inputs if each is not None and each.origin.sources
    )
    made = Standardization(kernel, gain[0] if gain else None, epsilon)
    return replace(output, origin=Origin(frozenset((kernel, *gain)), standardized=made))


def _mark_rematerialized(found: Meetings, path: Path) -> None:
    inside = {
        where: replace(site, rematerialized=True)
        for where, site in found.sites.items()
        if where[: len(path)] == path
    }
    found.sites.update(inside)


def _is_convolution(eqn: JaxprEqn) -> bool:
    return eqn.primitive is J.CONV


def _lift(found: Meetings, values: Sequence[Value], where: str) -> None:
    for value in values:
        if value is not None and value.origin.sources:
            found.lifted |= value.origin.sources
            found.met.setdefault(where, set()).update(value.origin.sources)


def _walk_scan(
    found: Meetings, eqn: JaxprEqn, inputs: Sequence[Value], path: Path, loops: tuple[Loop, ...]
) -> list[Value]:
    """Known carries become data after the first iteration, so their leaves are lifted; so are known
    outputs."""
    consts, carries = J.scan_parts(eqn)
    depth, inner = len(loops), Meetings(only=found.only)
    jaxpr, constants = J.called(eqn)
    _lift(found, inputs[consts : consts + carries], "the first carry of a scan")
    scanned = {
        i: each for i, each in enumerate(inputs) if i >= consts + carries and each is not None
    }

    def iteration(slices: dict[int, Array]) -> tuple[dict[Path, Array], dict[Path, Array]]:
        """The weights that vary over iterations, and those that do not."""
        nonlocal inner
        inner = Meetings(only=found.only)
        args: list[Value] = [*inputs[:consts], *[None] * (len(inputs) - consts)]
        for i, each in scanned.items():
            args[i] = Known(slices[i], each.origin.scanned(depth))
        outputs = _walk(
            inner, jaxpr, constants, args, path, (*loops, Loop(path, eqn.params["length"]))
        )
        _lift(inner, outputs, "the output of a scan")
        varies = {where for where, site in inner.sites.items() if depth in site.origin.loops}
        return _only(inner.weights, varies), _only(inner.weights, inner.sites.keys() - varies)

    slices = {i: each.value for i, each in scanned.items()}
    stacked, same = jax.vmap(iteration, out_axes=(0, None))(slices) if slices else iteration(slices)
    found.weights |= stacked | same
    found.sites |= inner.sites
    found.reads |= inner.reads
    found.lifted |= inner.lifted
    found.convolved |= inner.convolved
    for where, leaves in inner.met.items():
        found.met.setdefault(where, set()).update(leaves)
    return [None] * len(eqn.outvars)


def _only(weights: dict[Path, Array], wanted: Set[Path]) -> dict[Path, Array]:
    return {where: weight for where, weight in weights.items() if where in wanted}
