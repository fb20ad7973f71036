"""Audits of the shipped trainer: what is right passes, near its claim; what is wrong is found out.

At their own confidence, 95 %, one audit of twenty accuses a trainer that is right. Here seeds are
fixed and noise goes by name, so what was seen once is seen on every machine.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sfumato.audit import canaries, lira, many, one_run
from sfumato.audit.alone import run_alone
from sfumato.audit.blackbox import blackbox, hardest_label, pretrained
from sfumato.audit.replayed import replay
from sfumato.audit.result import Claim
from sfumato.clip import BoundedSum, clipped_grad
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.trees import flat
from sfumato.noise import Gaussian
from sfumato.privacy import accountants
from sfumato.privacy.calibration import gaussian_mu_for, noise_multiplier
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent
from sfumato.privacy.neighbors import ADD_OR_REMOVE, REPLACE_ONE, ZERO_OUT
from sfumato.privacy.releases import Release
from sfumato.sampling import CyclicPoisson, FullBatch, Poisson, TruncatedPoisson, WithoutReplacement
from sfumato.train.dpsgd import DPSGD

N, D, C, DELTA = 40, 40, 10, 1e-5
RNG = np.random.default_rng(0)
ROWS, LABELS = (
    RNG.standard_normal((N, D)).astype(np.float32),
    RNG.integers(0, C, N).astype(np.int32),
)

pytestmark = pytest.mark.usefixtures("noise_by_name")


def entropy(params, example):
    row, label = example
    return optax.softmax_cross_entropy_with_integer_labels(row @ params["w"] + params["b"], label)


def claim_of(epsilon, steps, rate=1.0):
    if rate == 1.0:
        return Claim({GaussianEvent(steps**0.5 / gaussian_mu_for(epsilon, DELTA)): steps}, DELTA)
    tally = lambda sigma: {PoissonSampledEvent(rate, GaussianEvent(sigma)): steps}  # noqa: E731
    return Claim(tally(noise_multiplier(tally, epsilon, DELTA)), DELTA)


def trainer(claim, **change):
    event, steps = next(iter(claim.tally.items()))
    sampled = isinstance(event, PoissonSampledEvent)
    settings = {
        "params": {"w": np.zeros((D, C), np.float32), "b": np.zeros(C, np.float32)},
        "clipped": clipped_grad(entropy, 0.5, normalized=True),
        "sampler": Poisson(event.rate, steps, N) if sampled else FullBatch(steps, N),
        "noise": Gaussian(event.noise_multiplier),
        "optimizer": optax.sgd(0.5),
        "fetch": lambda indices, step: (ROWS[indices], LABELS[indices]),
        "physical_batch_size": 64,
    }
    return DPSGD(**{**settings, **change})


def stream(seed=0):
    return np.random.default_rng(seed)


def bounds(results):
    return {each.method: each.lower_bound for each in results}


# -- white box: gradient canaries


def test_the_shipped_trainer_spends_what_it_claims_and_most_of_it_is_seen():
    """The audit of every test run. 4,000 canaries in ten runs of five steps."""
    claim = claim_of(8.0, 5)
    family, exact, alone = canaries.whitebox(trainer(claim), claim, stream(), canaries=400, runs=10)
    assert not (family.broken or exact.broken or alone.broken)
    assert family.lower_bound > 0.8 * claim.epsilon and family.observations == 4000
    assert exact.lower_bound > 1 and alone.lower_bound > 1


class TenTimesTooLittle(Gaussian):
    """A mechanism that claims its multiplier and draws a tenth of it."""

    def release(self, bound):
        return Gaussian(self.multiplier / 10).release(bound)


def test_control_a_tenth_of_the_noise_breaks_the_claim_by_every_bound():
    claim = claim_of(1.0, 5)
    noise = TenTimesTooLittle(next(iter(claim.tally)).noise_multiplier)
    results = canaries.whitebox(trainer(claim, noise=noise), claim, stream(), canaries=400)
    assert all(each.broken for each in results), bounds(results)


def test_control_a_clip_that_lets_twice_as_much_through_is_found():
    claim = claim_of(4.0, 5)
    loose = dataclasses.replace(trainer(claim).clipped, clip_norm=0.5)

    class Loose(type(loose)):
        def __call__(self, params, batch, mask):
            total = super().__call__(params, batch, mask)
            return BoundedSum(jax.tree.map(lambda leaf: 2 * leaf, total.value), total.sensitivity)

    clipped = Loose(**{each.name: getattr(loose, each.name) for each in dataclasses.fields(loose)})
    results = canaries.whitebox(trainer(claim, clipped=clipped), claim, stream(), canaries=400)
    assert results[0].broken and results[0].lower_bound > 5, bounds(results)


def test_canaries_are_as_the_arithmetic_says_and_leave_the_images_alone():
    """A canary moves its own number by S, and nothing else; images train as they do without
    canaries."""
    claim = claim_of(8.0, 2)
    plain = trainer(claim)
    audited = canaries.Canaries(plain, 60, images=N)
    audited.toss(stream())
    key = SecretKey.from_insecure_seed(3)
    total = flat(audited.measure(audited.start(), 0, key).value)
    own = flat(plain.measure(plain.start(), 0, key).value)
    expected = np.zeros(D * C + C)
    expected[audited.places[audited.included]] = 1.0
    np.testing.assert_allclose(total - own, expected, atol=1e-4)
    np.testing.assert_allclose(flat(audited._known_sum), own, atol=1e-5)


def test_images_beside_the_canaries_do_not_blind_the_attacker():
    claim = claim_of(8.0, 3)
    family, *_ = canaries.whitebox(trainer(claim), claim, stream(1), canaries=400, runs=2, images=N)
    assert 0.6 * claim.epsilon < family.lower_bound <= claim.epsilon


def test_the_likelihood_ratio_of_a_sampled_release():
    rate, sigma, seen = 0.3, 0.7, np.array([-1.0, 0.2, 2.0])
    density = lambda x, at: np.exp(-((x - at) ** 2) / (2 * sigma**2))  # noqa: E731
    expected = np.log((1 - rate) + rate * density(seen, 1) / density(seen, 0))
    found = canaries.log_likelihood_ratio(seen, PoissonSampledEvent(rate, GaussianEvent(sigma)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_canaries_refuse_what_they_cannot_audit():
    claim = claim_of(1.0, 2)
    with pytest.raises(ArgumentError, match="there are 410 parameters"):
        canaries.whitebox(trainer(claim), claim, stream(), canaries=411)
    with pytest.raises(ArgumentError, match="clipping engine"):
        bare = lambda params, batch, mask: None  # noqa: E731
        canaries.whitebox(trainer(claim, clipped=bare), claim, stream(), canaries=10)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 0.25])
@pytest.mark.parametrize("epsilon, runs", [(1.0, 80), (4.0, 20)])
def test_four_fifths_of_the_claim_are_seen(epsilon, runs, rate):
    """Also under Poisson sampling, whose claim is composed by PLD. At 8: the audit of every run."""
    claim = claim_of(epsilon, 10, rate)
    family, *others = canaries.whitebox(trainer(claim), claim, stream(5), canaries=410, runs=runs)
    assert 0.8 * claim.epsilon < family.lower_bound <= claim.epsilon
    assert not any(each.broken for each in others)


@pytest.mark.slow
def test_control_batches_that_are_twice_as_likely_are_found():
    claim = claim_of(4.0, 20, 0.2)

    class Doubled(Poisson):
        def indices(self, key, step):
            return Poisson(2 * self.rate, self.steps, self.n).indices(key, step)

    ((event, steps),) = claim.tally.items()
    family, *_ = canaries.whitebox(
        trainer(claim, sampler=Doubled(event.rate, steps, N)), claim, stream(), canaries=400, runs=5
    )
    assert family.broken


SAMPLED = {
    "truncated": TruncatedPoisson(0.25, 6, N, 16),
    "cyclic": CyclicPoisson(0.5, 6, N, 3),
    "fixed": WithoutReplacement(10, 6, N),
}


def sampled_claim(sampler, epsilon, relation):
    """(the claim, the noise that keeps it)."""
    make = lambda sigma: Release("", sampler.steps, sampler.event(GaussianEvent(sigma)), "").tally  # noqa: E731
    sigma = noise_multiplier(make, epsilon, DELTA, relation)
    return Claim(make(sigma), DELTA, relation), Gaussian(sigma)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, relation", [("truncated", ADD_OR_REMOVE), ("cyclic", REPLACE_ONE), ("fixed", ZERO_OUT)]
)
def test_every_sampler_is_audited_under_the_relation_that_it_claims(name, relation):
    """Most of the claim is seen, and none too much. (Of fixed size less of it: Rényi divergences
    price it above its worth.)"""
    claim, noise = sampled_claim(SAMPLED[name], 4.0, relation)
    assert claim.epsilon == accountants.epsilon(claim.tally, DELTA, relation=relation) > 3.99
    found = canaries.whitebox(
        trainer(claim, sampler=SAMPLED[name], noise=noise), claim, stream(6), canaries=400, runs=8
    )
    assert all(each.epsilon == claim.epsilon for each in found) and not any(
        each.broken for each in found
    )
    assert found[0].lower_bound > (0.6 if name == "fixed" else 0.7) * claim.epsilon


@pytest.mark.slow
def test_control_a_tenth_of_the_noise_is_noticed_on_cyclic_samples_under_replace_one():
    claim, noise = sampled_claim(SAMPLED["cyclic"], 4.0, REPLACE_ONE)
    little = TenTimesTooLittle(noise.multiplier)
    assert canaries.whitebox(
        trainer(claim, sampler=SAMPLED["cyclic"], noise=little), claim, stream(6), canaries=400
    )[0].broken


def test_a_canary_is_looked_for_when_its_group_has_its_turn():
    sampler = CyclicPoisson(1.0, 6, N, 3)
    claim, noise = sampled_claim(sampler, 8.0, ADD_OR_REMOVE)
    audited = canaries.Canaries(trainer(claim, sampler=sampler, noise=noise), 90, images=10)
    audited.toss(stream())
    total = flat(audited.measure(audited.start(), 4, SecretKey.from_insecure_seed(3)).value)
    there = total[audited.places] - flat(audited._known_sum)[audited.places] > 0.5
    np.testing.assert_array_equal(there, audited.included & audited._may_take_part(4))
    assert 25 <= audited._may_take_part(4).sum() <= 35


# -- white box: replay


class Sum:
    """A procedure as solvers are: the sum of rows of norm at most 1, twice."""

    name, steps = "sum", 2

    def __init__(self, rows, sigma):
        self.rows, self.sigma = rows, sigma

    def start(self):
        return jnp.zeros(5)

    def event(self, step):
        return GaussianEvent(self.sigma)

    def mechanism(self, step):
        return Gaussian(self.sigma)

    def measure(self, state, step, key):
        from sfumato.clip import Sensitivity

        return BoundedSum(jnp.asarray(self.rows.sum(0)), Sensitivity.of_contribution(1.0))

    def absorb(self, state, step, released):
        return released


@pytest.mark.slow
def test_a_replay_sees_an_example_as_long_as_the_sensitivity_and_a_longer_one():
    claim = claim_of(4.0, 2)
    sigma = next(iter(claim.tally)).noise_multiplier
    rows = RNG.standard_normal((20, 5)) / 10
    for length, broken, repeats in ((1.0, False, 2000), (2.0, True, 300)):
        having = Sum(np.vstack([rows, length * np.eye(5)[:1]]), sigma)
        family, _ = replay(Sum(rows, sigma), having, claim, stream(), repeats=repeats)
        assert family.broken == broken
        assert family.lower_bound > 0.75 * claim.epsilon
        assert family.details["least share of the sensitivity"] == pytest.approx(length, rel=1e-6)


def test_a_replay_refuses_to_compare_different_batches():
    claim = claim_of(1.0, 2, 0.5)
    with pytest.raises(ArgumentError, match="samples"):
        replay(trainer(claim), trainer(claim), claim, stream(), repeats=10)


# -- many models and the black box


@pytest.mark.slow
def test_a_model_of_the_stack_is_the_model_that_the_loop_trains():
    """Also for one that samples, averages parameters, and lacks an example."""
    claim = claim_of(8.0, 4, 0.5)
    one = trainer(claim, optimizer=optax.sgd(0.5, 0.9), ema_decay=0.9, physical_batch_size=7)
    keys = [SecretKey.from_insecure_seed(k) for k in range(3)]
    present = np.ones((3, N), bool)
    present[1, ::2] = False
    stacked = many.train_many(one, present, keys, together=2)
    for k, key in enumerate(keys):
        clipped = lambda params, batch, mask: one.clipped(params, batch[0], mask & batch[1])  # noqa: E731
        fetch = lambda indices, step, k=k: (one.fetch(indices, step), present[k][indices])  # noqa: E731
        alone = run_alone(dataclasses.replace(one, clipped=clipped, fetch=fetch), claim, key)
        for found, expected in zip(jax.tree.leaves(stacked), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(found[k], expected, atol=2e-5)


def worst_case(claim, **change):
    start = pretrained(
        entropy,
        {"w": np.zeros((D, C), np.float32), "b": np.zeros(C, np.float32)},
        (ROWS, LABELS),
        steps=60,
    )
    image = np.ones(D, np.float32)
    return trainer(claim, params=start, **change), (
        image,
        np.int32(hardest_label(entropy, start, image, C)),
    )


@pytest.mark.slow
def test_the_black_box_sees_most_of_the_claim_and_no_more():
    claim = claim_of(10.0, 3)
    family, exact = blackbox(*worst_case(claim), claim, stream(1), models=300, together=50)
    assert 0.5 * claim.epsilon < family.lower_bound <= claim.epsilon
    assert not exact.broken and exact.lower_bound > 0.5


@pytest.mark.slow
def test_control_the_black_box_finds_a_tenth_of_the_noise():
    claim = claim_of(1.0, 3)
    noise = TenTimesTooLittle(next(iter(claim.tally)).noise_multiplier)
    family, exact = blackbox(
        *worst_case(claim, noise=noise), claim, stream(1), models=400, together=50
    )
    assert family.broken and exact.broken


# -- one run, LiRA


def test_one_run_believes_a_model_that_forgets_and_convicts_one_that_remembers():
    claim, coins = claim_of(1.0, 1), stream(2)
    forgets = one_run.one_run_audit(
        lambda included: coins.standard_normal(len(included)), 200, claim, stream()
    )
    remembers = one_run.one_run_audit(
        lambda included: np.where(included, 0.0, 5.0) + 0.1 * coins.standard_normal(200),
        200,
        claim,
        stream(),
    )
    assert not forgets[0].broken and remembers[0].broken


def test_wrong_labels_are_wrong_and_all_of_them_occur():
    labels = np.repeat(np.arange(4), 100)
    wrong = one_run.wrong_labels(labels, 4, stream())
    assert not (wrong == labels).any() and set(wrong[labels == 2].tolist()) == {0, 1, 3}


def sureness(inside, memory, noise):
    return np.linspace(-2, 2, len(inside)) + memory * inside + noise.standard_normal(len(inside))


def test_lira_reaches_the_area_that_the_gaussians_allow():
    """phi differs by `memory` standard deviations, so the area is Phi(memory / sqrt 2)."""
    from scipy.stats import norm

    claim, noise, members = claim_of(8.0, 1), stream(3), np.arange(4000) < 2000
    for memory in (0.0, 1.0):
        audited = sureness(members, memory, noise)
        (found,) = lira.lira(
            lambda inside, m=memory: sureness(inside, m, noise),
            audited,
            members,
            claim,
            stream(),
            shadows=32,
        )
        assert found.details["AUC"] == pytest.approx(norm.cdf(memory / 2**0.5), abs=0.03)
        assert not found.broken
        assert found.details["TPR at FPR 0.01"] < found.details["TPR allowed at FPR 0.01"]


def test_lira_counts_a_share_of_false_positives_that_is_no_larger_than_asked():
    claim, members = claim_of(1.0, 1), np.arange(300) < 200
    scores = np.where(members, 1.0, 0.0) + np.arange(300) * 1e-6
    points = lira.operating_points(scores, members, claim)
    assert points["AUC"] == 1 and points["TPR at FPR 0.001"] == points["TPR at FPR 0.01"] == 1
    scores[299] = 9.0  # one other above all members: a rate of 1 %
    points = lira.operating_points(scores, members, claim)
    assert points["TPR at FPR 0.001"] == 0 and points["TPR at FPR 0.01"] == 1
