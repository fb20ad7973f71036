"""How `FeatureCovariance` spends its budget: one rule from public facts (n, classes, mu), no private tuning."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """moments_share: of mu^2, for the second moments. power, floor: of the whitening. steps, momentum, clip_norm,
    learning_rate: of the gradient descent. first_averaged: the first gradient step whose iterate enters the average.
    """

    moments_share: float
    power: float
    floor: float
    steps: int
    momentum: float
    clip_norm: float
    learning_rate: float
    first_averaged: int

    def moments_noise(self, mu: float) -> float:
        """s_0 with 1 / s_0^2 = moments_share * mu^2."""
        return 1 / (mu * math.sqrt(self.moments_share))

    def gradient_noise(self, mu: float) -> float:
        """s with steps / s^2 = (1 - moments_share) * mu^2, rounded up so that the budget holds to the last bit."""
        return math.sqrt(self.steps / (1 - self.moments_share)) / mu * (1 + 1e-12)


def rule(n: int, classes: int, mu: float) -> Recipe:
    steps, momentum, clip_norm, share = 40, 0.9, 0.5, 0.15
    noise_units = 0.5 * (1 - momentum) * n * mu * (1 - share) ** 0.5 / (clip_norm * steps)
    return Recipe(share, 0.4, 0.3, steps, momentum, clip_norm, min(noise_units, 200.0), 31)
