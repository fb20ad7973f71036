"""Where accounting used to be far above the truth, or without end: tiny deltas, tiny losses, very
many steps, huge epsilons."""

import math
import time
from itertools import pairwise

import pytest
from test_accountants import poisson

from sfumato.cli import accounting
from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants, calibration, losses, relations
from sfumato.privacy.calibration import noise_multiplier
from sfumato.privacy.events import GaussianEvent, TruncatedPoissonEvent, tally
from sfumato.privacy.neighbors import of_library


@pytest.mark.parametrize(
    "rate, sigma, steps, delta, right",
    [
        (1e-5, 1.0, 100_000, 1e-9, 0.0199),
        (1e-4, 5.0, 5_000_000, 1e-7, 0.1936),
        (0.01, 1.18, 100, 1e-16, 3.05),
        (0.01, 7.86, 100_000, 1e-13, 3.0),
    ],
)
def test_epsilon_where_steps_are_many_or_delta_is_tiny(rate, sigma, steps, delta, right):
    assert relations.price(
        poisson(rate, sigma, steps), delta, "add-or-remove-one"
    ).epsilon == pytest.approx(right, rel=0.02)


@pytest.mark.parametrize(
    "target, rate, steps, delta, right",
    [(3.0, 0.01, 100, 1e-16, 1.18), (3.0, 0.01, 100_000, 1e-13, 7.86)],
)
def test_noise_where_delta_is_tiny(target, rate, steps, delta, right):
    found = noise_multiplier(lambda sigma: poisson(rate, sigma, steps), target, delta)
    assert found == pytest.approx(right, rel=0.01)


@pytest.mark.parametrize(
    "rate, sigma, steps",
    [(0.01, 0.01, 100), (0.01, 1.0, 10**9), (0.01, 100.0, 10**9), (1e-9, 30.0, 10**6)],
)
def test_a_grid_is_bounded_before_it_is_made(rate, sigma, steps):
    """No distribution is made here: what is checked is that one would be of a size that can be."""
    _, parts = relations.simplified(poisson(rate, sigma, steps))
    began = time.process_time()
    grid = losses.grid_for(0.0, parts, False, 1e-15, 1e-4)
    sketch = losses.Sketch.of(parts[0][0], False)
    assert sketch.cells(steps, grid.spacing, grid.tail)[0] <= losses.CELLS
    assert sketch.range / grid.spacing <= losses.STEP_CELLS and time.process_time() - began < 60


@pytest.mark.parametrize("rate, mu, steps", [(1e-3, 1e-5, 10**9), (1e-4, 2e-4, 10**11)])
def test_divergences_that_rounding_made_negative_are_no_epsilon_of_zero(rate, mu, steps):
    """The central limit: so many small losses are as private as one Gaussian of mu = q sqrt(T (e^(1
    / sigma^2) - 1)). The library's sum of divergences is below that, or nothing at all."""
    sigma, delta = rate * math.sqrt(steps) / mu, 1e-9
    truth = accountants.epsilon(tally((GaussianEvent(1 / mu), 1)), delta)
    assert relations.renyi_epsilon(poisson(rate, sigma, steps), delta) >= truth > 3e-5


def test_what_rounding_may_hide_is_taken_off_delta(monkeypatch):
    """As if FFTs erred by half of delta: epsilon is that of the other half, and a delta that is
    told is so much larger."""
    events, delta, steps = poisson(0.3, 2.0, 5), 1e-2, 5
    _, parts = relations.simplified(events)

    def asked(delta):
        neighbors = of_library("add-or-remove-one")
        losses.grid_for.cache_clear()
        return (
            losses.epsilon(0.0, parts, delta, "add-or-remove-one", neighbors, 1e-3)[0],
            float(losses.deltas(0.0, parts, [1.0], "add-or-remove-one", neighbors, 1e-3)[0]),
        )

    exact, told = asked(delta / 2)[0], asked(delta)[1]
    monkeypatch.setattr(losses, "ROUNDING", delta / 2 / (steps + 1) * (1 - 1e-9))
    coarse, larger = asked(delta * (1 + 1e-9))
    losses.grid_for.cache_clear()
    assert coarse == pytest.approx(exact, rel=1e-6) and larger == pytest.approx(
        told + delta / 2, rel=1e-6
    )


def test_whoever_takes_part_with_probability_below_delta_pays_nothing():
    """And the library's exp(-loss) does not overflow."""
    assert accountants.epsilon(poisson(1e-8, 1e-3, 900), 1e-5) == 0
    assert accountants.epsilon(poisson(1e-8, 1e-3, 10_000), 1e-5) > 100, "control"


