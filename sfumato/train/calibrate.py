"""The least noise that keeps a method's promise."""

from typing import Any, TypeVar

from sfumato.core.checks import privacy_target
from sfumato.core.errors import ArgumentError
from sfumato.privacy.calibration import noise_multiplier
from sfumato.privacy.events import Tally
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation
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
    Raises ArgumentError where no noise can keep the promise, or the method's noise cannot be set.
    """
    own: Any = method
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
