"""Flags -> the sampler of a run."""

from sfumato.plan.config import MethodConfig
from sfumato.privacy.relations import Relation
from sfumato.sampling import Sampler, Wanted
from sfumato.sampling import choose as chosen


def choose(config: MethodConfig, batch: int, steps: int, n: int, relation: Relation) -> Sampler:
    """The sampler that `--sampler` and the samplers' own flags ask for: `batch` of n examples
    expected in each of `steps`. Raises ArgumentError."""
    given = {"truncate": config.truncate, "cycle": config.cycle}
    return chosen(config.sampler, Wanted(batch, steps, n, relation, given))
