"""What the noise of a run was, what it defends against and what it does not: the words of the
mechanism (`noise/`) and of the generator (`core/generators.py`)."""

from sfumato.core import generators
from sfumato.noise import DEFAULT, NOISES
from sfumato.plan.plan import Stated


def name(plan: Stated) -> str:
    if plan.not_private is not None:
        return f"{plan.mechanism} noise"
    return f"{plan.mechanism}{NOISES[plan.noise].where}, by {generators.find(plan.noise_rng).name}"


def limits(plan: Stated) -> tuple[str, ...]:
    found = NOISES[plan.noise].limits + generators.find(plan.noise_rng).limits
    return tuple(each.format(unit=plan.unit) for each in found)


def audited_otherwise(plan: Stated) -> str:
    """Audits train anew with the default noise; the empty text where that is this run's."""
    if (plan.noise, plan.noise_rng) == (DEFAULT, generators.DEFAULT):
        return ""
    return (
        f" They drew their noise from machine numbers by {generators.find(generators.DEFAULT).name}, by the same law to what can be "
        f"measured; this run’s own ({name(plan)}) was not examined."
    )
