"""Bytes that a program holds at once, counted on its trace: nothing is compiled, so the program may be
one for a device that is not here.

What a compiler does is modeled by three rules:

* Elementwise operations, broadcasts and moves that one operation reads are computed there. Their values lie in
  memory only where several read them, where a product, a convolution, a loop or the like does, or
  where they are results; until then what they are made from is held.
* Reductions read in this way too; their results, and all others, lie in memory.
* A value is held from its equation, in the order of the trace, to the last that reads it. A loop holds
  one iteration beside what it gives out.

XLA's figures are met within 0.7 to 1.5: for a GPU (ViT-B/16, 128 images) 0.9; on CPUs, where it copies more, see
`tests/test_live_memory.py`.

A trace for `BATCH` examples, a prime number that no network has among its sizes, tells which values grow with the batch.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp

from sfumato.networks.image_cost import inside

BATCH = 211

_READS = [
    "dot_general",
    "conv_general_dilated",
    "scan",
    "while",
    "cond",
    "gather",
    "scatter",
    "scatter-add",
    "scatter_add",
    "sort",
    "top_k",
    "select_and_scatter_add",
    "reduce_window",
    "reduce_window_max",
    "reduce_window_sum",
    "cumsum",
    "cumlogsumexp",
    "fft",
    "optimization_barrier",
    "pure_callback",
    "io_callback",
    "custom_call",
]
"""Operations whose operands lie in memory, by the names of their primitives."""
_REDUCES = (
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "argmax",
    "argmin",
    "reduce_and",
    "reduce_or",
)


class Held(NamedTuple):
    """Bytes: whatever the batch, and for each example of it."""

    fixed: float
    each: float

    def of(self, examples: int) -> float:
        return self.fixed + self.each * examples


class _Operation(NamedTuple):
    kind: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    transient: Held


@dataclass
class _Program:
    """A trace without calls: values are numbered."""

    sizes: list[Held] = field(default_factory=list)
    operations: list[_Operation] = field(default_factory=list)

    def value(self, aval: Any) -> int:
        self.sizes.append(_size(aval))
        return len(self.sizes) - 1

    def inline(self, jaxpr: Any, arguments: Sequence[int]) -> list[int]:
        known = dict(zip(jaxpr.invars, arguments, strict=True))
        known |= {var: self.value(var.aval) for var in jaxpr.constvars}

        def read(atom: Any) -> int:
            return self.value(atom.aval) if hasattr(atom, "val") else known[atom]

        for eqn in jaxpr.eqns:
            reads = [read(atom) for atom in eqn.invars]
            inner = list(inside(eqn))
            name = eqn.primitive.name
            if (
                len(inner) == 1
                and name not in ("scan", "while")
                and len(inner[0].invars) == len(reads)
            ):
                written = self.inline(inner[0], reads)
            else:
                written = [self.value(var.aval) for var in eqn.outvars]
                bodies = [_peak(each, arguments_too=name == "scan") for each in inner]
                transient = max(bodies, key=lambda held: held.of(BATCH), default=Held(0.0, 0.0))
                kind = (
                    "reads"
                    if inner or name in _READS
                    else "reduces"
                    if name in _REDUCES
                    else "light"
                )
                self.operations.append(_Operation(kind, tuple(reads), tuple(written), transient))
            known |= dict(zip(eqn.outvars, written, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def held(jaxpr: Any) -> Held:
    """The most that a program holds at once, arguments and results included. jaxpr: traced for `BATCH`
    examples."""
    return _peak(jaxpr, arguments_too=True)


def _peak(jaxpr: Any, arguments_too: bool) -> Held:
    program = _Program()
    arguments = [program.value(var.aval) for var in jaxpr.invars]
    results = program.inline(jaxpr, arguments)
    operations = _used(program.operations, results)
    stored = _stored(operations, {*arguments, *results})
    last = _last_reads(operations, stored, results)
    alive = {value for value in arguments if arguments_too}
    total = _sum(program.sizes[value] for value in alive)
    peak = total
    ends: dict[int, list[int]] = {}
    for value, time in last.items():
        ends.setdefault(time, []).append(value)
    for time, operation in enumerate(operations):
        born = [value for value in operation.writes if value in stored and value not in alive]
        dying = [value for value in ends.get(time, []) if value not in arguments]
        # An elementwise operation writes over what it was the last to read.
        over = [each for each in dying if operation.kind == "light" and each in alive]
        total = _sum((total, *(program.sizes[each] for each in born)), over, program.sizes)
        alive |= set(born)
        alive -= set(over)
        peak = max(peak, _sum((total, operation.transient)), key=lambda held: held.of(BATCH))
        gone = [each for each in dying if each in alive]
        total = _sum((total,), gone, program.sizes)
        alive -= set(gone)
    return peak


def _used(operations: Sequence[_Operation], results: Sequence[int]) -> list[_Operation]:
    """Those whose values somebody reads."""
    wanted, kept = set(results), []
    for operation in reversed(operations):
        if wanted & set(operation.writes):
            wanted |= set(operation.reads)
            kept.append(operation)
    return kept[::-1]


def _stored(operations: Sequence[_Operation], ends: set[int]) -> set[int]:
    """The values that lie in memory."""
    found = set(ends)
    readers = Counter(value for operation in operations for value in set(operation.reads))
    for operation in operations:
        if operation.kind == "reads":
            found |= {*operation.reads, *operation.writes}
        elif operation.kind == "reduces":
            found |= {*operation.writes}
        else:
            found |= {value for value in operation.writes if readers[value] > 1}
    return found


def _last_reads(
    operations: Sequence[_Operation], stored: set[int], results: Sequence[int]
) -> dict[int, int]:
    """When each stored value is read for the last time; results are, after the end."""
    made_from: dict[int, frozenset[int]] = {}
    last: dict[int, int] = {}

    def roots(value: int) -> frozenset[int]:
        return frozenset((value,)) if value in stored else made_from.get(value, frozenset())

    for time, operation in enumerate(operations):
        own = frozenset().union(*map(roots, operation.reads))
        made_from |= dict.fromkeys(operation.writes, own)
        if any(value in stored for value in operation.writes):
            last |= dict.fromkeys((*own, *operation.writes), time)
    return last | dict.fromkeys(results, len(operations))


def _sum(sizes: Any, gone: Sequence[int] = (), of: Sequence[Held] = ()) -> Held:
    added = list(sizes)
    return Held(
        sum(each.fixed for each in added) - sum(of[each].fixed for each in gone),
        sum(each.each for each in added) - sum(of[each].each for each in gone),
    )


def _size(aval: Any) -> Held:
    shape = getattr(aval, "shape", ())
    try:
        width = jnp.dtype(aval.dtype).itemsize
    except (AttributeError, TypeError):  # a random key, a token
        width = 8
    count = math.prod(shape)
    if count and count % BATCH == 0:
        return Held(0.0, float(count // BATCH * width))
    return Held(float(count * width), 0.0)
