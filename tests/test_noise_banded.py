"""Correlated noise: it is white after C, its price is that of its cyclic samples, and no other
sampler takes it."""

import dataclasses
import json
import math

import numpy as np
import optax
import pytest
from chance import sigmas
from jaxtyping import TypeCheckError
from pace import paced
from run_helpers import NETWORK, refused, succeeds, write_dataset
from run_helpers import N as N_IMAGES
from test_training_loop import KEY, N, dpsgd, equal

from sfumato.audit import canaries
from sfumato.audit.result import Claim
from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError, BudgetError, LedgerError
from sfumato.noise import NOISES, BandedGaussian, banded
from sfumato.noise.banded import Following, error_of_sums, square_root_bands
from sfumato.privacy import events
from sfumato.privacy.accountants import epsilon
from sfumato.privacy.events import (
    BandedGaussianEvent,
    CyclicPoissonEvent,
    GaussianEvent,
    PoissonSampledEvent,
)
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.neighbors import RELATIONS
from sfumato.sampling import CyclicPoisson, FullBatch, Poisson, TruncatedPoisson, WithoutReplacement
from sfumato.train import loop
from sfumato.train.replay_guard import ReplayGuard

SIGMA, BANDS, CYCLE, STEPS = 2.0, 3, 4, 9


def named(step):
    return f"dp-sgd/{step}"


