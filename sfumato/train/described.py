"""What is known of a procedure before it runs: what a run directory writes down of it, and compares
when the same line runs again.

A `Procedure` has name, steps, start, event, mechanism, measure, absorb. To leave a run directory
(`sf.run(procedure, out=...)`) it also has

    n                     the number of its private examples, a public number

and it may have

    guarantee             the `Guarantee` it was calibrated for
    releases              its releases in words, for the report
    sampler               for the report
    contribution          what one example may add to a sum, in norm; for the report
    example               shapes of one example; for the report
    describe()            public facts, JSON, all of which must be the same when the run goes on
    fingerprint(mac)      `mac` of a digest of its private examples
    stamp(mac)            as fingerprint, of where their bytes lie, found without reading them; None where that is not known
    decoder               what makes pixels of their bytes; None where nothing is decoded
    spoiled()             which of its examples hold NaN or infinity and count as nothing (`data/finite.py`)
    released(state)       the tree that is published at the end; without it, the whole state
    with_noise(noise_multiplier, guarantee)    itself with other noise, for `sf.calibrate`
    unprotected(guarantee)    itself without noise and clip, for `sf.calibrate(method, math.inf)`
"""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.core.trees import by_name
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.releases import Release
from sfumato.train.loop import Procedure, State


def examples_of(procedure: Procedure) -> int:
    """n. Raises ArgumentError for a procedure that does not say."""
    n = getattr(procedure, "n", None)
    if n is None:
        raise ArgumentError(
            "method",
            procedure.name,
            "give it an attribute n, the number of private examples, which counts as public",
        )
    return whole("n", n)


def guarantee_of(procedure: Procedure, given: Guarantee | None) -> Guarantee:
    """What was given, or what it was calibrated for. Raises ArgumentError for neither."""
    own = given or getattr(procedure, "guarantee", None)
    if own is None:
        raise ArgumentError(
            "guarantee",
            None,
            "nothing is promised yet: calibrate the method (sf.calibrate), or give "
            "guarantee=sf.Guarantee(epsilon=..., delta=...) for noise of your own",
        )
    return own


def releases_of(procedure: Procedure) -> tuple[Release, ...]:
    """All releases, in its own words if it has some."""
    own = getattr(procedure, "releases", None)
    if own is not None:
        return tuple(own)
    counted = Counter(procedure.event(step) for step in range(procedure.steps))
    what = "a sum over the examples that take part, each contribution bounded"
    return tuple(
        Release(f"{procedure.name} {k}" if len(counted) > 1 else procedure.name, count, event, what)
        for k, (event, count) in enumerate(counted.items(), start=1)
    )


def released(procedure: Procedure, state: State) -> PyTree:
    """What is published of the last state."""
    own = getattr(procedure, "released", None)
    return state if own is None else own(state)


def fingerprint_of(procedure: Procedure, mac: Callable[[bytes], str]) -> str | None:
    """Of its private examples; None where it has no way to tell."""
    own = getattr(procedure, "fingerprint", None)
    return None if own is None else own(mac)


def description(procedure: Procedure) -> dict[str, Any]:
    """Public facts of a procedure, as JSON. Two procedures of equal descriptions may still differ,
    in a constant of the loss, say."""
    kind = type(procedure)
    describe: Any = getattr(procedure, "describe", None)
    own: dict[str, Any] = {} if describe is None else facts(describe())
    return {
        "name": procedure.name,
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "n": examples_of(procedure),
        "steps": procedure.steps,
        "state": shapes(jax.eval_shape(lambda: procedure.start())),
        **own,
    }


def shapes(tree: PyTree) -> dict[str, str]:
    """{"w": "5x3 float32"}, of every leaf."""
    return {
        name: f"{'x'.join(map(str, jnp.shape(leaf))) or 'scalar'} {jnp.result_type(leaf)}"
        for name, leaf in by_name(tree).items()
    }


def program(function: Callable[..., Any], *arguments: PyTree) -> str:
    """A hash of what a function computes of arguments of these shapes: of the text of its jaxpr,
    with the numbers that are written in it (such as a learning rate), and with the shapes, not the
    numbers, of the arrays it closes over. Equal in every process with the same version of JAX."""
    text = re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(function)(*arguments)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def facts(thing: Any) -> Any:
    """A sampler, a mechanism or another dataclass as JSON: its class and its fields."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        own = {
            each.name: getattr(thing, each.name) for each in dataclasses.fields(thing) if each.init
        }
        return {"kind": type(thing).__name__} | {
            name: facts(value) for name, value in own.items() if value is not None
        }
    if isinstance(thing, np.ndarray | np.generic | jax.Array):
        return np.asarray(thing).tolist()
    if isinstance(thing, list | tuple):
        return [facts(each) for each in thing]
    if callable(thing):
        return f"{thing.__module__}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    if isinstance(thing, dict):
        return {str(name): facts(value) for name, value in thing.items()}
    return thing if isinstance(thing, int | float | str | bool | None) else str(thing)
