"""The loss again, with every site in the hands of a caller who may tap it, probe it or weigh it.

Everything but the sites is evaluated as it stands, so jit, custom derivatives, conditionals and all
else mean what they meant; scans and rematerialized parts that hold a site are built anew around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Array, PyTree

from sfumato.clip import _jax as J
from sfumato.clip._jax import Jaxpr, JaxprEqn, Literal, Var
from sfumato.clip.chain import Path, Site
from sfumato.clip.trace import Trace

Operand = Any
"""An array, also one of NumPy's, as constants in jaxprs are."""

Meet = Callable[[Site, JaxprEqn, list[Operand], Array, Array | None], tuple[Array, PyTree | None]]
"""(site, equation, operands, the weight that stands for one of them, the site's tap) -> (its value,
a record or None)."""
ByPath = dict[Path, Array]
Records = dict[Path, Any]


@dataclass(frozen=True)
class Replay:
    trace: Trace
    sites: dict[Path, Site]
    meet: Meet

    @cached_property
    def _around(self) -> frozenset[Path]:
        """The equations that hold a site."""
        return frozenset(path[:depth] for path in self.sites for depth in range(1, len(path)))

    def __call__(
        self, leaves: Sequence[Array], example: Sequence[Array], weights: ByPath, taps: ByPath
    ) -> tuple[Array, Records]:
        """The loss, and the records of all sites. Inside scans, weights that vary, taps and records
        are stacked."""
        (loss,), records = self._walk(
            self.trace.jaxpr.jaxpr, self.trace.jaxpr.consts, [*leaves, *example], (), weights, taps
        )
        return loss, records

    def _walk(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Operand],
        args: Sequence[Operand],
        path: Path,
        weights: ByPath,
        taps: ByPath,
    ) -> tuple[list[Operand], Records]:
        env: dict[Var, Operand] = dict(
            zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True)
        )
        records: Records = {}

        def read(atom: Var | Literal) -> Operand:
            return atom.val if isinstance(atom, Literal) else env[atom]

        for position, eqn in enumerate(jaxpr.eqns):
            inputs, here = [read(atom) for atom in eqn.invars], (*path, position)
            if here in self.sites:
                outputs, recorded = self._site(here, eqn, inputs, weights[here], taps.get(here))
            elif here in self._around:
                outputs, recorded = self._enter(eqn, inputs, here, weights, taps)
            else:
                outputs, recorded = J.bind(eqn, inputs), {}
            env |= dict(zip(eqn.outvars, outputs, strict=True))
            records |= recorded
        return [read(atom) for atom in jaxpr.outvars], records

    def _site(
        self, path: Path, eqn: JaxprEqn, inputs: list[Operand], weight: Array, tap: Array | None
    ) -> tuple[list[Operand], Records]:
        value, record = self.meet(self.sites[path], eqn, inputs, weight, tap)
        return [value], {} if record is None else {path: record}

    def _enter(
        self, eqn: JaxprEqn, inputs: list[Operand], path: Path, weights: ByPath, taps: ByPath
    ) -> tuple[list[Operand], Records]:
        jaxpr, consts = J.called(eqn)
        weights, taps = (
            {where: value for where, value in given.items() if where[: len(path)] == path}
            for given in (weights, taps)
        )
        if eqn.primitive is J.SCAN:
            return self._scan(eqn, inputs, path, weights, taps)
        if eqn.primitive is J.REMAT:
            again = J.checkpoint_like(
                eqn,
                lambda args, weights, taps: self._walk(jaxpr, consts, args, path, weights, taps),
            )
            return again(inputs, weights, taps)
        return self._walk(jaxpr, consts, inputs, path, weights, taps)

    def _scan(
        self, eqn: JaxprEqn, inputs: list[Operand], path: Path, weights: ByPath, taps: ByPath
    ) -> tuple[list[Operand], Records]:
        jaxpr, constants = J.called(eqn)
        consts, carries = J.scan_parts(eqn)
        depth = [loop.path for loop in self.sites[next(iter(weights))].loops].index(path)
        stacked = {
            where: value for where, value in weights.items() if self.sites[where].varies[depth]
        }
        same = {where: value for where, value in weights.items() if where not in stacked}

        def body(
            carry: list[Array], each: tuple[list[Array], ByPath, ByPath]
        ) -> tuple[list[Operand], tuple]:
            xs, varying, tapped = each
            args = [*inputs[:consts], *carry, *xs]
            outputs, records = self._walk(jaxpr, constants, args, path, same | varying, tapped)
            return outputs[:carries], (outputs[carries:], records)

        init, xs = inputs[consts : consts + carries], inputs[consts + carries :]
        carry, (ys, records) = J.scan_like(eqn, body, init, (xs, stacked, taps))
        return [*carry, *ys], records


def evaluate(site: Site, eqn: JaxprEqn, operands: Sequence[Operand], weight: Array) -> Array:
    """The value of the equation, the weight cast to what the program has there."""
    values = list(operands)
    values[site.rule.operand] = weight.astype(J.aval(eqn.invars[site.rule.operand]).dtype)
    return J.bind(eqn, values)[0]
