"""How a method spends its budget: what the user left open -> settings, calibrated releases, sampler."""

from sfumato.noise.banded import step_event
from sfumato.plan import noise_bands
from sfumato.plan.config import MethodConfig
from sfumato.plan.methods import METHODS, MethodSettings, asked, refuse_foreign
from sfumato.privacy.neighbors import Relation
from sfumato.privacy.releases import Release
from sfumato.privacy.terms import Budget
from sfumato.sampling import SAMPLERS, Sampler, Wanted, choose

Made = tuple[MethodSettings, tuple[Release, ...], Sampler]


def spend(config: MethodConfig, method: str, budget: Budget) -> Made:
    """For `method`, one of METHODS. Raises ArgumentError for settings that it does not have."""
    refuse_foreign(config, method)
    event, config = step_event(config.noise_bands), noise_bands.with_groups(config)
    settings = METHODS[method].ruled(budget).given(asked(config), budget.n)
    settings.check_task(budget.task)
    batch, steps = settings.batch_of(budget.n), settings.steps
    sampler = sampler_for(config, batch, steps, budget.n, budget.relation)
    releases = settings.paid(budget, lambda sigma: sampler.event(event(sigma)))
    return settings, releases, sampler


def sampler_for(
    config: MethodConfig, batch: int, steps: int, n: int, relation: Relation
) -> Sampler:
    """The sampler that `--sampler` and the samplers' own flags ask for: `batch` of n examples
    expected in each of `steps`. Raises ArgumentError."""
    given = {name: getattr(config, name) for name in SAMPLERS.flags}
    return choose(config.sampler, Wanted(batch, steps, n, relation, given))
