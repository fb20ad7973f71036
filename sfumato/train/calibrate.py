"""The least noise that keeps a method's promise."""

import math
from typing import Any, TypeVar

from sfumato.core.checks import privacy_target
from sfumato.core.errors import ArgumentError
from sfumato.privacy.calibration import noise_multiplier
from sfumato.privacy.events import Tally
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation
from sfumato.privacy.not_private import RULED_BY
from sfumato.privacy.releases import tally_of
from sfumato.train.described import examples_of, releases_of

Method = TypeVar("Method")

_found: dict[Any, float] = {}
"""Noise multipliers by what they are for: pricing sampled releases takes seconds."""


def calibrate(
    method: Method,
    epsilon: float,
    delta: float | None = None,
    *,
    relation: Relation = ADD_OR_REMOVE,
    unit: str = "example",
) -> Method:
    """A new method that is like `method`, with the least noise for which all its releases together
    are (epsilon, delta)-DP. Nothing is computed on data, nothing is spent.

    method: `DPSGD`, or any procedure with `with_noise` (see `train/described.py`). delta: None takes
    the largest power of ten that is at most 1 / (10 n) and 1e-5. unit: a noun for one example.
    epsilon: math.inf takes noise and clip away from what RULED_BY would give, and promises nothing: for
    baselines and debugging. Raises ArgumentError where no noise can keep the promise, or the method's
    noise cannot be set.
    """
    own: Any = method
    if epsilon == math.inf:
        return _unprotected(
            method, privacy_target(epsilon, delta, examples_of(own), True)[1], relation, unit
        )
    if not hasattr(own, "with_noise"):
        raise ArgumentError(
            "method",
            type(method).__name__,
            "its noise cannot be set: give it with_noise(noise_multiplier, guarantee)",
        )
    guarantee = Guarantee(*privacy_target(epsilon, delta, examples_of(own)), relation, unit)

    def tally_at(sigma: float) -> Tally:
        return tally_of(releases_of(own.with_noise(sigma)))

    # These points tell which family of releases it is; the ledger prices what is really run.
    family = [frozenset(tally_at(2.0**k).items()) for k in range(-8, 9)]
    key = (*family, guarantee.epsilon, guarantee.delta, relation)
    if key not in _found:
        _found[key] = noise_multiplier(tally_at, guarantee.epsilon, guarantee.delta, relation)
    found: Method = own.with_noise(_found[key], guarantee)
    return found


def _unprotected(method: Method, delta: float, relation: Relation, unit: str) -> Method:
    """Without noise and clip, but with the settings that it has at `RULED_BY`."""
    if not hasattr(method, "unprotected"):
        raise ArgumentError(
            "method",
            type(method).__name__,
            "its noise and clip cannot be taken away: give it unprotected(guarantee)",
        )
    ruled: Any = calibrate(method, RULED_BY, delta, relation=relation, unit=unit)
    found: Method = ruled.unprotected(Guarantee(math.inf, delta, relation, unit))
    return found
