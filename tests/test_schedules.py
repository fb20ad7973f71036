"""Schedules and weight decay of DP-SGD: the rates are those of the text, each step has one, and what is
not asked for changes nothing."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sfumato.core import typed_json
from sfumato.data.source import DataInfo
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.solve.optimizers import OPTIMIZERS
from sfumato.train.schedules import SHAPES, rate_of
from sfumato.train.sgd_settings import SGDSettings, default_settings

STEPS, RATE = 12, 0.7
PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}


def settings(**given: object) -> SGDSettings:
    own = SGDSettings(8, STEPS, RATE, 0.0, 1.0, 0, 0.0, 8)
    return replace(own, **given)


def rates(made: SGDSettings) -> np.ndarray:
    """Of each step: what plain gradient descent does to a gradient of ones."""
    optimizer = made.transformation()
    state, found = optimizer.init(PARAMS), []
    for _ in range(STEPS):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS)
        found.append(-float(updates["b"][0]))
    return np.array(found)


@pytest.mark.parametrize("name", SHAPES)
def test_the_rates_are_those_of_the_text_and_none_is_zero(name: str) -> None:
    for warmup, warm in ((0.0, 0), (0.25, 3)):
        found = rates(settings(schedule=name, warmup=warmup))
        x = np.maximum(np.arange(STEPS) - warm, 0) / (STEPS - warm)
        shape = {"constant": 1 + 0 * x, "linear": 1 - x, "cosine": (1 + np.cos(np.pi * x)) / 2}
        rising = np.minimum(1, (np.arange(STEPS) + 1) / max(warm, 1))
        assert np.allclose(found, RATE * rising * shape[name], atol=1e-6)
        assert (found > 0).all() and found.max() <= RATE * (1 + 1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_is_not_asked_for_changes_nothing_and_decay_takes_its_share(optimizer: str) -> None:
    plain = settings(optimizer=optimizer, momentum=0.9)
    gradient = jax.tree.map(lambda leaf: 0.3 * leaf, PARAMS)
    published = OPTIMIZERS[optimizer].make(RATE, 0.9)
    own, _ = published.update(gradient, published.init(PARAMS), PARAMS)
    same = plain.transformation()
    mine, _ = same.update(gradient, same.init(PARAMS), PARAMS)
    assert all(map(np.array_equal, jax.tree.leaves(own), jax.tree.leaves(mine)))
    heavy = replace(plain, weight_decay=0.1).transformation()
    less, _ = heavy.update(gradient, heavy.init(PARAMS), PARAMS)
    assert np.allclose(less["w"], own["w"] - RATE * 0.1 * PARAMS["w"])
    assert np.array_equal(less["b"], own["b"])


def test_a_constant_rate_is_the_number_itself() -> None:
    assert rate_of("constant", RATE, 0.0, STEPS) == RATE
    assert isinstance(settings().transformation(), optax.GradientTransformation)


def test_they_are_planned_at_no_price() -> None:
    info = DataInfo("digits", "", ("a", "b"), (8, 8, 1), {"train": 600, "test": 100})

    def plan_of(**given: Any) -> Plan:
        method = MethodConfig("dp-sgd", "cnn", steps=4, batch=600, **given)
        return make_plan(TrainConfig(DataConfig("digits"), PrivacyConfig(), method), info)

    more = plan_of(schedule="cosine", warmup=0.1, weight_decay=0.01)
    assert more.releases == plan_of().releases
    assert typed_json.plain(more.settings)["warmup"] == 0.1


@pytest.mark.parametrize("kind", ["cnn", "network", "fine-tuning"])
@pytest.mark.parametrize(
    "n, epsilon, mu", [(500, 0.3, 0.07), (1_164, 1.0, 0.27), (50_000, 3.0, 0.72)]
)
def test_the_noise_of_all_steps_is_no_louder_than_in_published_settings(
    kind, n, epsilon, mu
) -> None:
    """Few images or a small budget take a smaller learning rate; those of the papers are as they were."""
    found = default_settings(kind, n, epsilon, mu)
    walk = found.learning_rate * found.steps / (n * mu)
    assert 0 < walk <= 0.18 * (1 + 1e-9)
    if n == 50_000:
        assert found.learning_rate == {"cnn": 2.0, "network": 4.0, "fine-tuning": 1.0}[kind]