def released(noise, steps, size=2000, sensitivity=1.0):
    """What is added to nothing, (steps, size)."""
    nothing = {"a": np.zeros(size // 2, np.float32), "b": np.zeros((size // 4, 2), np.float32)}
    rows = [each.value for each in in_order(noise, nothing, steps, sensitivity)[0]]
    return np.stack(
        [np.concatenate([np.ravel(row["a"]), np.ravel(row["b"])]) for row in rows]
    ).astype(np.float64)


def in_order(noise, value, steps, sensitivity=1.0):
    """Releases of the same sum in every step, and the seals."""
    seals, rows = noise.memory(steps)["seals"], []
    for step in range(steps):
        total = Following(value, Sensitivity.of_contribution(sensitivity), seals.copy())
        rows.append(noise.at(step, named)(total, KEY.at(named(step))))
        seals[step] = rows[-1].seal
    return rows, seals


def whitened(rows, coefficients):
    """C times the releases."""
    return sum(
        c * np.concatenate([np.zeros((j, rows.shape[1])), rows[: len(rows) - j]])
        for j, c in enumerate(coefficients)
    )


def trainer(sampler=None, bands=BANDS, **change):
    sampler = sampler or CyclicPoisson(0.5, STEPS, N, CYCLE)
    return dpsgd(sampler=sampler, noise=BandedGaussian(SIGMA, square_root_bands(bands)), **change)


# -- coefficients


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_with_every_band_c_is_the_root_of_the_sums_of_steps(momentum):
    """C C = A_beta, up to the scale: A_beta has sum_{i <= k} beta^i on its k-th diagonal."""
    c = square_root_bands(12, momentum)
    square = np.convolve(c, c)[:12]
    np.testing.assert_allclose(square / square[0], np.cumsum(momentum ** np.arange(12)), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("bands", [1, 2, 7])
def test_the_predicted_error_is_that_of_the_matrices(bands, momentum):
    steps, c = 20, square_root_bands(bands, momentum)
    matrix = sum(np.diag(np.full(steps - j, each), -j) for j, each in enumerate(c))
    sums = np.tril(
        np.cumsum(momentum ** np.arange(steps))[
            np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
        ]
    )
    factor = sums @ np.linalg.inv(matrix)
    assert error_of_sums(c, steps, momentum) == pytest.approx(
        np.sqrt((factor**2).sum() / steps), rel=1e-9
    )


def test_more_bands_leave_less_noise_in_the_sums_at_equal_noise_per_step():
    errors = [error_of_sums(square_root_bands(bands), 200) for bands in (1, 2, 4, 8, 16)]
    assert errors == sorted(errors, reverse=True) and errors[0] == pytest.approx(math.sqrt(201 / 2))


@pytest.mark.parametrize(("bands", "momentum"), [(0, 0.0), (2, 1.0), (2, -0.1), (2, math.nan)])
def test_bad_bands_are_refused(bands, momentum):
    with pytest.raises(ArgumentError):
        square_root_bands(bands, momentum)


@pytest.mark.parametrize("coefficients", [[1.0, 0.5], [0.6], [-1.0], [0.0, 1.0], [math.nan]])
def test_coefficients_of_another_length_would_cost_more_than_is_paid(coefficients):
    with pytest.raises(ArgumentError, match="norm 1"):
        BandedGaussian(1.0, np.array(coefficients))


# -- law


def check_white(rows, deviation):
    """Every row has the deviation, no two rows share noise."""
    size = rows.shape[1]
    squares = (rows**2).sum(1) / deviation**2
    worst = sigmas(len(rows) ** 2)
    assert (np.abs(squares - size) < worst * math.sqrt(2 * size)).all(), (
        "a step has another deviation"
    )
    shared = rows @ rows.T / deviation**2
    assert (np.abs(shared - np.diag(np.diag(shared))) < worst * math.sqrt(size)).all(), (
        "steps share noise"
    )


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_c_times_the_noise_is_white_with_the_claimed_deviation(bands):
    """False alarms: 3e-8."""
    c = square_root_bands(bands)
    check_white(whitened(released(BandedGaussian(1.7, c), 12, sensitivity=0.3), c), 1.7 * 0.3)


def test_control_the_noise_itself_is_not_white():
    """False alarms: 1e-9: neighbors have a correlation of -0.4, 18 standard deviations of 2,000
    numbers."""
    rows = released(BandedGaussian(1.7, square_root_bands(3)), 12)
    with pytest.raises(AssertionError, match="steps share noise"):
        check_white(rows / rows.std(1, keepdims=True), 1.0)


def test_control_too_little_noise_is_noticed():
    """False alarms: 1e-9: a third of the variance, 10 standard deviations in each of 12 steps."""
    c = square_root_bands(3)
    with pytest.raises(AssertionError, match="another deviation"):
        check_white(whitened(released(BandedGaussian(1.4, c), 12), c), 1.7)


def test_the_noise_of_a_step_is_a_function_of_the_key_and_the_seals():
    """In any order, and by another object: what a resumed run needs."""
    c, value = square_root_bands(4), {"a": np.zeros(40, np.float32)}
    first = BandedGaussian(1.0, c)
    rows, seals = in_order(first, value, 8)
    total = Following(value, Sensitivity.of_contribution(1.0), seals)
    for step in (7, 0, 3, 4, 4, 2):
        assert equal(first.at(step, named)(total, KEY.at(named(step))), rows[step])
        assert equal(BandedGaussian(1.0, c).at(step, named)(total, KEY.at(named(step))), rows[step])


def test_correlated_noise_without_the_seals_of_earlier_sums_is_refused():
    total = BoundedSum({"a": np.zeros(4, np.float32)}, Sensitivity.of_contribution(1.0))
    with pytest.raises(ArgumentError, match="seals"):
        BandedGaussian(1.0, square_root_bands(2)).at(1, named)(total, KEY.at(named(1)))


# -- what an attacker sees


def check_separation(bands, cycle, runs=12_000):
    """The best attacker on one example that takes part in all its turns: C times the releases,
    matched with what it adds.

    mu of that must be no more than what is charged for: sqrt(turns) / sigma.
    """
    steps, c = 12, square_root_bands(bands)
    turns = range(0, steps, cycle)
    added = np.zeros((steps, 1))
    for turn in turns:
        added[turn] = 1.0  # the example's clipped gradient, the same one every time
    effect = whitened(added, c)
    noise = whitened(released(BandedGaussian(SIGMA, c), steps, size=runs), c)
    score = (effect * noise).sum(0)
    mu = float((effect**2).sum() / score.std())
    assert mu < math.sqrt(len(turns)) / SIGMA * 1.05, "an example's turns overlap"
    return mu


@pytest.mark.parametrize(("bands", "cycle"), [(1, 1), (3, 3), (3, 4), (4, 4)])
def test_turns_as_far_apart_as_there_are_bands_cost_what_is_charged(bands, cycle):
    """False alarms: 1e-9: a deviation of 12,000 numbers that is 5 % off, 7 of its own."""
    assert check_separation(bands, cycle) > math.sqrt(12 / cycle) / SIGMA * 0.8


def test_control_closer_turns_would_cost_more():
    """False alarms: 1e-9."""
    with pytest.raises(AssertionError, match="overlap"):
        check_separation(4, 1)


# -- price


@pytest.mark.slow
def test_the_event_is_priced_as_independent_noise_on_cyclic_samples():
    banded = {
        CyclicPoissonEvent(0.3, 4, phase, BandedGaussianEvent(1.5, 4)): count
        for phase, count in enumerate((3, 3, 2, 2))
    }
    plain = {PoissonSampledEvent(0.3, GaussianEvent(1.5)): 3}
    for relation in RELATIONS:
        assert epsilon(banded, 1e-5, relation=relation) == epsilon(plain, 1e-5, relation=relation)
    whole = {CyclicPoissonEvent(1.0, 4, 0, BandedGaussianEvent(1.5, 4)): 5}
    assert epsilon(whole, 1e-5) == epsilon({GaussianEvent(1.5): 5}, 1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda event: PoissonSampledEvent(0.1, event),
        lambda event: PoissonSampledEvent(1.0, event),
        lambda event: events.SelectedEvent(event, 3.0),
        lambda event: events.TruncatedPoissonEvent(0.1, 100, 50, event),
        lambda event: events.FixedSizeEvent(10, 100, event),
        lambda event: CyclicPoissonEvent(0.1, 3, 0, event),
        Poisson(0.1, 5, 100).event,
        Poisson(1.0, 5, 100).event,
        FullBatch(5, 100).event,
        WithoutReplacement(5, 5, 100).event,
        TruncatedPoisson(0.1, 5, 100, 20).event,
        TruncatedPoisson(1.0, 5, 100, 100).event,
        CyclicPoisson(0.5, 5, 100, 3).event,
        lambda event: epsilon({event: 1}, 1e-5),
    ],
)
def test_nothing_else_takes_correlated_noise(make):
    with pytest.raises((ArgumentError, TypeCheckError)):
        make(BandedGaussianEvent(1.0, 4))


def test_bands_are_at_most_the_groups():
    CyclicPoissonEvent(0.1, 4, 0, BandedGaussianEvent(1.0, 4))
    with pytest.raises(ArgumentError, match="longer cycle"):
        CyclicPoissonEvent(0.1, 3, 0, BandedGaussianEvent(1.0, 4))


def test_events_survive_the_ledger():
    event = CyclicPoissonEvent(0.25, 4, 3, BandedGaussianEvent(1.5, 4))
    assert events.from_json(events.to_json(event)) == event


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "banded-gaussian", "noise_multiplier": 1.0, "bands": 2},
        {
            "kind": "poisson",
            "rate": 0.1,
            "event": {"kind": "banded-gaussian", "noise_multiplier": 1.0, "bands": 2},
        },
        {
            "kind": "selected",
            "mean": 3.0,
            "event": {"kind": "banded-gaussian", "noise_multiplier": 1.0, "bands": 2},
        },
        {
            "kind": "fixed-size",
            "size": 3,
            "n": 9,
            "event": {"kind": "banded-gaussian", "noise_multiplier": 1.0, "bands": 2},
        },
        {
            "kind": "cyclic-poisson",
            "rate": 0.1,
            "cycle": 4,
            "phase": 0,
            "event": {"kind": "banded-gaussian", "noise_multiplier": 1.0},
        },
        {
            "kind": "cyclic-poisson",
            "rate": 0.1,
            "cycle": 4,
            "phase": 0,
            "event": {"kind": "banded-gaussian", "noise_multiplier": 1.0, "bands": 5},
        },
        {
            "kind": "cyclic-poisson",
            "rate": 0.1,
            "cycle": 4,
            "phase": 0,
            "event": {"kind": "banded-gaussian", "noise_multiplier": 1.0, "bands": True},
        },
    ],
)
def test_a_ledger_with_correlated_noise_elsewhere_is_refused(wrong):
    with pytest.raises((LedgerError, ArgumentError)):
        events.from_json(wrong)


