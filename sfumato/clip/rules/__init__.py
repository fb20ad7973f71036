"""How the gradient of a weight is made of an activation and a cotangent, one file per kind of
equation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import jax.numpy as jnp

from sfumato.clip._jax import GATHER, JaxprEqn, aval
from sfumato.clip.arithmetic import arithmetic_of
from sfumato.clip.rules.base import Rule
from sfumato.clip.rules.conv import ConvRule
from sfumato.clip.rules.dot import DotRule
from sfumato.clip.rules.gather import GatherRule

RULES: tuple[type[Rule], ...] = (DotRule, ConvRule, GatherRule)


def rule_for(eqn: JaxprEqn, from_params: Sequence[bool]) -> Rule | None:
    """The rule for an equation that reads data, or None; from_params: which of its operands come
    from parameters alone."""
    numbers = [aval(atom).dtype for atom in (*eqn.invars, *eqn.outvars)]
    real = [jnp.issubdtype(dtype, jnp.floating) for dtype in numbers]
    if not all(real) and not (eqn.primitive is GATHER and real == [True, False, True]):
        return None  # a complex number has a real and an imaginary part, an integer no gradient: for JAX itself
    found = (kind.match(eqn, list(from_params)) for kind in RULES)
    rule = next((rule for rule in found if rule is not None), None)
    if rule is None:
        return None
    arithmetic = arithmetic_of(eqn, rule.sizes((), ()).positions)
    made: Rule = replace(cast(Any, rule), arithmetic=arithmetic)
    return made


__all__ = ["Rule", "rule_for"]
