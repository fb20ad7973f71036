"""The samplers of this package by name, without importing them: `--help` needs their names alone."""

from sfumato.core.named_classes import Named, Registry

SAMPLERS = Registry(
    "sampler",
    "sfumato.sampling.base:Sampler",
    {
        "poisson": Named("sfumato.sampling.poisson:Poisson", "each by a coin of its own"),
        "full": Named("sfumato.sampling.full:FullBatch", "all"),
        "truncated": Named(
            "sfumato.sampling.truncated:TruncatedPoisson", "poisson cut at --truncate"
        ),
        "cyclic": Named(
            "sfumato.sampling.cyclic:CyclicPoisson", "poisson in --cycle groups that take turns"
        ),
        "fixed": Named(
            "sfumato.sampling.fixed:WithoutReplacement",
            "exactly --batch (not for add-or-remove-one)",
        ),
    },
)
"""By the names of `--sampler`."""

DEFAULT = "poisson"
IN_TURNS = "cyclic"
"""What correlated noise is sampled by: an example's turns are far apart."""