# -- training


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "run", delta=1e-3, epsilon_max=50.0) as book:
        yield book


def test_a_run_pays_for_its_busiest_group(ledger):
    loop.run(trainer(), ledger, KEY)
    turns = math.ceil(STEPS / CYCLE)
    assert ledger.epsilon() == pytest.approx(
        epsilon({PoissonSampledEvent(0.5, GaussianEvent(SIGMA)): turns}, 1e-3)
    )


def test_a_budget_that_is_too_small_stops_it_before_the_first_step(tmp_path):
    with Ledger.create(tmp_path, delta=1e-3, epsilon_max=0.1) as small, pytest.raises(BudgetError):
        loop.run(trainer(), small, KEY)


@pytest.mark.parametrize("done", paced([1, 4, 8], 4))
def test_a_stopped_run_goes_on_bit_by_bit(tmp_path, done):
    """The earlier noise is drawn again from the key and the seals; checkpoints hold none of it."""
    with Ledger.create(tmp_path / "whole", delta=1e-3, epsilon_max=50.0) as whole:
        end = loop.run(trainer(), whole, KEY)
    kept = {}

    class Stop(Exception):
        pass

    def stop(steps, state):
        kept[steps] = state
        if steps == done:
            raise Stop

    with Ledger.create(tmp_path / "part", delta=1e-3, epsilon_max=50.0) as part:
        replay_guard = ReplayGuard(tmp_path / "witness")
        with pytest.raises(Stop):
            loop.run(trainer(), part, KEY, replay_guard=replay_guard, after_step=stop)
        again = loop.run(
            trainer(), part, KEY, state=kept[done], first=done, replay_guard=replay_guard
        )
    assert equal(end["params"], again["params"])


