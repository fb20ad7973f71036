"""`--noise-bands`: correlated noise needs examples that take turns. See `noise/banded.py` for the
mechanism, its price and what it is worth."""

from dataclasses import replace
from typing import Any

from sfumato.core.errors import ArgumentError
from sfumato.plan.config import MethodConfig
from sfumato.sampling import IN_TURNS


def with_groups(config: MethodConfig) -> MethodConfig:
    """Bands need a sampler of at least as many groups that take turns; that is the default with
    them. Raises ArgumentError."""
    bands = config.noise_bands
    if bands is None:
        return config
    if config.sampler not in (None, IN_TURNS):
        raise ArgumentError(
            "sampler",
            config.sampler,
            "correlated noise needs examples that take turns; with --noise-bands "
            f"take --sampler {IN_TURNS}, or leave it out",
        )
    if config.cycle is not None and config.cycle < bands:
        raise ArgumentError(
            "cycle",
            config.cycle,
            f"give at least as many groups as --noise-bands {bands}, or leave it out",
        )
    turns: dict[str, Any] = {"sampler": IN_TURNS, "cycle": config.cycle or bands}
    return replace(config, **turns)
