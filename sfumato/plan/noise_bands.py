"""`--noise-bands` <-> plan: when a run's noise is correlated over steps, with what coefficients,
and what that is worth.

See `noise/banded.py` for the mechanism and its price.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from sfumato.core.errors import ArgumentError
from sfumato.noise import BandedGaussian, Gaussian
from sfumato.noise.banded import error_of_sums, square_root_bands
from sfumato.plan.config import MethodConfig
from sfumato.privacy import calibration
from sfumato.privacy.events import BandedGaussianEvent, GaussianEvent, Inner
from sfumato.privacy.relations import Relation
from sfumato.privacy.releases import Release
from sfumato.sampling.samplers import Poisson, Sampler
from sfumato.train.sgd_settings import SGDSettings


def mechanism(noise: str, releases: Iterable[Release]) -> str:
    """What `--noise` and `--noise-bands` add, in words before "noise"."""
    if any(each.event.bands > 1 for each in releases):
        return "correlated Gaussian"
    return {"gaussian": "Gaussian", "lattice": "discrete Gaussian"}[noise]


def with_groups(config: MethodConfig) -> MethodConfig:
    """Bands need a cyclic sampler with at least as many groups; that is the default with them.
    Raises ArgumentError."""
    bands = config.noise_bands
    if bands is None:
        return config
    if config.sampler not in (None, "cyclic"):
        raise ArgumentError(
            "sampler",
            config.sampler,
            "correlated noise needs examples that take turns; with --noise-bands "
            "take --sampler cyclic, or leave it out",
        )
    if config.cycle is not None and config.cycle < bands:
        raise ArgumentError(
            "cycle",
            config.cycle,
            f"give at least as many groups as --noise-bands {bands}, or leave it out",
        )
    return replace(config, sampler="cyclic", cycle=config.cycle or bands)


def event_of(config: MethodConfig) -> Callable[[float], Inner]:
    """noise multiplier -> what a step's noise may claim."""
    bands = config.noise_bands
    return GaussianEvent if bands is None else lambda sigma: BandedGaussianEvent(sigma, bands)


def noise(release: Release, settings: SGDSettings) -> Gaussian | BandedGaussian:
    """What keeps the promise of the gradient's release."""
    bands = release.event.bands
    if bands == 1:
        return Gaussian(release.noise_multiplier)
    return BandedGaussian(release.noise_multiplier, coefficients(bands, settings))


def coefficients(bands: int, settings: SGDSettings) -> np.ndarray:
    """For the optimizer's own sums. Adam and LAMB rescale theirs, so no fixed matrix fits; they
    have those of plain sums."""
    return square_root_bands(bands, _momentum(settings))


def describe(
    release: Release,
    settings: SGDSettings,
    sampler: Sampler,
    promise: tuple[float, float, Relation],
) -> str:
    """For the terminal, on one line."""
    bands = release.event.bands
    if bands == 1:
        return "independent in every step"
    ratio = error_ratio(release, settings, sampler, promise)
    return (
        f"correlated over {bands} steps: the parameters hold {ratio:.3g} times the noise that independent noise on Poisson "
        "samples would leave"
    )


def error_ratio(
    release: Release,
    settings: SGDSettings,
    sampler: Sampler,
    promise: tuple[float, float, Relation],
) -> float:
    """Noise in the parameters, root mean square over steps, over that of independent noise on
    Poisson samples of the same size for the same promise (epsilon, delta, relation). Below 1 the
    bands pay.
    """
    epsilon, delta, relation = promise
    plain = Poisson(sampler.expected_batch_size / sampler.n, sampler.steps, sampler.n)
    sigma = calibration.noise_multiplier(
        lambda s: {plain.event(GaussianEvent(s)): plain.steps}, epsilon, delta, relation
    )
    momentum, bands = _momentum(settings), release.event.bands
    own = error_of_sums(coefficients(bands, settings), sampler.steps, momentum)
    return (
        release.noise_multiplier
        * own
        / (sigma * error_of_sums(np.ones(1), sampler.steps, momentum))
    )


def _momentum(settings: SGDSettings) -> float:
    return settings.momentum if settings.optimizer in ("sgd", "momentum") else 0.0
