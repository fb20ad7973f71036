"""One-step replay: every step of a procedure, many times over, with one example and without it.

For procedures that have no loss to put a gradient canary into, such as the solvers on features. Two
instances of the procedure measure the same steps, one on the data set, the other on the same with
one example more; the attacker knows both sums, since it knows everybody else and all that was
released before. Only the noise is unknown. The sums of a step are measured once and released often,
with the shipped mechanism under fresh keys, with or without the example by one coin per replay.
Projected on the difference D of the two sums, the release is N(0, (sigma S)^2) or N(|D|, (sigma
S)^2), and the log likelihood ratio, summed over the steps, is the attacker's score. The procedure
itself goes on from the first release without the example.
"""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from sfumato.audit.result import AuditResult, Claim
from sfumato.audit.verdicts import by_clopper_pearson, by_family
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.trees import flat
from sfumato.train.loop import Procedure, release_name

ATTACK = "whitebox"


def replay(
    without: Procedure,
    having: Procedure,
    claim: Claim,
    stream: np.random.Generator,
    *,
    repeats: int = 2000,
    advance: Callable[[int], None] = lambda done: None,
) -> list[AuditResult]:
    """Bound epsilon from `repeats` replays of every step. having: the procedure on one example more
    than `without`.

    Raises ArgumentError for procedures that sample: the two would not draw the same batches.
    """
    began = time.monotonic()
    included = stream.random(repeats) < 0.5
    keys = [SecretKey(stream.bytes(32)) for _ in range(repeats)]
    scores, state, shifts = np.zeros(repeats), without.start(), []
    for step in range(without.steps):
        if not (event := without.event(step)).exact:
            raise ArgumentError(
                "procedure",
                without.name,
                "it samples, so it cannot be replayed; audit it by one-run",
            )
        sums = [each.measure(state, step, keys[0].at(each.name)) for each in (without, having)]
        difference = flat(sums[1].value) - flat(sums[0].value)
        length, base = float(np.linalg.norm(difference)), flat(sums[0].value)
        scale = event.noise_multiplier * sums[0].sensitivity.add_or_remove
        shifts.append(length / sums[0].sensitivity.add_or_remove)
        name = release_name(without, step)
        for r, key in enumerate(keys):
            released = without.mechanism(step)(sums[int(included[r])], key.at(name))
            scores[r] += ((flat(released) - base) @ difference - length**2 / 2) / scale**2
        state = without.absorb(state, step, without.mechanism(step)(sums[0], keys[0].at(name)))
        advance(step + 1)
    return _verdicts(scores, included, claim, time.monotonic() - began, min(shifts))


def _verdicts(
    scores: Float[np.ndarray, " n"],
    included: Bool[np.ndarray, " n"],
    claim: Claim,
    seconds: float,
    least: float,
) -> list[AuditResult]:
    found = [
        by_family(ATTACK, scores, included, claim, seconds, threshold=0.0),
        by_clopper_pearson(ATTACK, scores, included, claim, seconds),
    ]
    for each in found:
        each.details["least share of the sensitivity"] = least
    return found
