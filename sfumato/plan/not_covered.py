"""Where the promise of a run ends: sentences for "What is not covered" of its report."""

from sfumato.data.source import DataInfo
from sfumato.features import by_name
from sfumato.plan import unit_batches
from sfumato.plan.public_facts import PublicWeights
from sfumato.sampling import Sampler


def not_covered(
    info: DataInfo, model: str, chosen: Sampler, weights: PublicWeights | None
) -> tuple[str, ...]:
    """All of them, for a run of `model` whose gradient steps are sampled by `chosen`."""
    unit = info.unit
    return (
        unit_batches.not_covered(info)
        + _positions(info)
        + tuple(each.format(unit=unit) for each in chosen.limits)
        + _given(model, unit)
        + _learned(weights)
    )


def _given(model: str, unit: str) -> tuple[str, ...]:
    """What cannot be known of rows that were computed elsewhere."""
    if model != by_name.GIVEN:
        return ()
    return (
        f"How the features were computed. If a row depends on other {unit}s too (for example because features were "
        f"standardized by the training set's own mean), or their map was trained on these {unit}s, that is not covered.",
    )


def _learned(weights: PublicWeights | None) -> tuple[str, ...]:
    if weights is None:
        return ()
    return (
        f"Whatever the public weights {weights.name} were learned from, and whoever chose them by looking at these images.",
    )


def _positions(info: DataInfo) -> tuple[str, ...]:
    """What removing an image means where the reader knows it by its place alone, and some were held
    out."""
    if not info.by_position:
        return ()
    return (
        f"The order of the {info.unit}s. Who is held out is decided by each {info.unit}'s position in the data set, so "
        f"removing one means leaving its position empty, not moving the later ones up.",
    )
