"""What is planned where nothing is promised (`privacy/not_private.py`): `--epsilon inf`, `--rehearse B`.

Without noise: all that hangs on the budget is as at `RULED_BY`, no sum gets noise, none is clipped.

Rehearsal (Sander, Stock & Sablayrolles 2022, arXiv 2210.03403, Sec. 4): what DP-SGD adds to the parameters
in a step is C sigma / B times a normal number, so with

    B -> B',    sigma -> sigma B' / B,    the same steps, learning rate and clip,

the noise of every step is what it was, at B' / B of the work. Only the gradient's own noise is that of a
smaller batch. q = B' / n and sigma hide much less than q = B / n and the full sigma: nothing is promised.
"""

import math
from dataclasses import replace
from typing import Any

from sfumato.core.errors import ArgumentError
from sfumato.plan.config import TrainConfig
from sfumato.plan.spending import Made, sampler_for
from sfumato.privacy.events import GaussianEvent
from sfumato.privacy.not_private import NotPrivate
from sfumato.privacy.terms import Budget


def unprotected(config: TrainConfig, budget: Budget, made: Made) -> tuple[Made, NotPrivate | None]:
    """What is done in the place of what was planned for `budget`, and why it is not private; None where it
    is. Raises ArgumentError."""
    if config.privacy.private:
        return made, None
    if config.privacy.rehearse is not None:
        return _rehearsal(config, config.privacy.rehearse, budget, made)
    settings, releases, sampler = made
    bare = tuple(each.unprotected() for each in releases)
    return (settings.unclipped(), bare, sampler), NotPrivate()


def _rehearsal(
    config: TrainConfig, batch: int, budget: Budget, made: Made
) -> tuple[Made, NotPrivate]:
    settings: Any
    settings, releases, _ = made
    if settings.needs != "network" or config.method.noise_bands is not None:
        raise ArgumentError(
            "rehearse", batch, "is for --method dp-sgd with independent noise; leave it out"
        )
    full = settings.batch
    if batch >= full:
        raise ArgumentError("rehearse", batch, f"give a batch smaller than the run's own, {full:,}")
    smaller = sampler_for(config.method, batch, settings.steps, budget.n, budget.relation)
    if not math.isclose(smaller.expected_batch_size, batch, rel_tol=1e-6):
        raise ArgumentError(
            "rehearse",
            batch,
            f"--sampler {config.method.sampler} has batches of its own; leave one of them out",
        )
    (release,) = releases
    sigma = release.noise_multiplier * batch / full
    release = replace(release, event=smaller.event(GaussianEvent(sigma))).unprotected(sigma)
    rehearsed = NotPrivate(budget.epsilon, full)
    return (replace(settings, batch=batch), (release,), smaller), rehearsed
