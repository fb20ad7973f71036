"""How the linear solvers (`solve/linear.py`) spend a budget: one rule from public facts (n, d,
classes, mu), nothing private.

With every example in every step, releases compose exactly: mu^2 is divided in shares, and a release
of share a has noise multiplier 1 / (mu sqrt(a)). The mean takes a_m, the curvature a_c, and the
gradient steps the rest in equal parts:

    1 / s_m^2 = a_m mu^2,    1 / s_0^2 = (a_c + a_g / T) mu^2,    (T - 1) / s^2 = (T - 1) / T a_g mu^2,    a_g = 1 - a_m - a_c.

With Poisson sampling of the later gradient steps there is no such formula; their noise is then
found by calibration.
"""

import math
from dataclasses import dataclass

from sfumato.privacy import calibration
from sfumato.privacy.events import Event, GaussianEvent, PoissonSampledEvent
from sfumato.privacy.relations import ADD_OR_REMOVE, Relation
from sfumato.privacy.releases import Release, tally_of

FIRST_ORDER = ("sgd", "adam", "lamb")
METHODS = ("ls", "newton", "fc", "means", *FIRST_ORDER)
ADJUSTABLE = {
    "ls": ("per_class",),
    "means": (),
    "newton": ("steps", "learning_rate", "clip_norm", "per_class"),
    "fc": ("steps", "learning_rate", "clip_norm", "batch"),
    **dict.fromkeys(FIRST_ORDER, ("steps", "learning_rate", "momentum", "clip_norm", "batch")),
}
"""What a user may set of each method; all else follows the rule."""

WEAK = 15.0
"""Below this ratio of the mean class sum, n / classes, to the noise in it, 1 / mu, a fit can hardly
learn. The default method on the digits, of which chance gets 10 % right, at a ratio of 5: 9 %, 11:
16 %, 21: 29 %, 42: 65 %.
"""

LARGEST_GRAM = 4096
"""Features beyond which "auto" does without a d x d matrix."""


@dataclass(frozen=True)
class LinearSettings:
    """mean_share, curvature_share: of mu^2. steps: T. ridge: see `linear.noise_ridge`.
    learning_rate: of a step. clip_norm: of a gradient. sampling: probability with which an example
    takes part in a gradient step (fc: but the first). per_class: second moments (ls) or a Hessian
    (newton) for each class, not shared. momentum: of the first-order methods.
    """

    method: str
    mean_share: float
    curvature_share: float
    steps: int
    ridge: float
    learning_rate: float
    clip_norm: float
    sampling: float = 1.0
    per_class: bool = False
    momentum: float = 0.0

    @property
    def gradient_share(self) -> float:
        return 1 - self.mean_share - self.curvature_share

    def releases(self, mu: float, step_noise: float | None = None) -> tuple[Release, ...]:
        """In the order in which they are made. step_noise: in place of the exact one, where
        gradients are sampled."""
        mean = Release(
            "mean",
            1,
            _event(self.mean_share, mu),
            "the sum of all feature rows, each scaled to norm 1",
        )
        rest, per_step = 1 - self.mean_share, self.gradient_share / self.steps
        if self.method == "means":
            return (
                mean,
                Release(
                    "class means", 1, _event(rest, mu), "the sum of the features of each class"
                ),
            )
        if self.method == "newton":
            return (
                mean,
                Release(
                    "quadratic",
                    self.steps,
                    _event(rest / self.steps, mu),
                    "curvature and clipped gradient of the classifier's loss over all examples",
                ),
            )
        what = "the sum of the clipped gradients of the classifier"
        if self.method in FIRST_ORDER:
            return (
                mean,
                Release(
                    "gradient", self.steps, self._sampled(rest / self.steps, mu, step_noise), what
                ),
            )
        first = Release(
            "moments",
            1,
            _event(self.curvature_share + per_step, mu),
            "how features vary together, and the sum of features per class",
        )
        if self.steps == 1:
            return (mean, first)
        return (
            mean,
            first,
            Release("gradient", self.steps - 1, self._sampled(per_step, mu, step_noise), what),
        )

    def _sampled(self, share: float, mu: float, step_noise: float | None) -> Event:
        gaussian = _event(share, mu) if step_noise is None else GaussianEvent(step_noise)
        return gaussian if self.sampling == 1.0 else PoissonSampledEvent(self.sampling, gaussian)


