"""Samplers and noise are what their events claim. Every check is also shown a planted bug that it
must notice."""

import inspect
import tracemalloc
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chance import UNLIKELY, are_normal, as_likely, has_deviation, sigmas
from jaxtyping import TypeCheckError
from scipy import stats

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian, gaussian
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent
from sfumato.sampling import FullBatch, Poisson

KEY = SecretKey.from_insecure_seed(3)
REFUSED = (ArgumentError, TypeCheckError)


# -- the law of a Poisson sampler


def check_poisson_law(sampler, key, steps):
    """Sizes are binomial; each example, each pair, each example in consecutive steps has the rate
    it should have."""
    n, rate = sampler.n, sampler.rate
    member = np.zeros((steps, n), bool)
    for step in range(steps):
        chosen = sampler.indices(key, step)
        assert len(np.unique(chosen)) == len(chosen), "drawn with replacement"
        member[step, chosen] = True
    sizes = member.sum(1)
    edges = np.unique(stats.binom.ppf(np.linspace(0.1, 0.9, 9), n, rate))
    probability = np.diff(np.concatenate([[0], stats.binom.cdf(edges, n, rate), [1]]))
    observed = np.bincount(np.searchsorted(edges, sizes), minlength=len(probability))
    assert as_likely(observed, probability) > UNLIKELY, "batch sizes are not binomial"
    counts = member.sum(0)
    assert as_likely(np.stack([counts, steps - counts], 1), [rate, 1 - rate]) > UNLIKELY, (
        "examples do not all have the rate"
    )
    z = (counts - steps * rate) / np.sqrt(steps * rate * (1 - rate))
    assert stats.chi2.cdf((z**2).sum(), n) > UNLIKELY, (
        "examples take turns: their counts vary too little"
    )
    centered = member - rate
    pairs = np.triu_indices(n, 1)
    covariance = (centered.T @ centered)[pairs] / (rate * (1 - rate) * np.sqrt(steps))
    assert abs(covariance.sum() / np.sqrt(len(covariance))) < sigmas(), (
        "examples are not independent"
    )
    turns = (centered[1:] * centered[:-1]).sum() / (rate * (1 - rate) * np.sqrt((steps - 1) * n))
    assert abs(turns) < sigmas(), "steps are not independent"


@pytest.mark.parametrize("n, rate, steps", [(40, 0.2, 2000), (7, 0.7, 2000), (60, 0.02, 3000)])
def test_poisson_batches_follow_the_poisson_law(n, rate, steps):
    """False alarms: 3e-8."""
    check_poisson_law(Poisson(rate, steps, n), KEY, steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "n, rate, steps", [(40, 0.2, 20_000), (300, 0.1, 10_000), (12_000, 0.5, 400)]
)
def test_poisson_batches_follow_the_poisson_law_at_length(n, rate, steps):
    """False alarms: 3e-8."""
    check_poisson_law(Poisson(rate, steps, n), KEY, steps) if n < 1000 else check_large(
        Poisson(rate, steps, n), steps
    )


def check_large(sampler, steps):
    """Above 10,000 numpy draws subsets by other algorithms."""
    counts = np.zeros(sampler.n)
    for step in range(steps):
        counts[sampler.indices(KEY, step)] += 1
    z = (counts - steps * sampler.rate) / np.sqrt(steps * sampler.rate * (1 - sampler.rate))
    assert UNLIKELY < stats.chi2.sf((z**2).sum(), sampler.n) < 1 - UNLIKELY
    assert abs(np.corrcoef(np.arange(sampler.n), counts)[0, 1]) < sigmas() / np.sqrt(sampler.n)


@dataclass(frozen=True)
class FixedSize(Poisson):
    """Negative control: always rate * n examples."""

    def indices(self, key, step):
        return np.sort(
            key.stream("sample", step).choice(self.n, round(self.rate * self.n), replace=False)
        )


