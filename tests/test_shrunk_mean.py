"""What the default method makes of the mean that it released: noise is not subtracted from all rows."""

import jax.numpy as jnp
import numpy as np
import pytest
from pace import paced

from sfumato.core import typed_json
from sfumato.features.feature_map import Group
from sfumato.solve.covariance_settings import CovarianceSettings, rule
from sfumato.solve.fc import shrunk_mean

GROUPS = (Group(2, 40, 0.8), Group(3, 20, 0.2))
STREAM = np.random.default_rng(0)


def means(size: float) -> np.ndarray:
    """A mean that lies in the first block alone, and 200 noisy ones of deviation 1."""
    mean = np.zeros(140)
    mean[:40] = size
    return mean + STREAM.normal(size=(200, 140))


@pytest.mark.parametrize("size", paced([0.0, 0.5, 1.0, 3.0, 30.0], 0.0, 3.0))
def test_a_shrunk_mean_is_nearer_to_the_true_one(size: float) -> None:
    """James & Stein 1961: whatever the mean is, in expectation; blocks of noise alone nearly vanish. 200
    draws of 140 numbers: the means of both errors are known to 1 %, and lie 2 to 140 apart."""
    true = np.zeros(140)
    true[:40] = size
    found = means(size)
    shrunk = np.array([shrunk_mean(jnp.asarray(each), 1.0, GROUPS) for each in found])
    before, after = (((each - true) ** 2).sum(1).mean() for each in (found, shrunk))
    assert after < before - 80
    assert np.linalg.norm(shrunk[:, 40:], axis=1).mean() < 0.3 * 10
    if size == 30:
        assert np.allclose(shrunk[:, :40], found[:, :40], rtol=2e-3)


def test_without_noise_nothing_is_shrunk_and_nothing_is_divided_by_zero() -> None:
    mean = jnp.asarray(means(1.0)[0], jnp.float32)
    assert np.allclose(shrunk_mean(mean, 0.0, GROUPS), mean)
    assert not shrunk_mean(jnp.zeros(140), 1.0, GROUPS).any()
    pairs = (Group(70, 2, 1.0),)
    assert np.array_equal(shrunk_mean(mean, 1.0, pairs), mean), "two numbers or one are left alone"


def test_plans_of_earlier_versions_do_as_they_said() -> None:
    ours = typed_json.plain(rule(1_000, 140, 1.0))
    assert ours.pop("shrunk") is True
    assert typed_json.convert(CovarianceSettings, ours, "settings").shrunk is False
