"""The samplers of this package by name, without importing them: `--help` needs their names alone."""

from sfumato.core.checks import whole
from sfumato.core.named_classes import Named, Registry
from sfumato.core.settings import Flag

SAMPLERS = Registry(
    "sampler",
    "sfumato.sampling.base:Sampler",
    {
        "poisson": Named("sfumato.sampling.poisson:Poisson", "each by a coin of its own"),
        "full": Named("sfumato.sampling.full:FullBatch", "all"),
        "truncated": Named(
            "sfumato.sampling.truncated:TruncatedPoisson",
            "poisson cut at --truncate",
            {
                "truncate": Flag(
                    "--sampler truncated: the largest batch there can be [five standard deviations "
                    "above the mean].",
                    int,
                    whole,
                )
            },
        ),
        "cyclic": Named(
            "sfumato.sampling.cyclic:CyclicPoisson",
            "poisson in --cycle groups that take turns",
            {"cycle": Flag("--sampler cyclic: number of groups.", int, whole)},
        ),
        "fixed": Named(
            "sfumato.sampling.fixed:WithoutReplacement",
            "exactly --batch (not for add-or-remove-one)",
        ),
    },
    valued=True,
)
"""By the names of `--sampler`."""

DEFAULT = "poisson"
IN_TURNS = "cyclic"
"""What correlated noise is sampled by: an example's turns are far apart."""
