"""How the linear solvers (`solve/linear.py`) spend a budget: one rule from public facts (n, d,
classes, mu), nothing private.

With every example in every step, releases compose exactly: mu^2 is divided in shares, and a release
of share a has noise multiplier 1 / (mu sqrt(a)). The mean takes a_m, the curvature a_c, and the
gradient steps the rest in equal parts:

    1 / s_m^2 = a_m mu^2,    1 / s_0^2 = (a_c + a_g / T) mu^2,    (T - 1) / s^2 = (T - 1) / T a_g mu^2,    a_g = 1 - a_m - a_c.

With Poisson sampling of the later gradient steps there is no such formula; their noise is then
found by calibration. In the limit of many steps, one of them with sampling rate q and noise s spends
what a Gaussian release of mu_1 = q sqrt(exp(1 / s^2) - 1) does (Bu et al. 2020, arXiv 1911.11607,
Sec. 3), so a share a of mu^2 asks for 1 / s^2 = ln(1 + a mu^2 / q^2): that divides the budget where
nothing but a multiple of mu is then calibrated (`sf.calibrate`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from sfumato.core.checks import choice
from sfumato.core.settings import flag
from sfumato.core.tasks import SINGLE, Task
from sfumato.core.typed_json import OR_INFINITY
from sfumato.privacy import calibration
from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation
from sfumato.privacy.releases import Release, tally_of
from sfumato.privacy.terms import Budget
from sfumato.solve.covariance_settings import MANY, default_features
from sfumato.solve.method_settings import MethodSettings

WEAK = 15.0
"""Below this ratio of the mean class sum, n / classes, to the noise in it, 1 / mu, a fit can hardly
learn. The default method on the digits, of which chance gets 10 % right, at a ratio of 5: 9 %, 11:
16 %, 21: 29 %, 42: 65 %.
"""

LARGEST_GRAM = 4096
"""Features beyond which "auto" does without a d x d matrix."""

_GRADIENTS = "the sum of the clipped gradients of the classifier"


@dataclass(frozen=True, kw_only=True)
class LinearSettings(MethodSettings):
    """What all heads on rows have. stages: what `linear.STAGES` makes of the releases after the mean. mean_share: of mu^2. steps: T. learning_rate: of a step.
    clip_norm: of a gradient. sampling: probability with which an example takes part in a gradient
    step (fc: but the first).
    """

    method: ClassVar[str]
    what: ClassVar[str]
    needs: ClassVar[str] = "rows"
    also: ClassVar[tuple[str, ...]] = ("public", "rooted")
    stages: ClassVar[tuple[str, ...]]

    mean_share: float
    steps: int
    learning_rate: float
    clip_norm: Annotated[float, OR_INFINITY]
    sampling: float = 1.0

    @classmethod
    def default_model(cls, n: int, shape: tuple[int, int, int]) -> str:
        return default_features(n, shape)

    @classmethod
    def rule(cls, n: int, d: int, classes: int, mu: float, task: Task = SINGLE) -> "LinearSettings":
        """The settings for n rows of d features. Of findings: those for two classes, scaled (see
        `core/tasks.py`), and clipped where no gradient at W = 0 is.

        mean_share: the mean of rows of norm 1 is released with noise of norm sqrt(d) / (n mu_m),
        mu_m = sqrt(mean_share) mu; it gets the share that makes this 0.1, at least 2 % and at most
        15 %.
        """
        mean_share = min(max(d / (0.1 * n * mu) ** 2, 0.02), 0.15)
        as_classes, factor = task.ruled_as(classes)
        ruled = cls.after_mean(mean_share, n * mu, as_classes)
        return ruled.scaled(factor, task.flat_norm(classes) / task.flat_norm(as_classes))

    def scaled(self, rate: float, clip: float) -> "LinearSettings":
        """With a learning rate and a clip norm that many times as large."""
        return replace(
            self, learning_rate=self.learning_rate * rate, clip_norm=self.clip_norm * clip
        )

    def check_task(self, task: Task) -> None:
        """Raises ArgumentError for settings that are for classes, where labels are findings."""

    @classmethod
    def after_mean(cls, mean_share: float, strength: float, classes: int) -> "LinearSettings":
        """strength: n mu."""
        raise NotImplementedError

    @classmethod
    def ruled(cls, budget: Budget) -> "LinearSettings":
        """What the user left open; a row has one number more than features, for the intercept."""
        return cls.rule(budget.n, budget.d + 1, budget.classes, budget.mu, budget.task)

    def given(self, asked: dict[str, Any], n: int) -> "LinearSettings":
        """With what the user gave."""
        rest = {name: value for name, value in asked.items() if name not in (*self.also, "batch")}
        batch = asked.get("batch", n)
        return replace(self, sampling=1.0 if batch == n else batch / n, **rest)

    def batch_of(self, n: int) -> int:
        return round(self.sampling * n)

    def paid(
        self, budget: Budget, sampled: Callable[[float], Event] | None = None
    ) -> tuple[Release, ...]:
        return releases_for(self, budget.epsilon, budget.delta, budget.mu, budget.relation)

    @property
    def exact(self) -> bool:
        """Whether the releases have exactly the budget mu, without calibration."""
        return self.sampling == 1.0

    def releases(self, mu: float, step_noise: float | None = None) -> tuple[Release, ...]:
        """In the order in which they are made. step_noise: of gradients that are sampled; None for
        the limit of many."""
        what = "the sum of all feature rows, each scaled to norm 1"
        mean = Release("mean", 1, _event(self.mean_share, mu), what)
        return (mean, *self.later(mu, step_noise))

    def later(self, mu: float, step_noise: float | None) -> tuple[Release, ...]:
        """Those after the mean."""
        raise NotImplementedError

    def varied(self, rate: float, ridge: float) -> "LinearSettings":
        """With a learning rate (and ridge, if there is one) that many times as large."""
        return replace(self, learning_rate=self.learning_rate * rate)

    def _sampled(self, share: float, mu: float, noise: float | None) -> Event:
        if self.sampling == 1.0:
            return _event(share, mu)
        if noise is None:
            noise = math.log1p(share * mu**2 / self.sampling**2) ** -0.5
        return PoissonSampledEvent(self.sampling, GaussianEvent(noise))


@dataclass(frozen=True, kw_only=True)
class Means(LinearSettings):
    method: ClassVar[str] = "means"
    what: ClassVar[str] = "class means"
    stages: ClassVar[tuple[str, ...]] = ("class means",)

    @classmethod
    def after_mean(cls, mean_share: float, strength: float, classes: int) -> "LinearSettings":
        return cls(mean_share=mean_share, steps=1, learning_rate=1.0, clip_norm=_flat(classes))

    def later(self, mu: float, step_noise: float | None) -> tuple[Release, ...]:
        what = "the sum of the features of each class"
        return (Release("class means", 1, _event(1 - self.mean_share, mu), what),)


@dataclass(frozen=True, kw_only=True)
class Curved(LinearSettings):
    """Methods with a curvature matrix. curvature_share: of mu^2. ridge: see `linear.noise_ridge`.
    per_class: second moments (ls) or a Hessian (newton) for each class, not shared. flattened:
    whether the ridge follows the released spectrum.
    """

    flattened: ClassVar[bool] = False
    curvature_share: float
    ridge: float
    per_class: bool = False

    @classmethod
    def default_model(cls, n: int, shape: tuple[int, int, int]) -> str:
        """Those for few images whatever n, since a matrix of d x d numbers is held: without patches
        d is at most LARGEST_GRAM."""
        return default_features(min(n, MANY - 1), shape)

    @property
    def gradient_share(self) -> float:
        return 1 - self.mean_share - self.curvature_share

    def check_task(self, task: Task) -> None:
        if self.per_class:
            task.need_classes("per_class", True)

    def varied(self, rate: float, ridge: float) -> "LinearSettings":
        return replace(self, learning_rate=self.learning_rate * rate, ridge=self.ridge * ridge)

    def matrices(self, classes: int) -> int:
        return classes + 1 if self.per_class else 1


@dataclass(frozen=True, kw_only=True)
class Moments(Curved):
    """Second moments and gradient at W = 0 first, in one release; then T - 1 gradients."""

    stages: ClassVar[tuple[str, ...]] = ("moments", "descent")

    def later(self, mu: float, step_noise: float | None) -> tuple[Release, ...]:
        per_step = self.gradient_share / self.steps
        what = "how features vary together, and the sum of features per class"
        first = Release("moments", 1, _event(self.curvature_share + per_step, mu), what)
        if self.steps == 1:
            return (first,)
        sampled = self._sampled(per_step, mu, step_noise)
        return (first, Release("gradient", self.steps - 1, sampled, _GRADIENTS))


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Moments):
    method: ClassVar[str] = "ls"
    what: ClassVar[str] = "least squares"
    per_class: bool = flag(
        "A matrix of second moments for each class instead of a shared one.", default=False
    )

    @classmethod
    def after_mean(cls, mean_share: float, strength: float, classes: int) -> "LinearSettings":
        return cls(
            mean_share=mean_share,
            curvature_share=0.4 * (1 - mean_share),
            steps=1,
            ridge=1.0,
            learning_rate=float(classes),
            clip_norm=_flat(classes),
        )


@dataclass(frozen=True, kw_only=True)
class FeatureCovarianceHead(Moments):
    """A Newton step at W = 0 has learning rate L; with many classes the noise in their scores asks
    for less, as they compete."""

    method: ClassVar[str] = "fc"
    what: ClassVar[str] = "feature covariance"
    also: ClassVar[tuple[str, ...]] = ("batch", *LinearSettings.also)
    flattened: ClassVar[bool] = True
    steps: int = flag()
    learning_rate: float = flag()
    clip_norm: Annotated[float, OR_INFINITY] = flag()

    @classmethod
    def after_mean(cls, mean_share: float, strength: float, classes: int) -> "LinearSettings":
        return cls(
            mean_share=mean_share,
            curvature_share=0.1,
            steps=20,
            ridge=2.0,
            learning_rate=2.5 * math.sqrt(classes),
            clip_norm=_flat(classes),
        )

    @property
    def exact(self) -> bool:
        return self.sampling == 1.0 or self.steps == 1


@dataclass(frozen=True, kw_only=True)
class Newton(Curved):
    method: ClassVar[str] = "newton"
    what: ClassVar[str] = "Newton's method"
    stages: ClassVar[tuple[str, ...]] = ("newton",)
    steps: int = flag()
    learning_rate: float = flag()
    clip_norm: Annotated[float, OR_INFINITY] = flag()
    per_class: bool = flag(default=False)

    @classmethod
    def after_mean(cls, mean_share: float, strength: float, classes: int) -> "LinearSettings":
        return cls(
            mean_share=mean_share,
            curvature_share=0.4,
            steps=3,
            ridge=1.0,
            learning_rate=1.6 * math.sqrt(classes),
            clip_norm=_flat(classes),
        )

    def later(self, mu: float, step_noise: float | None) -> tuple[Release, ...]:
        what = "curvature and clipped gradient of the classifier's loss over all examples"
        share = (1 - self.mean_share) / self.steps
        return (Release("quadratic", self.steps, _event(share, mu), what),)


@dataclass(frozen=True, kw_only=True)
class FirstOrder(LinearSettings):
    """Steps of an optimizer, which `method` names. momentum: Adam's and LAMB's first decay, too.

    The noise of all steps adds up to a deviation of about kappa = r C T / ((1 - b) n mu_g) in the
    score of a row of norm 1; that is held near 1 (see `covariance_settings.rule`). Adam and LAMB
    scale each number by its own size, noise included, so their rate hardly depends on the budget.
    """

    also: ClassVar[tuple[str, ...]] = ("batch", *LinearSettings.also)
    stages: ClassVar[tuple[str, ...]] = ("first order",)
    steps: int = flag()
    learning_rate: float = flag()
    clip_norm: Annotated[float, OR_INFINITY] = flag()
    momentum: float = flag(default=0.9)

    @classmethod
    def after_mean(cls, mean_share: float, strength: float, classes: int) -> "LinearSettings":
        steps, rate = cls.pace(strength * math.sqrt(1 - mean_share), _flat(classes))
        return cls(mean_share=mean_share, steps=steps, learning_rate=rate, clip_norm=_flat(classes))

    @classmethod
    def pace(cls, strength: float, clip_norm: float) -> tuple[int, float]:
        """(steps, learning rate). strength: n mu_g."""
        raise NotImplementedError

    def later(self, mu: float, step_noise: float | None) -> tuple[Release, ...]:
        sampled = self._sampled((1 - self.mean_share) / self.steps, mu, step_noise)
        return (Release("gradient", self.steps, sampled, _GRADIENTS),)


@dataclass(frozen=True, kw_only=True)
class SGDHead(FirstOrder):
    method: ClassVar[str] = "sgd"
    what: ClassVar[str] = "gradient descent"

    def scaled(self, rate: float, clip: float) -> "LinearSettings":
        """kappa stays: r C does."""
        return super().scaled(rate / clip, clip)

    @classmethod
    def pace(cls, strength: float, clip_norm: float) -> tuple[int, float]:
        kappa, steps = min(max((30_000 / strength) ** 0.25, 0.5), 2.5), 40
        return steps, kappa * 0.1 * strength / (clip_norm * steps)


@dataclass(frozen=True, kw_only=True)
class AdamHead(FirstOrder):
    method: ClassVar[str] = "adam"
    what: ClassVar[str] = "Adam"

    @classmethod
    def pace(cls, strength: float, clip_norm: float) -> tuple[int, float]:
        return 20, min(max(0.1 * (strength / 2_000) ** 0.25, 0.05), 0.5)


@dataclass(frozen=True, kw_only=True)
class LambHead(FirstOrder):
    method: ClassVar[str] = "lamb"
    what: ClassVar[str] = "LAMB"

    @classmethod
    def pace(cls, strength: float, clip_norm: float) -> tuple[int, float]:
        return 20, 0.1


HEADS: dict[str, type[LinearSettings]] = {
    each.method: each
    for each in (LeastSquares, Newton, FeatureCovarianceHead, Means, SGDHead, AdamHead, LambHead)
}
METHODS = tuple(HEADS)


def head_of(method: str, d: int) -> type[LinearSettings]:
    """The settings of a method, or for "auto" of the one that suits d features. Raises ArgumentError."""
    return HEADS[automatic(choice("method", method, ("auto", *HEADS)), d)]


def automatic(method: str, d: int) -> str:
    """`method`, or for "auto" the one that suits d features."""
    if method != "auto":
        return method
    return FeatureCovarianceHead.method if d <= LARGEST_GRAM else SGDHead.method


def weakness(epsilon: float, n: int, classes: int, mu: float, task: Task = SINGLE) -> str:
    """A warning where the budget mu leaves nothing to be learned; otherwise nothing."""
    if n * mu >= WEAK * task.crowd(classes):
        return ""
    return (
        f"epsilon={epsilon:g}: with n={n} examples of {classes} {task.many} the noise hides nearly all they can say, so expect "
        "little better than chance; give more of them, or a larger epsilon"
    )


def _event(share: float, mu: float) -> GaussianEvent:
    """Noise rounded up, so that the budget holds to the last bit."""
    return GaussianEvent(1 / (mu * math.sqrt(share)) * (1 + 1e-12))


def _flat(classes: int) -> float:
    """The norm of the gradient at W = 0 of a row of norm 1."""
    return math.sqrt(1 - 1 / classes)


def releases_for(
    settings: LinearSettings,
    epsilon: float,
    delta: float,
    mu: float,
    relation: Relation = ADD_OR_REMOVE,
) -> tuple[Release, ...]:
    """The releases that cost (epsilon, delta) together under `relation`; mu: the Gaussian budget of
    the three."""
    if settings.exact:
        return settings.releases(mu)
    sigma = calibration.noise_multiplier(
        lambda s: tally_of(settings.releases(mu, s)), epsilon, delta, relation
    )
    return settings.releases(mu, sigma)


def linear_rule(
    method: str, n: int, d: int, classes: int, mu: float, task: Task = SINGLE
) -> LinearSettings:
    """The settings of a method for n rows of d features: `LinearSettings.rule` of its class."""
    return HEADS[method].rule(n, d, classes, mu, task)
