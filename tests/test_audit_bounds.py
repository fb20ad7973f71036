"""The statistics of audits: by hand, against the slow way, and by their coverage on mechanisms of
known epsilon."""

import math

import numpy as np
import pytest
from chance import UNLIKELY
from scipy.stats import binom, norm

from sfumato.audit import bounds, verdicts
from sfumato.audit.family import family_epsilon, profile, scaled, seen, total_variation
from sfumato.audit.result import AuditRecord, AuditResult, Claim
from sfumato.core.errors import ArgumentError
from sfumato.privacy.accountants import epsilon
from sfumato.privacy.calibration import gaussian_mu_for
from sfumato.privacy.events import (
    CyclicPoissonEvent,
    FixedSizeEvent,
    GaussianEvent,
    PoissonSampledEvent,
    SelectedEvent,
    TruncatedPoissonEvent,
)
from sfumato.privacy.relations import true_positive_rate

DELTA = 1e-5
LEVEL = 0.95


def gaussian(mu):
    return {GaussianEvent(1 / mu): 1}


# -- Clopper-Pearson


def test_limits_of_a_proportion_by_hand():
    assert bounds.lower_limit(10, 10, LEVEL) == pytest.approx(0.05**0.1)  # p^10 = 0.05
    assert bounds.lower_limit(0, 10, LEVEL) == 0
    low = bounds.lower_limit(7, 20, LEVEL)
    assert binom.sf(6, 20, low) == pytest.approx(0.05)


def test_clopper_pearson_epsilon_by_hand():
    """No error in 100 + 100: both rates are below u = 1 - 0.025^(1/100) = 3.62 %, and epsilon above
    log((1 - u) / u)."""
    upper = 1 - 0.025**0.01
    assert bounds.clopper_pearson(0, 100, 0, 100, 0.0, LEVEL) == pytest.approx(
        math.log((1 - upper) / upper)
    )
    assert bounds.clopper_pearson(0, 100, 0, 100, DELTA, LEVEL) == pytest.approx(
        math.log((1 - upper - DELTA) / upper)
    )
    assert bounds.clopper_pearson(50, 100, 50, 100, 0.0, LEVEL) == 0
    assert bounds.clopper_pearson(100, 100, 100, 100, 0.0, LEVEL) == 0, (
        "only a detector that is right is evidence"
    )


def test_clopper_pearson_sees_both_ends_of_the_curve():
    """The second inequality finds what the first does not: a mechanism that shows some absentees
    for certain."""
    assert bounds.clopper_pearson(500, 1000, 0, 1000, 0.0, LEVEL) > 4
    assert bounds.clopper_pearson(0, 1000, 500, 1000, 0.0, LEVEL) > 4


# -- one run


def test_one_run_by_hand_without_delta():
    """r right of r: refuted while (e^eps / (1 + e^eps))^r <= 0.05."""
    q = 0.05 ** (1 / 100)
    found = bounds.one_run(100, 100, 100, 0.0, LEVEL)
    assert found <= math.log(q / (1 - q)) < found + 0.01
    assert bounds.one_run_p_value(100, 100, 100, found, 0.0) <= 0.05


def test_one_run_p_value_is_the_theorem_written_out():
    def slowly(m, r, v, eps, delta):
        q = math.exp(eps) / (1 + math.exp(eps))
        mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
        return sum(mass[v:]) + 2 * m * delta * max(
            sum(mass[v - i : v]) / i for i in range(1, v + 1)
        )

    for m, r, v, eps, delta in (
        (100, 40, 33, 1.0, 1e-3),
        (50, 50, 40, 0.5, 1e-5),
        (1000, 60, 59, 2.0, 1e-4),
    ):
        assert bounds.one_run_p_value(m, r, v, eps, delta) == pytest.approx(
            slowly(m, r, v, eps, delta), rel=1e-9
        )