CALIBRATED = {
    "poisson": ("add-or-remove-one", lambda sigma: poisson(0.03, sigma, 50)),
    "replaced": ("replace-one", lambda sigma: poisson(0.03, sigma, 50)),
    "with two full steps": (
        "add-or-remove-one",
        lambda sigma: poisson(0.03, sigma, 50) + tally((GaussianEvent(9.0), 2)),
    ),
    "truncated": (
        "add-or-remove-one",
        lambda sigma: tally((TruncatedPoissonEvent(0.1, 100, 18, GaussianEvent(sigma)), 5)),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALIBRATED)
def test_calibration_looks_seldom_and_finds_what_halving_finds(monkeypatch, name):
    """Where sigma lies is narrowed down first; then the halving that decides is told what is known
    already."""
    relation, make = CALIBRATED[name]
    looks, epsilon = [], losses.epsilon

    def counted(*arguments):
        looks.append(arguments)
        return epsilon(*arguments)

    monkeypatch.setattr(losses, "epsilon", counted)
    relations._sampled_price.cache_clear()
    found = calibration._roughly(make, 2.0, 1e-5, relation)
    assert len(looks) <= 10

    def fits(sigma):
        return accountants.epsilon(make(sigma), 1e-5, 1e-3, relation) <= 2.0

    assert found == calibration._smallest(fits, 1.0, factor=2.0) and len(looks) >= 14


@pytest.mark.slow
@pytest.mark.parametrize("target", [100.0, 1000.0])
def test_calibration_for_a_huge_epsilon_ends(target):
    sigma = noise_multiplier(lambda s: poisson(0.01, s, 100), target, 1e-5)
    assert (
        0.99 * target
        < relations.price(poisson(0.01, sigma, 100), 1e-5, "add-or-remove-one").epsilon
        <= target
    )


def test_losses_beyond_all_numbers_are_priced_or_refused_in_one_line():
    for rate, sigma, steps in ((0.01, 1e-4, 100), (0.5, 1e-2, 10**9)):
        try:
            assert (
                relations.price(poisson(rate, sigma, steps), 1e-5, "add-or-remove-one").epsilon
                > 1e6
            )
        except ArgumentError as error:
            assert "more noise" in str(error) and "\n" not in str(error)


def test_a_delta_below_all_rounding_is_refused_where_no_other_bound_is_known():
    with pytest.raises(ArgumentError, match="delta=1e-16: too small to account for"):
        relations.price(poisson(0.01, 1.0, 100), 1e-16, "replace-one")


@pytest.mark.parametrize(
    "rate, sigma, steps, delta",
    [(0.02, 1.1, 300, 1e-5), (0.001, 0.7, 1000, 1e-7), (0.2, 3.0, 50, 1e-12)],
)
def test_the_best_order_is_found_without_trying_all(rate, sigma, steps, delta):
    events = poisson(rate, sigma, steps)
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, rdp

    accountant = rdp.RdpAccountant(relations._ORDERS[:150])
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    assert relations.renyi_epsilon(events, delta) <= accountant.get_epsilon(delta) * (1 + 1e-9)


@pytest.mark.slow
def test_epsilon_is_monotone_over_a_wide_grid():
    """Within the discretization: more steps, a larger rate, less noise or a smaller delta never
    cost visibly less."""

    def price(rate=1e-3, sigma=1.0, steps=1000, delta=1e-7):
        return relations.price(
            poisson(rate, sigma, steps), delta, "add-or-remove-one", 1e-3
        ).epsilon

    rising = [
        [price(steps=steps) for steps in (1, 100, 10_000, 10**6, 10**8)],
        [price(rate=rate) for rate in (1e-7, 1e-5, 1e-3, 0.1, 0.9)],
        [price(sigma=sigma) for sigma in (100.0, 10.0, 1.0, 0.3, 0.05)],
        [price(delta=delta) for delta in (1e-3, 1e-7, 1e-12, 1e-16, 1e-20)],
    ]
    for values in rising:
        assert all(math.isfinite(each) for each in values)
        assert all(after >= before * (1 - 1e-3) for before, after in pairwise(values))


def test_a_delta_above_one_in_n_is_computed_with_a_warning():
    told = accounting.of_numbers(3.0, 8e-7, 1_281_167, 1024, 10)
    assert "at delta 8e-07" in told and "warning: delta=8e-07" in told
    assert "warning" not in accounting.of_numbers(3.0, None, 1_281_167, 1024, 10)