@pytest.mark.slow
def test_the_noise_left_in_the_parameters_is_what_was_predicted():
    """Training on nobody: the parameters are the sums of the noise.

    False alarms: 1e-9. The mean square of a random walk has 4/3 of its squared mean as variance, so
    the root of that of 8,000 walks is off by 5 % in 7 of its standard deviations; that of
    correlated noise varies less.
    """
    steps, size = 40, 8000
    left = {}
    for bands in (1, 8):
        procedure = dataclasses.replace(
            trainer(CyclicPoisson(0.5, steps, N, 8), bands),
            params={"w": np.zeros((size // 4, 4), np.float32)},
            clipped=lambda params, examples, mask: BoundedSum(
                {"w": 0 * params["w"]}, Sensitivity.of_contribution(1.0)
            ),
            optimizer=optax.sgd(1.0),
            ema_decay=0.0,
        )
        state, squares = procedure.start(), []
        for step in range(steps):
            total = procedure.measure(state, step, KEY.at("dp-sgd"))
            state = procedure.absorb(
                state, step, procedure.mechanism(step)(total, KEY.at(named(step)))
            )
            squares.append(np.mean(np.asarray(state["params"]["w"], np.float64) ** 2))
        left[bands] = math.sqrt(np.mean(squares)) * procedure.sampler.expected_batch_size / SIGMA
        assert left[bands] == pytest.approx(
            error_of_sums(square_root_bands(bands), steps), rel=0.05
        )
    assert left[8] < 0.6 * left[1]


def test_it_is_not_drawn_on_a_lattice():
    with pytest.raises(ArgumentError, match="lattice"):
        NOISES["lattice"].keeping(trainer().mechanism(0))


# -- audits


def audited():
    """4,000 guesses about canaries that take part in every turn of theirs."""
    procedure = trainer(
        CyclicPoisson(1.0, STEPS, N, CYCLE), params={"w": np.zeros((500, 1), np.float32)}
    )
    claim = Claim(loop.tally(procedure), 1e-5)
    return claim, canaries.whitebox(
        procedure, claim, np.random.default_rng(0), canaries=500, runs=8
    )[0]


@pytest.mark.slow
@pytest.mark.usefixtures("noise_by_name")
def test_an_audit_of_correlated_noise_sees_most_of_what_is_claimed_and_no_more():
    claim, found = audited()
    assert 0.75 * claim.epsilon < found.lower_bound <= claim.epsilon


@pytest.mark.slow
@pytest.mark.usefixtures("noise_by_name")
def test_control_an_audit_finds_half_of_the_noise(monkeypatch):
    fresh = banded.unit_noise
    monkeypatch.setattr(banded, "unit_noise", lambda total, key: [z / 2 for z in fresh(total, key)])
    claim, found = audited()
    assert found.lower_bound > claim.epsilon


# -- from the command line


BATCH = N_IMAGES // 4
BANDED = (
    *NETWORK,
    "--steps",
    "5",
    "--batch",
    str(BATCH),
    "--noise-bands",
    "2",
    "--epsilon",
    "8",
    "--delta",
    "0.001",
)


@pytest.mark.slow
def test_a_run_with_correlated_noise_and_its_account_and_resume(tmp_path):
    images = write_dataset(tmp_path / "images")
    whole = (
        "--batch",
        2 * BATCH,
    )  # every image of the group whose turn it is, so there is little to calibrate
    shown = succeeds("train", "--data", images, *BANDED, *whole, "--dry-run", "--no-estimate")
    assert "correlated over 2 steps" in shown and "2 groups in turn" in shown
    out = tmp_path / "run"
    succeeds("train", "--data", images, *BANDED, *whole, "--log", "quiet", "--out", out)
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    inner = [line["event"]["event"] for line in lines if "event" in line]
    assert len(inner) == 5 and {(each["kind"], each["bands"]) for each in inner} == {
        ("banded-gaussian", 2)
    }
    sigma = inner[0]["noise_multiplier"]
    spent = epsilon({GaussianEvent(sigma): 3}, 0.001)
    assert 7.9 < spent <= 8 and f"{spent:.4g}"[:4] in succeeds("account", out / "ledger.jsonl")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--noise-bands", "1"), ("noise_bands", "at least 2")),
        (("--noise-bands", "2", "--noise", "lattice"), ("noise", "lattice")),
        (("--noise-bands", "2", "--sampler", "poisson"), ("sampler", "take turns")),
        (
            ("--noise-bands", "3", "--cycle", "2", "--sampler", "cyclic"),
            ("cycle", "at least as many"),
        ),
        (("--noise-bands", "8"), ("cycle", "groups")),
        (
            ("--noise-bands", "2", "--method", "dp-fc", "--model", "auto"),
            ("noise_bands", "no such setting"),
        ),
    ],
)
def test_what_correlated_noise_cannot_do_is_refused_in_a_line(tmp_path, given, says):
    images = write_dataset(tmp_path / "images")
    settings = ("--batch", str(BATCH), "--steps", "4") if "dp-fc" not in given else ()
    refused(
        tmp_path,
        "train",
        "--data",
        images,
        *NETWORK,
        *settings,
        *given,
        "--out",
        tmp_path / "run",
        says=says,
    )