def test_one_run_pays_for_delta_and_for_canaries_and_refuses_nonsense():
    free = bounds.one_run(1000, 100, 95, 0.0, LEVEL)
    assert (
        free
        > bounds.one_run(1000, 100, 95, 1e-4, LEVEL)
        > bounds.one_run(100_000, 100, 95, 1e-4, LEVEL)
        >= 0
    )
    assert bounds.one_run(1000, 100, 50, 0.0, LEVEL) == 0
    with pytest.raises(ArgumentError, match="only 10 canaries"):
        bounds.one_run(10, 11, 5, 0.0, LEVEL)
    with pytest.raises(ArgumentError, match="right=11"):
        bounds.one_run(10, 10, 11, 0.0, LEVEL)
    with pytest.raises(ArgumentError, match="confidence"):
        bounds.one_run(10, 10, 5, 0.0, 0.05)


# -- the known family


def test_the_best_share_of_right_guesses_is_reached_by_the_likelihood_ratio():
    for mu in (0.3, 1.0, 2.5):
        assert (1 + total_variation(gaussian(mu))) / 2 == pytest.approx(norm.cdf(mu / 2), abs=1e-9)


def test_the_profile_of_a_sampled_release_is_the_integral():
    rate, sigma = 0.2, 0.8
    tally = {PoissonSampledEvent(rate, GaussianEvent(sigma)): 1}
    x = np.linspace(-9, 10, 400_001)
    p, q = (1 - rate) * norm.pdf(x, 0, sigma) + rate * norm.pdf(x, 1, sigma), norm.pdf(x, 0, sigma)
    for at in (0.0, 0.5):
        exact = max(
            np.trapezoid(np.maximum(a - math.exp(at) * b, 0), x) for a, b in ((p, q), (q, p))
        )
        assert exact <= profile(tally, np.array([at]))[0] < exact + 1e-4


def test_the_profile_agrees_with_the_accountant():
    tally = {GaussianEvent(1.1): 3}
    assert profile(tally, np.array([epsilon(tally, DELTA)]))[0] == pytest.approx(DELTA, rel=1e-4)
    assert true_positive_rate(gaussian(1.5), 0.01) == pytest.approx(
        norm.cdf(1.5 + norm.ppf(0.01)), abs=1e-3
    )


def test_family_epsilon_by_hand():
    """700 of 1,000 right: mu >= 2 Phi^-1(lower limit), whatever the claim was."""
    mu = 2 * norm.ppf(bounds.lower_limit(700, 1000, LEVEL))
    for claimed in (0.5, 3.0):
        found = family_epsilon(700, 1000, gaussian(claimed), DELTA, LEVEL)
        exact = epsilon(gaussian(mu), DELTA)
        assert exact * 0.995 < found <= exact
    assert family_epsilon(500, 1000, gaussian(1.0), DELTA, LEVEL) == 0
    assert family_epsilon(1000, 1000, gaussian(0.1), DELTA, LEVEL) > 10


def test_a_tally_is_scaled_in_its_noise_alone():
    tally = {GaussianEvent(2.0): 3, PoissonSampledEvent(0.1, GaussianEvent(1.0)): 5}
    assert scaled(tally, 0.5) == {
        GaussianEvent(1.0): 3,
        PoissonSampledEvent(0.1, GaussianEvent(0.5)): 5,
    }
    with pytest.raises(ArgumentError):
        profile({SelectedEvent(GaussianEvent(1.0), 2.0): 1}, np.zeros(1))


def test_an_example_shows_itself_in_a_sample_as_often_as_it_takes_part():
    gaussian = GaussianEvent(2.0)
    poisson = lambda rate: PoissonSampledEvent(rate, gaussian)  # noqa: E731
    tally = {
        gaussian: 4,
        TruncatedPoissonEvent(0.1, 50, 9, gaussian): 3,
        FixedSizeEvent(5, 20, gaussian): 2,
        **{CyclicPoissonEvent(0.3, 4, phase, gaussian): 2 - (phase == 3) for phase in range(4)},
    }
    assert seen(tally) == (1.0, {poisson(0.1): 3, poisson(0.25): 2, poisson(0.3): 2})


# -- coverage: in at most one of twenty audits may the bound exceed the truth


def exceeds_too_often(found, truth, level=0.05):
    """Is the share of bounds above the truth more than 5 %, by more than chance explains?"""
    above = sum(each > truth for each in found)
    return binom.sf(above - 1, len(found), level) < UNLIKELY