def automatic(method: str, d: int) -> str:
    """`method`, or for "auto" the one that suits d features."""
    if method != "auto":
        return method
    return "fc" if d <= LARGEST_GRAM else "sgd"


def weakness(epsilon: float, n: int, classes: int, mu: float) -> str:
    """A warning where the budget mu leaves nothing to be learned; otherwise nothing."""
    if n * mu >= WEAK * classes:
        return ""
    return (
        f"epsilon={epsilon:g}: with n={n} examples of {classes} classes the noise hides nearly all they can say, so expect "
        "little better than chance; give more of them, or a larger epsilon"
    )


def _event(share: float, mu: float) -> GaussianEvent:
    """Noise rounded up, so that the budget holds to the last bit."""
    return GaussianEvent(1 / (mu * math.sqrt(share)) * (1 + 1e-12))


def releases_for(
    recipe: LinearSettings,
    epsilon: float,
    delta: float,
    mu: float,
    relation: Relation = ADD_OR_REMOVE,
) -> tuple[Release, ...]:
    """The releases that cost (epsilon, delta) together under `relation`; mu: the Gaussian budget of
    the three."""
    if recipe.sampling == 1.0 or (recipe.steps == 1 and recipe.method == "fc"):
        return recipe.releases(mu)
    sigma = calibration.noise_multiplier(
        lambda s: tally_of(recipe.releases(mu, s)), epsilon, delta, relation
    )
    return recipe.releases(mu, sigma)


def linear_rule(method: str, n: int, d: int, classes: int, mu: float) -> LinearSettings:
    """The recipe for n rows of d features.

    mean_share: the mean of rows of norm 1 is released with noise of norm sqrt(d) / (n mu_m), mu_m =
    sqrt(mean_share) mu; it gets the share that makes this 0.1, at least 2 % and at most 15 %.
    learning_rate: a Newton step at W = 0 has L; with many classes the noise in their scores asks
    for less, as they compete. First-order methods: the noise of all steps adds up to a deviation of
    about kappa = r C T / ((1 - b) n mu_g) in the score of a row of norm 1; that is held near 1 (see
    `recipe.rule`). Adam and LAMB scale each number by its own size, noise included, so their rate
    hardly depends on the budget.
    """
    mean_share = min(max(d / (0.1 * n * mu) ** 2, 0.02), 0.15)
    flat = math.sqrt(1 - 1 / classes)
    if method == "ls":
        return LinearSettings(
            method, mean_share, 0.4 * (1 - mean_share), 1, 1.0, float(classes), flat
        )
    if method == "newton":
        return LinearSettings(method, mean_share, 0.4, 3, 1.0, 1.6 * math.sqrt(classes), flat)
    if method == "means":
        return LinearSettings(method, mean_share, 0.0, 1, 1.0, 1.0, flat)
    if method in FIRST_ORDER:
        return _first_order(method, mean_share, n * mu * math.sqrt(1 - mean_share), flat)
    return LinearSettings(method, mean_share, 0.1, 20, 2.0, 2.5 * math.sqrt(classes), flat)


def _first_order(
    method: str, mean_share: float, strength: float, clip_norm: float
) -> LinearSettings:
    steps = 40 if method == "sgd" else 20
    if method != "sgd":
        rate = 0.1 if method == "lamb" else min(max(0.1 * (strength / 2_000) ** 0.25, 0.05), 0.5)
        return LinearSettings(method, mean_share, 0.0, steps, 0.0, rate, clip_norm, momentum=0.9)
    kappa = min(max((30_000 / strength) ** 0.25, 0.5), 2.5)
    rate = kappa * 0.1 * strength / (clip_norm * steps)
    return LinearSettings(method, mean_share, 0.0, steps, 0.0, rate, clip_norm, momentum=0.9)
