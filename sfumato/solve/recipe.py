"""How `FeatureCovariance` spends its budget: one rule from public facts (n, mu), no private tuning."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """mean_share, moments_share: of mu^2, for the two statistics. power, floor: of the whitening. steps, momentum,
    clip_norm, learning_rate: of the gradient descent. averaged: how many of the last iterates enter the average.
    """

    mean_share: float
    moments_share: float
    power: float
    floor: float
    steps: int
    momentum: float
    clip_norm: float
    learning_rate: float
    averaged: int

    def mean_noise(self, mu: float) -> float:
        """s_m with 1 / s_m^2 = mean_share * mu^2."""
        return 1 / (mu * math.sqrt(self.mean_share))

    def moments_noise(self, mu: float) -> float:
        """s_0 with 1 / s_0^2 = moments_share * mu^2."""
        return 1 / (mu * math.sqrt(self.moments_share))

    def gradient_noise(self, mu: float) -> float:
        """s with steps / s^2 = the rest of mu^2, rounded up so that the budget holds to the last bit."""
        return math.sqrt(self.steps / self.gradient_share) / mu * (1 + 1e-12)

    @property
    def gradient_share(self) -> float:
        return 1 - self.mean_share - self.moments_share


def rule(n: int, mu: float) -> Recipe:
    """The recipe for n examples and a budget of mu."""
    mean_share, moments_share, steps, momentum, clip_norm = 0.03, 0.15, 20, 0.8, 0.5
    budget = mu * math.sqrt(1 - mean_share - moments_share)
    learning_rate = (1 - momentum) * n * budget / (clip_norm * steps)
    return Recipe(mean_share, moments_share, 0.45, 0.3, steps, momentum, clip_norm, learning_rate, averaged=1)
