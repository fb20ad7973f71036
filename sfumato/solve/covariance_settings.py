"""How `FeatureCovariance` spends its budget: one rule from public facts (n, d, mu), no private
tuning.

Its constants were chosen on held-out training images of CIFAR-10, Fashion-MNIST and digits
(docs/features.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from sfumato.core.typed_json import OrInfinity
from sfumato.privacy.events import Event, GaussianEvent
from sfumato.privacy.releases import Release
from sfumato.privacy.terms import Budget
from sfumato.solve.method_settings import MethodSettings

MANY, FEW = 10_000, 1_000
"""Training images from which on the default features are all that are shipped, and below which they
are fewest."""


def default_features(n: int, shape: tuple[int, int, int], doubts: bool = False) -> str:
    """With few images the noise in a row's many patches costs more than they tell, with fewest that
    in three colors of scattering. What tells left from right is for gray images, digits and X-rays. In
    color most are scenes, which it costs up to three points, unless the method `doubts` it until it is
    shown to tell something (`solve/doubted.py`). How many are few was chosen as the constants of `rule`
    were.
    """
    color = shape[2] == 3
    if color and n < FEW:
        return "centered-cells"
    in_color = "handed-if-shown" if doubts else "scattering"
    return f"centered-cells{'+patches' * (n >= MANY)}+{in_color if color else 'handed'}"


@dataclass(frozen=True)
class CovarianceSettings(MethodSettings):
    """dp-fc. mean_share, moments_share: of mu^2, for the two statistics. power, floor: of the whitening.
    steps, momentum, clip_norm, learning_rate: of the gradient descent. shrunk: whether the mean is shrunk
    to what stands out of its noise. proof: by how many deviations of the noise features that are doubted
    must stand out of it, 0 to keep them all (both not in plans of earlier versions).
    """

    method: ClassVar[str] = "dp-fc"
    what: ClassVar[str] = "descent on fixed features, whitened in blocks"
    needs: ClassVar[str] = "groups"

    mean_share: float
    moments_share: float
    power: float
    floor: float
    steps: int
    momentum: float
    clip_norm: OrInfinity
    learning_rate: float
    shrunk: bool = False
    proof: float = 0.0

    def mean_noise(self, mu: float) -> float:
        """s_m with 1 / s_m^2 = mean_share * mu^2."""
        return 1 / (mu * math.sqrt(self.mean_share))

    def moments_noise(self, mu: float) -> float:
        """s_0 with 1 / s_0^2 = moments_share * mu^2."""
        return 1 / (mu * math.sqrt(self.moments_share))

    def gradient_noise(self, mu: float) -> float:
        """s with steps / s^2 = the rest of mu^2, rounded up so that the budget holds to the last
        bit."""
        return math.sqrt(self.steps / (1 - self.mean_share - self.moments_share)) / mu * (1 + 1e-12)

    @classmethod
    def default_model(cls, n: int, shape: tuple[int, int, int]) -> str:
        return default_features(n, shape, doubts=True)

    @classmethod
    def ruled(cls, budget: Budget) -> "CovarianceSettings":
        """All of it: there is nothing that a user may set."""
        return rule(budget.n, budget.d, budget.mu)

    def given(self, asked: dict[str, Any], n: int) -> "CovarianceSettings":
        return self

    def batch_of(self, n: int) -> int:
        return n

    def matrices(self, classes: int) -> int:
        """Of d x d numbers that are held; the blocks are at most one."""
        return 1

    def paid(
        self, budget: Budget, sampled: Callable[[float], Event] | None = None
    ) -> tuple[Release, ...]:
        """The releases that cost the budget together."""
        return self.releases(budget.mu)

    def releases(self, mu: float) -> tuple[Release, ...]:
        """Those of mean, moments and gradients."""
        moments = (
            "how feature channels vary together over all training images, per spatial frequency"
        )
        gradient = "the sum over all training images of the clipped gradient of the classifier"
        return (
            Release(
                "mean",
                1,
                GaussianEvent(self.mean_noise(mu)),
                "the sum of the feature rows of all training images",
            ),
            Release("second moments", 1, GaussianEvent(self.moments_noise(mu)), moments),
            Release("gradient", self.steps, GaussianEvent(self.gradient_noise(mu)), gradient),
        )


def rule(n: int, d: int, mu: float) -> CovarianceSettings:
    """The settings for n examples of d features and a budget of mu.

    The mean of unit rows is released with noise of norm sqrt(d) / (n mu_m), mu_m = sqrt(mean_share)
    mu; it gets the share that makes this 0.1, at least 2 % and at most 10 %, as what is more is shrunk
    away (`solve/fc.py`).

    With learning rate r and momentum b, the noise of all T gradient steps adds up to a standard
    deviation of up to kappa = r C T / ((1 - b) n mu_g) in the score of a row of norm 1. Holding
    kappa constant fits all budgets; a little more when data are few (n mu_g < 30,000), where slow
    learning costs more than noisy scores, and less when they are many. mu_g^2 = (1 - mean_share -
    moments_share) mu^2.
    """
    mean_share = min(max(d / (0.1 * n * mu) ** 2, 0.02), 0.1)
    moments_share, steps, momentum, clip_norm = 0.15, 20, 0.8, 0.5
    strength = n * mu * math.sqrt(1 - mean_share - moments_share)
    kappa = min(max((30_000 / strength) ** 0.25, 0.5), 2.5)
    learning_rate = kappa * (1 - momentum) * strength / (clip_norm * steps)
    return CovarianceSettings(
        mean_share,
        moments_share,
        0.5,
        0.3,
        steps,
        momentum,
        clip_norm,
        learning_rate,
        shrunk=True,
        proof=4.0,
    )