def randomized_response(stream, eps, n, trials):
    return stream.binomial(n, math.exp(eps) / (1 + math.exp(eps)), trials)


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.5, 2.0])
def test_one_run_covers_randomized_response_where_it_is_tight(eps):
    """False alarms: 1e-9."""
    stream = np.random.default_rng(1)
    right = randomized_response(stream, eps, 200, 2000)
    limit = [bounds.one_run(200, 200, v, 0.0, LEVEL) if v > 100 else 0.0 for v in range(201)]
    found = [limit[v] for v in right]
    assert not exceeds_too_often(found, eps)
    assert np.mean(found) > 0.4 * eps, "a bound of zero would cover, too"
    assert exceeds_too_often([limit[min(200, v + 4)] for v in right], eps), (
        "control: four answers too many"
    )


@pytest.mark.slow
def test_one_run_covers_a_mechanism_that_fails_with_probability_delta():
    """With probability delta per canary, all is told; else randomized response. (eps, delta)-DP,
    and delta matters.

    False alarms: 1e-9.
    """
    eps, delta, m = 1.0, 0.03, 1000
    stream = np.random.default_rng(2)
    told = stream.binomial(m, delta, 1500)
    right = told + stream.binomial(m - told, math.exp(eps) / (1 + math.exp(eps)))
    limits = {
        v: [bounds.one_run(m, m, v, d, LEVEL) for d in (delta, 0.0)]
        for v in np.unique(right).tolist()
    }
    assert not exceeds_too_often([limits[v][0] for v in right.tolist()], eps)
    assert exceeds_too_often([limits[v][1] for v in right.tolist()], eps), (
        "control: delta forgotten"
    )


def gaussian_scores(stream, mu, n):
    included = stream.random(n) < 0.5
    return stream.standard_normal(n) + np.where(included, mu / 2, -mu / 2), included


@pytest.mark.slow
@pytest.mark.parametrize("eps", [1.0, 4.0])
def test_all_verdicts_cover_the_gaussian_mechanism(eps):
    """From scores to bounds, threshold choice and abstaining included; the controls let the
    attacker see a little more.

    False alarms: 1e-9.
    """
    mu, stream = gaussian_mu_for(eps, DELTA), np.random.default_rng(3)
    claim = Claim(gaussian(mu), DELTA)
    found = []
    for _ in range(60):
        scores, included = gaussian_scores(stream, mu, 400)
        found.append(
            [
                verdicts.by_family("x", scores, included, claim, 0.0, 0.0).lower_bound,
                verdicts.by_clopper_pearson("x", scores, included, claim, 0.0).lower_bound,
                verdicts.by_one_run("x", scores, included, claim, 0.0).lower_bound,
            ]
        )
    for bound in np.array(found).T:
        assert not exceeds_too_often(bound, claim.epsilon)
    louder = [
        verdicts.by_family("x", *gaussian_scores(stream, 1.5 * mu + 0.3, 400), claim, 0.0, 0.0)
        for _ in range(20)
    ]
    assert exceeds_too_often([each.lower_bound for each in louder], claim.epsilon)
    assert any(each.broken for each in louder)


def test_the_number_of_guesses_is_a_function_of_the_claim_alone():
    few, many = (verdicts.guesses_for(1000, Claim(gaussian(mu), DELTA)) for mu in (2.0, 0.2))
    assert 1 <= few < many <= 1000


def test_the_most_accurate_threshold_is_found():
    scores, included = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    threshold = verdicts.most_accurate_threshold(scores, included)
    assert ((scores > threshold) == included).mean() == 0.75
    assert verdicts.most_accurate_threshold(scores, np.ones(4, bool)) == float("-inf")


# -- results


def test_results_of_an_attack_replace_its_earlier_ones_only(tmp_path):
    def result(attack, bound):
        return AuditResult(attack, "m", 1.0, DELTA, bound, LEVEL, "a", 10, 0.1)

    audit = AuditRecord((result("whitebox", 0.1), result("lira", 0.2))).joined(
        [result("whitebox", 0.3)]
    )
    assert [(each.attack, each.lower_bound) for each in audit.results] == [
        ("lira", 0.2),
        ("whitebox", 0.3),
    ]
    assert not audit.results[0].broken and result("x", 1.01).broken
    audit.save(tmp_path)
    assert '"lower_bound": 0.3' in (tmp_path / "audit.json").read_text()