@dataclass(frozen=True)
class ShuffledEpochs(Poisson):
    """Negative control: what most loaders do and most papers call Poisson."""

    def indices(self, key, step):
        size = round(self.rate * self.n)
        epoch, position = divmod(step, self.n // size)
        return key.stream("epoch", epoch).permutation(self.n)[
            position * size : (position + 1) * size
        ]


@dataclass(frozen=True)
class RandomSizeShuffledEpochs(Poisson):
    """Negative control: binomial sizes, but examples take turns."""

    def indices(self, key, step):
        size = int(key.stream("sample", step).binomial(self.n, self.rate))
        first = 0
        for earlier in range(step % 10):
            first += int(key.stream("sample", step - 1 - earlier).binomial(self.n, self.rate))
        order = key.stream("epoch", step // 10).permutation(self.n)
        return order[(first + np.arange(size)) % self.n]


@dataclass(frozen=True)
class SameBatch(Poisson):
    """Negative control: the step is forgotten."""

    def indices(self, key, step):
        return super().indices(key, step // 2)


@dataclass(frozen=True)
class Lockstep(Poisson):
    """Negative control: right rates, but examples come in pairs."""

    def indices(self, key, step):
        return np.flatnonzero(
            np.repeat(key.stream("sample", step).random(self.n // 2) < self.rate, 2)
        )


@pytest.mark.parametrize(
    "wrong", [FixedSize, ShuffledEpochs, RandomSizeShuffledEpochs, SameBatch, Lockstep]
)
def test_control_other_samplers_do_not_pass_for_poisson(wrong):
    """False alarms: 1e-9: the statistic of each is far above its bound."""
    with pytest.raises(AssertionError):
        check_poisson_law(wrong(0.2, 2000, 40), KEY, 2000)


def test_control_a_slightly_wrong_rate_is_noticed():
    """False alarms: 1e-9: of 80,000 draws, 14 standard deviations."""

    class Wrong(Poisson):
        def indices(self, key, step):
            return Poisson(0.22, self.steps, self.n).indices(key, step)

    with pytest.raises(AssertionError):
        check_poisson_law(Wrong(0.2, 2000, 40), KEY, 2000)


def test_a_batch_is_a_function_of_key_and_step_alone():
    sampler = Poisson(0.3, 100, 1000)
    forward = [sampler.indices(KEY, step) for step in range(20)]
    np.random.seed(0)
    for step in reversed(range(20)):
        assert np.array_equal(Poisson(0.3, 100, 1000).indices(KEY, step), forward[step])
        assert np.array_equal(forward[step], np.sort(forward[step]))
    assert len({tuple(batch) for batch in forward}) == 20
    assert not np.array_equal(sampler.indices(SecretKey.from_insecure_seed(4), 0), forward[0])
    assert list(inspect.signature(sampler.indices).parameters) == ["key", "step"]


def test_an_empty_batch_is_legal_and_a_billion_examples_are_quick():
    """False alarms: 2e-9: 9 of 50 batches not empty at 3 % each, a size 7 deviations off, no index
    in a hundredth of all."""
    assert sum(len(Poisson(0.01, 1, 3).indices(KEY, step)) == 0 for step in range(50)) > 35
    tracemalloc.start()
    chosen = Poisson(4096 / 1e9, 1, 10**9).indices(KEY, 0)
    assert tracemalloc.get_traced_memory()[1] < 10**7, "it looked at everybody"
    tracemalloc.stop()
    assert abs(len(chosen) - 4096) < 7 * 64
    assert 0 <= chosen.min() < 10**7 < 10**9 - 10**7 < chosen.max() < 10**9


def test_samplers_claim_the_event_of_their_law_and_divide_by_public_constants():
    gaussian = GaussianEvent(2.0)
    assert Poisson(0.1, 5, 1000).event(gaussian) == PoissonSampledEvent(0.1, gaussian)
    assert Poisson(1.0, 5, 1000).event(gaussian) == FullBatch(5, 1000).event(gaussian) == gaussian
    assert Poisson(0.1, 5, 1000).expected_batch_size == pytest.approx(100)
    assert FullBatch(5, 1000).expected_batch_size == 1000
    for whole in (FullBatch(5, 10), Poisson(1.0, 5, 10)):
        assert whole.indices(KEY, 2).tolist() == list(range(10))


@pytest.mark.parametrize(
    "change",
    [{"rate": 0.0}, {"rate": 1.5}, {"rate": float("nan")}, {"steps": 0}, {"n": 0}, {"n": 1.5}],
)
def test_a_sampler_of_nothing_is_refused(change):
    with pytest.raises(REFUSED):
        Poisson(**{"rate": 0.1, "steps": 1, "n": 10, **change})


# -- noise

MULTIPLIER, BOUND = 1.7, 0.35
SHAPES = {"bias": (40,), "layers": [(30, 40), (8, 5, 40)]}
STEPS = 60


def zeros():
    return jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda shape: isinstance(shape, tuple))


def noise_of(mechanism, step, key=KEY):
    """The noise that a mechanism adds to every leaf, flattened."""
    total = BoundedSum(zeros(), Sensitivity.of_contribution(BOUND))
    return [
        np.asarray(leaf, np.float64)
        for leaf in jax.tree.leaves(mechanism(total, key.at(f"r/{step}")))
    ]


def uncorrelated(x, y):
    return abs(x.ravel() @ y.ravel()) / np.sqrt(x.size) < sigmas() * x.std() * y.std() * 1.05


def check_noise_law(mechanism, steps=STEPS):
    """Normal with standard deviation multiplier * sensitivity in every leaf; independent of
    everything else."""
    draws = [noise_of(mechanism, step) for step in range(steps)]
    for index, shape in enumerate([leaf.shape for leaf in draws[0]]):
        leaf = np.stack([draw[index] for draw in draws]) / (MULTIPLIER * BOUND)
        assert has_deviation(leaf), f"leaf of shape {shape} has the wrong scale"
        assert are_normal(leaf), "not normal"
        assert uncorrelated(leaf[1:], leaf[:-1]), "steps share noise"
        for axis in range(1, leaf.ndim):
            assert uncorrelated(np.roll(leaf, 1, axis), leaf), (
                f"neighbors along axis {axis} share noise"
            )
        spread = leaf.mean(-1).var() * leaf.shape[-1]
        assert spread < stats.chi2.isf(UNLIKELY, leaf[..., 0].size) / leaf[..., 0].size, (
            "classes share noise"
        )
    flat = [np.stack([draw[index] for draw in draws]).reshape(steps, -1) for index in range(3)]
    for one in range(3):
        for two in range(one):
            width = min(flat[one].shape[1], flat[two].shape[1])
            assert uncorrelated(flat[one][:, :width], flat[two][:, :width]), "leaves share noise"


def test_gaussian_noise_follows_the_law_its_event_claims():
    """False alarms: 1e-8."""
    mechanism = Gaussian(MULTIPLIER)
    assert mechanism.event == GaussianEvent(MULTIPLIER)
    check_noise_law(mechanism)


@pytest.mark.slow
def test_gaussian_noise_follows_the_law_its_event_claims_at_length():
    """False alarms: 1e-8."""
    check_noise_law(Gaussian(MULTIPLIER), steps=1000)


def planted(name):
    """A Gaussian mechanism with one bug."""
    good = Gaussian(MULTIPLIER)

    def leaves_of(total, key, change):
        return jax.tree.map(change, good(total, key))

    def shared_by_leaves(total, key):
        flat, structure = jax.tree.flatten(total.value)
        drawn = [
            key.stream("noise").standard_normal(leaf.shape) * MULTIPLIER * BOUND for leaf in flat
        ]
        return jax.tree.unflatten(structure, drawn)

    return {
        "no noise": lambda total, key: total.value,
        "scaled by 0.97": lambda total, key: leaves_of(total, key, lambda leaf: 0.97 * leaf),
        "scaled by multiplier only": lambda total, key: leaves_of(
            total, key, lambda leaf: leaf / BOUND
        ),
        "variance for standard deviation": lambda total, key: leaves_of(
            total, key, lambda x: x * MULTIPLIER * BOUND
        ),
        "uniform of the same variance": lambda total, key: leaves_of(
            total,
            key,
            lambda x: (
                (stats.norm.cdf(np.asarray(x) / MULTIPLIER / BOUND) - 0.5)
                * 12**0.5
                * MULTIPLIER
                * BOUND
            ),
        ),
        "same for every class": lambda total, key: leaves_of(
            total, key, lambda leaf: jnp.broadcast_to(leaf[..., :1], leaf.shape)
        ),
        "same every step": lambda total, key: good(total, KEY.at("r/0")),
        "every step twice": lambda total, key: good(
            total, KEY.at(f"r/{int(key._prefix[0][2:]) // 2}")
        ),
        "shared by leaves": shared_by_leaves,
    }[name]


@pytest.mark.parametrize(
    "bug",
    [
        "no noise",
        "scaled by 0.97",
        "scaled by multiplier only",
        "variance for standard deviation",
        "uniform of the same variance",
        "same for every class",
        "same every step",
        "every step twice",
        "shared by leaves",
    ],
)
def test_control_wrong_noise_is_noticed(bug):
    """False alarms: 1e-9: 3 % of 96,000 numbers is 13 standard deviations, the others are further
    off."""
    with pytest.raises(AssertionError):
        check_noise_law(planted(bug))


def test_noise_is_a_function_of_key_and_release_name():
    mechanism = Gaussian(MULTIPLIER)
    one, again, other = noise_of(mechanism, 1), noise_of(mechanism, 1), noise_of(mechanism, 2)
    stranger = noise_of(mechanism, 1, SecretKey.from_insecure_seed(8))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(np.any(a == b) for a, b in zip(one, other, strict=True))
    assert not any(np.any(a == b) for a, b in zip(one, stranger, strict=True))


def test_the_release_is_the_sum_plus_its_noise():
    value = jax.tree.map(lambda leaf: leaf + 100.0, zeros())
    bound = Gaussian(MULTIPLIER).bind(
        BoundedSum(value, Sensitivity.of_contribution(BOUND)), KEY.at("r/0")
    )
    released = Gaussian(MULTIPLIER).release(bound)
    for got, noise in zip(
        jax.tree.leaves(released), gaussian.unit_noise(value, bound.key), strict=True
    ):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, 100.0 + MULTIPLIER * BOUND * noise, rtol=1e-6)


def test_two_leaves_of_one_name_never_share_noise():
    tree = {"a": {"b": jnp.zeros(3)}, "a/b": jnp.zeros(3)}
    with pytest.raises(ArgumentError, match="two leaves"):
        Gaussian(1.0)(BoundedSum(tree, Sensitivity.of_contribution(1.0)), KEY)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_of_no_scale_is_refused(multiplier):
    with pytest.raises(REFUSED):
        Gaussian(multiplier)


# -- sums


def test_joining_microbatches_keeps_the_sensitivity_and_refuses_another():
    one, two = Sensitivity.of_contribution(1.0), Sensitivity.of_contribution(2.0)
    joined = BoundedSum({"a": jnp.ones(2)}, one) + BoundedSum({"a": jnp.ones(2)}, one)
    assert joined.sensitivity == one
    assert joined.value["a"].tolist() == [2, 2]
    with pytest.raises(ArgumentError, match="sensitivity"):
        BoundedSum(jnp.ones(2), one) + BoundedSum(jnp.ones(2), two)


def test_sensitivity_by_relation_of_neighborhood():
    bound = Sensitivity.of_contribution(0.5)
    assert (bound.add_or_remove, bound.zero_out, bound.replace_one) == (0.5, 0.5, 1.0)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(REFUSED):
            Sensitivity.of_contribution(wrong)
