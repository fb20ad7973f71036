"""The samplers of this package by name, without importing them: `--help` needs their names alone."""

from sfumato.core.named_classes import Listed, Registry

SAMPLERS = Registry(
    "sampler",
    "sfumato.sampling.base:Sampler",
    {
        "poisson": Listed("sfumato.sampling.poisson:Poisson", "each by a coin of its own"),
        "full": Listed("sfumato.sampling.full:FullBatch", "all"),
        "truncated": Listed(
            "sfumato.sampling.truncated:TruncatedPoisson", "poisson cut at --truncate"
        ),
        "cyclic": Listed(
            "sfumato.sampling.cyclic:CyclicPoisson", "poisson in --cycle groups that take turns"
        ),
        "fixed": Listed(
            "sfumato.sampling.fixed:WithoutReplacement",
            "exactly --batch (not for add-or-remove-one)",
        ),
    },
)
"""By the names of `--sampler`."""

DEFAULT = "poisson"
IN_TURNS = "cyclic"
"""What correlated noise is sampled by: an example's turns are far apart."""
