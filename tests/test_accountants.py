"""Accountants and calibration against closed forms, brute-force integrals, RDP and published
numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from mpmath import mp, mpf, ncdf
from pace import paced

from sfumato.core.checks import default_delta, large_delta, privacy_target
from sfumato.core.errors import ArgumentError
from sfumato.privacy import calibration
from sfumato.privacy.accountants import describe, epsilon
from sfumato.privacy.calibration import RELATIVE_TOLERANCE, gaussian_mu_for, noise_multiplier
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, tally
from sfumato.privacy.relations import simplified

REFUSED = (ArgumentError, TypeCheckError)
COARSE = 1e-3  # ten times cheaper, for laws that hold at every interval


def poisson(rate, sigma, steps):
    return tally((PoissonSampledEvent(rate, GaussianEvent(sigma)), steps))


def gaussian(sigma, steps=1):
    return tally((GaussianEvent(sigma), steps))


def exact_delta(mu, eps):
    """delta(epsilon) of N(mu, 1) against N(0, 1), Balle & Wang 2018, in 60 digits: no cancellation
    to worry about."""
    with mp.workdps(60):
        mu, eps = mpf(mu), mpf(eps)
        return float(ncdf(mu / 2 - eps / mu) - mp.exp(eps) * ncdf(-mu / 2 - eps / mu))


def integrated_delta(rate, sigma, eps):
    """delta(epsilon) of ONE subsampled Gaussian by summing max(0, p - e^eps q) on a fine grid,
    worse of add and remove."""
    x, step = np.linspace(-14 * sigma, 1 + 14 * sigma, 2_000_001, retstep=True)
    without = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    mixed = (1 - rate) * without + rate * np.exp(-0.5 * ((x - 1) / sigma) ** 2) / (
        sigma * math.sqrt(2 * math.pi)
    )
    remove = np.maximum(mixed - math.exp(eps) * without, 0).sum() * step
    add = np.maximum(without - math.exp(eps) * mixed, 0).sum() * step
    return float(max(remove, add)), float(remove), float(add)


# -- full batch


@pytest.mark.parametrize(
    "sigma, steps, delta",
    [(1, 1, 1e-5), (0.3, 1, 1e-9), (40, 1000, 1e-5), (2000, 100, 1e-6), (0.05, 3, 1e-5)],
)
def test_gaussian_epsilon_is_the_root_of_the_exact_delta_and_errs_above(sigma, steps, delta):
    found = epsilon(gaussian(sigma, steps), delta)
    mu = math.sqrt(steps) / sigma
    assert exact_delta(mu, found) <= delta * (1 + 1e-12)
    assert exact_delta(mu, found * (1 - 1e-6)) > delta


def test_squared_mu_adds_over_different_events():
    mixed = tally((GaussianEvent(2.0), 3), (GaussianEvent(5.0), 10))
    mu = math.sqrt(3 / 4 + 10 / 25)
    assert simplified(mixed)[0] == pytest.approx(mu, rel=1e-14)
    assert epsilon(mixed, 1e-5) == pytest.approx(epsilon(gaussian(1 / mu), 1e-5), rel=1e-9)


def test_published_gaussian_values():
    assert (
        epsilon(gaussian(4.8448, 1), 1e-5) < 1
    )  # the classical sqrt(2 ln(1.25/delta)) calibration is not tight
    assert epsilon(gaussian(3.7304, 1), 1e-5) == pytest.approx(1.0, abs=2e-4)


def test_an_empty_tally_costs_nothing():
    assert epsilon({}, 1e-5) == 0
    assert (
        epsilon({GaussianEvent(1.0): 0, PoissonSampledEvent(0.1, GaussianEvent(1.0)): 0}, 1e-5) == 0
    )


# -- subsampled


@pytest.mark.parametrize(
    "rate, sigma, steps, published",
    [
        (4096 / 50_000, 3.0, 2500, 6.579),  # dp-accounting PLD
        (4096 / 50_000, 3.0, 2468, 6.53),  # within 1 %
        (
            0.01,
            4.0,
            10_000,
            0.95,
        ),  # Gopi et al. 2021: under 1 where the moments accountant gives 1.26
    ],
)
def test_published_subsampled_values(rate, sigma, steps, published):
    assert epsilon(poisson(rate, sigma, steps), 1e-5) == pytest.approx(
        published, rel=2e-4 if published == 6.579 else 2e-2
    )


@pytest.mark.parametrize(
    "rate, sigma, steps, delta",
    [(0.02, 1.1, 300, 1e-5), (0.3, 3, 50, 1e-6), (0.001, 0.7, 1000, 1e-7)],
)
def test_pld_is_below_renyi_and_not_by_much(rate, sigma, steps, delta):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, rdp

    accountant = rdp.RdpAccountant()
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    upper = accountant.get_epsilon(delta)
    assert 0.5 * upper < epsilon(poisson(rate, sigma, steps), delta) <= upper


@pytest.mark.parametrize(
    "rate, sigma", paced([(0.01, 0.6), (0.1, 1.0), (0.5, 2.0), (0.9, 0.8)], (0.1, 1.0), (0.5, 2.0))
)
def test_one_subsampled_step_equals_a_brute_force_integral_and_errs_above(rate, sigma):
    delta = 1e-4
    found = epsilon(poisson(rate, sigma, 1), delta)
    worse, remove, add = integrated_delta(rate, sigma, found)
    assert worse <= delta * (1 + 1e-6)
    assert remove <= delta * (1 + 1e-6) and add <= delta * (1 + 1e-6)
    assert integrated_delta(rate, sigma, found - 3e-4)[0] > delta


def test_rate_one_is_the_plain_gaussian():
    assert epsilon(poisson(1.0, 7.0, 20), 1e-5) == epsilon(gaussian(7.0, 20), 1e-5)


def test_a_rate_of_nearly_one_is_nearly_the_plain_gaussian():
    assert epsilon(poisson(1 - 1e-9, 7.0, 20), 1e-5) == pytest.approx(
        epsilon(gaussian(7.0, 20), 1e-5), abs=3e-3
    )


def test_mixing_costs_more_than_each_and_less_than_the_sum_of_epsilons():
    one, two = poisson(0.05, 1.0, 20), gaussian(5.0, 4)
    both = epsilon(one + two, 1e-5)
    assert (
        max(epsilon(one, 1e-5), epsilon(two, 1e-5)) < both < epsilon(one, 5e-6) + epsilon(two, 5e-6)
    )
    same = (
        one + gaussian(5.0, 1) + gaussian(5 / math.sqrt(3), 1)
    )  # mu^2 = 1/25 + 3/25, otherwise written
    assert epsilon(same, 1e-5) == pytest.approx(both, abs=1e-9)


def test_a_mixture_does_not_depend_on_the_order_of_its_events():
    parts = [
        (PoissonSampledEvent(0.1, GaussianEvent(2.0)), 5),
        (PoissonSampledEvent(0.05, GaussianEvent(1.0)), 3),
        (GaussianEvent(4.0), 2),
    ]
    assert epsilon(tally(*parts), 1e-5, COARSE) == epsilon(tally(*parts[::-1]), 1e-5, COARSE)


events = st.tuples(
    st.floats(0.001, 0.9),
    st.floats(0.6, 20),
    st.integers(1, 300),
    st.sampled_from([1e-7, 1e-5, 1e-3]),
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(events, st.floats(1.05, 3))
def test_epsilon_is_monotone_in_steps_sigma_rate_and_delta(event, more):
    rate, sigma, steps, delta = event
    here = epsilon(poisson(rate, sigma, steps), delta, COARSE)
    slack = (
        1e-6 + 1e-3 * here
    )  # the discretization is pessimistic by up to a bucket, and not itself monotone
    assert epsilon(poisson(rate, sigma, math.ceil(steps * more)), delta, COARSE) >= here - slack
    assert epsilon(poisson(rate, sigma * more, steps), delta, COARSE) <= here + slack
    assert epsilon(poisson(min(1.0, rate * more), sigma, steps), delta, COARSE) >= here - slack
    assert epsilon(poisson(rate, sigma, steps), min(0.5, delta * more), COARSE) <= here + slack


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 1e4), st.integers(1, 10_000), st.floats(1e-12, 0.1), st.floats(1.01, 10))
def test_gaussian_epsilon_is_monotone(sigma, steps, delta, more):
    here = epsilon(gaussian(sigma, steps), delta)
    assert epsilon(gaussian(sigma, math.ceil(steps * more)), delta) >= here - 1e-9
    assert epsilon(gaussian(sigma * more, steps), delta) <= here + 1e-9
    assert epsilon(gaussian(sigma, steps), min(0.5, delta * more)) <= here + 1e-9


@pytest.mark.parametrize("event", ["gaussian", None, 3, ("poisson", 0.1)])
def test_an_unknown_event_is_refused_not_counted_as_nothing(event):
    with pytest.raises(REFUSED):
        epsilon({event: 1}, 1e-5)


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_an_event_that_wraps_no_gaussian_is_refused_not_counted_as_nothing(rate):
    inner = PoissonSampledEvent(0.5, GaussianEvent(1.0))
    for wrapped in (inner, "gaussian"):
        with pytest.raises(REFUSED):
            epsilon({PoissonSampledEvent(rate, wrapped): 1}, 1e-5)


@pytest.mark.parametrize("count", [-1, 0.5])
def test_a_count_that_is_no_count_is_refused(count):
    with pytest.raises(REFUSED):
        epsilon({GaussianEvent(1.0): count}, 1e-5)


@pytest.mark.parametrize("delta", [0, -1e-5, 1, 2, math.nan, math.inf])
def test_a_delta_that_is_no_delta_is_refused(delta):
    with pytest.raises(REFUSED):
        epsilon(gaussian(1.0), delta)


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf])
def test_noise_that_is_no_noise_is_refused(sigma):
    with pytest.raises(REFUSED):
        GaussianEvent(sigma)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, math.nan])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(REFUSED):
        PoissonSampledEvent(rate, GaussianEvent(1.0))


def test_the_report_names_the_accountant_that_ran():
    assert "PLD" in describe(poisson(0.1, 1.0, 1), 1e-5)
    assert "tighter than PLD" in describe(poisson(0.01, 1.2, 100), 1e-16)
    assert "exact" in describe(gaussian(1.0), 1e-5)


# -- calibration

GRID = [
    (eps, rate, steps) for eps in (0.1, 1.0, 8.0) for rate, steps in ((0.08, 200), (0.01, 1000))
]
EXTREMES = [(0.01, 0.02, 100), (20.0, 0.05, 100), (0.01, 0.08, 2500), (20.0, 0.08, 2500)]


@pytest.mark.parametrize("target, rate, steps", paced(GRID + EXTREMES, (1.0, 0.08, 200)))
def test_calibrated_noise_keeps_the_promise_and_wastes_nothing(target, rate, steps):
    sigma = noise_multiplier(lambda s: poisson(rate, s, steps), target, 1e-5)
    spent = epsilon(poisson(rate, sigma, steps), 1e-5)
    assert 0.998 * target < spent <= target


@pytest.mark.parametrize("target", [0.01, 0.1, 1.0, 8.0, 20.0, 100.0])
def test_calibrated_full_batch_noise_keeps_the_promise_and_wastes_nothing(target):
    sigma = noise_multiplier(lambda s: gaussian(s, 100), target, 1e-6)
    assert 0.998 * target < epsilon(gaussian(sigma, 100), 1e-6) <= target
    assert epsilon(gaussian(sigma / (1 + 2 * RELATIVE_TOLERANCE), 100), 1e-6) > target


@pytest.mark.parametrize("target", [0, -1, math.nan, math.inf])
def test_calibration_refuses_a_target_that_is_none(target):
    with pytest.raises(REFUSED):
        noise_multiplier(lambda s: gaussian(s), target, 1e-5)


def test_calibration_says_when_no_noise_suffices():
    with pytest.raises(ArgumentError, match="epsilon"):
        noise_multiplier(lambda s: gaussian(1.0), 0.1, 1e-5)


@pytest.mark.parametrize("target", [0.01, 0.1, 1.0, 8.0, 20.0])
@pytest.mark.parametrize("delta", [1e-4, 1e-9])
def test_the_gaussian_budget_is_the_largest_that_keeps_the_promise(target, delta):
    mu = gaussian_mu_for(target, delta)
    assert exact_delta(mu, target) <= delta
    assert exact_delta(mu * (1 + 1e-6), target) > delta


# -- targets


@pytest.mark.parametrize(
    "n, delta",
    [
        (1, 1e-5),
        (33, 1e-5),
        (900, 1e-5),
        (10_000, 1e-5),
        (10_001, 1e-6),
        (50_000, 1e-6),
        (10**6, 1e-7),
        (10**6 + 1, 1e-8),
        (1_281_167, 1e-8),
    ],
)
def test_default_delta_lets_a_tenth_of_an_example_be_published_at_most(n, delta):
    assert default_delta(n) == delta and n * delta <= 0.1 * (1 + 1e-9)
    assert privacy_target(1.0, None, n) == (1.0, delta)
    assert large_delta(delta, n) == "" != large_delta(1.01 / (10 * n), n)


@pytest.mark.parametrize(
    "eps, delta",
    [
        (0, 1e-5),
        (-1, 1e-5),
        (math.inf, 1e-5),
        (math.nan, 1e-5),
        (1, 1e-3),
        (1, 1e-2),
        (1, 0),
        (1, -1e-9),
        (1, math.nan),
        (1, math.inf),
    ],
)
def test_a_target_outside_what_protects_anyone_is_refused_with_a_way_out(eps, delta):
    with pytest.raises(ArgumentError, match="give a"):
        privacy_target(eps, delta, 1000)


@pytest.mark.parametrize(
    "find",
    [
        lambda epsilon: calibration.gaussian_mu_for(epsilon, 1e-5),
        lambda epsilon: calibration.noise_multiplier(
            lambda sigma: {GaussianEvent(sigma): 1}, epsilon, 1e-5
        ),
    ],
)
def test_an_epsilon_that_no_accountant_can_tell_from_zero_is_refused(find):
    find(calibration.LEAST)
    with pytest.raises(ArgumentError, match="or more"):
        find(1e-12)
