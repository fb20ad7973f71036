"""The samplers of this package by name, without importing them: `--help` needs their names alone."""

from sfumato.core.registry import Entry, Registry

SAMPLERS = Registry(
    "sampler",
    "sfumato.sampling.base:Sampler",
    {
        "poisson": Entry("sfumato.sampling.poisson:Poisson", "each by a coin of its own"),
        "full": Entry("sfumato.sampling.full:FullBatch", "all"),
        "truncated": Entry(
            "sfumato.sampling.truncated:TruncatedPoisson", "poisson cut at --truncate"
        ),
        "cyclic": Entry(
            "sfumato.sampling.cyclic:CyclicPoisson", "poisson in --cycle groups that take turns"
        ),
        "fixed": Entry(
            "sfumato.sampling.fixed:WithoutReplacement",
            "exactly --batch (not for add-or-remove-one)",
        ),
    },
)
"""By the names of `--sampler`."""

DEFAULT = "poisson"
IN_TURNS = "cyclic"
"""What correlated noise is sampled by: an example's turns are far apart."""
