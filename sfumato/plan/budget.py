"""How each method spends its budget: what the user left open -> settings, calibrated releases,
sampler."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sfumato.noise.banded import step_event
from sfumato.plan import noise_bands, samplers
from sfumato.plan.config import MethodConfig, refuse
from sfumato.privacy import calibration
from sfumato.privacy.events import GaussianEvent
from sfumato.privacy.relations import Relation
from sfumato.privacy.releases import Release
from sfumato.sampling import SAMPLERS, FullBatch, Sampler
from sfumato.solve.covariance_settings import CovarianceSettings, rule
from sfumato.solve.linear_settings import ADJUSTABLE, LinearSettings, linear_rule, releases_for
from sfumato.solve.linear_settings import METHODS as LINEAR
from sfumato.train.sgd_settings import SGDSettings, default_settings

SGD_ONLY = (
    "batch",
    "steps",
    "optimizer",
    "learning_rate",
    "momentum",
    "clip_norm",
    "views",
    "ema",
    "physical",
)
SAMPLING = ("sampler", "truncate", "cycle", "noise_bands")

Settings = CovarianceSettings | LinearSettings | SGDSettings
Made = tuple[Settings, tuple[Release, ...], Sampler]


@dataclass(frozen=True)
class Budget:
    """Public facts that recipes depend on. kind: what is trained, as `train/sgd_settings.py` has
    it. d: features, or parameters of a network.
    """

    kind: str
    n: int
    d: int
    classes: int
    epsilon: float
    delta: float
    mu: float
    relation: Relation


def spend(config: MethodConfig, budget: Budget) -> Made:
    """For `config.method`, which is not "auto" any more. Raises ArgumentError for settings that it
    does not have."""
    method = config.method
    make: Callable[[MethodConfig, Budget], Made] = (
        _covariance if method == "dp-fc" else _linear if method in LINEAR else _sgd
    )
    return make(config, budget)


def _linear(config: MethodConfig, budget: Budget) -> Made:
    method = config.method
    for name in SAMPLING:
        refuse(name, getattr(config, name), method)
    given = {name: value for name in SGD_ONLY if (value := getattr(config, name)) is not None}
    given |= {"per_class": True} if config.per_class else {}
    for name, value in given.items():
        if name not in ADJUSTABLE[method]:
            refuse(name, value, method)
    recipe = linear_rule(method, budget.n, budget.d + 1, budget.classes, budget.mu)
    batch, steps = given.pop("batch", budget.n), given.get("steps", recipe.steps)
    chosen = samplers.choose(config, batch, steps, budget.n, budget.relation)
    recipe = replace(recipe, sampling=chosen.q, **given)
    return (
        recipe,
        releases_for(recipe, budget.epsilon, budget.delta, budget.mu, budget.relation),
        chosen,
    )


def _covariance(config: MethodConfig, budget: Budget) -> Made:
    n, mu = budget.n, budget.mu
    for name in (*SGD_ONLY, *SAMPLING):
        refuse(name, getattr(config, name), "dp-fc")
    recipe = rule(n, budget.d, mu)
    releases = (
        Release(
            "mean",
            1,
            GaussianEvent(recipe.mean_noise(mu)),
            "the sum of the feature rows of all training images",
        ),
        Release(
            "second moments",
            1,
            GaussianEvent(recipe.moments_noise(mu)),
            "how feature channels vary together over all training images, per spatial frequency",
        ),
        Release(
            "gradient",
            recipe.steps,
            GaussianEvent(recipe.gradient_noise(mu)),
            "the sum over all training images of the clipped gradient of the classifier",
        ),
    )
    return recipe, releases, FullBatch(recipe.steps, n)


def _sgd(config: MethodConfig, budget: Budget) -> Made:
    n, epsilon, event = budget.n, budget.epsilon, step_event(config.noise_bands)
    config = noise_bands.with_groups(config)
    whole = config.sampler is not None and not SAMPLERS[config.sampler].secret
    given = {"batch": n} if whole else {}
    given |= {name: value for name in SGD_ONLY if (value := getattr(config, name)) is not None}
    settings = default_settings(budget.kind, n, epsilon, budget.mu).adjusted(**given)
    chosen = samplers.choose(config, settings.batch, settings.steps, n, budget.relation)

    def gradient(sigma: float) -> Release:
        return Release(
            "gradient",
            settings.steps,
            chosen.event(event(sigma)),
            "the sum of the clipped gradients of a random batch of training images",
        )

    sigma = calibration.noise_multiplier(
        lambda s: gradient(s).tally, epsilon, budget.delta, budget.relation
    )
    return settings, (gradient(sigma),), chosen
