"""Noise, beyond the law of `test_sampling_noise.py`: no correlation at any distance, keys of full
length, other generators."""

import math
import sys

import numpy as np
import pytest
from chance import UNLIKELY, are_normal, as_likely, sigmas
from pace import paced
from run_helpers import succeeds
from test_sampling_noise import MULTIPLIER, check_noise_law
from test_training_loop import dpsgd

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise import NOISES, Gaussian, LatticeGaussian, lattice
from sfumato.privacy.accountants import epsilon
from sfumato.privacy.events import GaussianEvent, tally
from sfumato.privacy.ledger import Ledger
from sfumato.train import loop

KEY = SecretKey.from_insecure_seed(7)


def drawn(mechanism, size, key=KEY):
    """What a mechanism adds to `size` numbers, in units of its standard deviation."""
    nothing = BoundedSum(
        {"w": np.zeros((size // 8, 8), np.float32)}, Sensitivity.of_contribution(1.0)
    )
    released = mechanism(nothing, key.at("r/0"))
    return np.asarray(released["w"], np.float64).ravel() / mechanism.multiplier


def check_no_lag(noise):
    """The autocorrelation at every lag, by FFT: under independence each is normal with deviation 1
    / sqrt(n). A sum of few products has a heavier tail: of 512 or more, a hundred times the normal
    one at most.
    """
    spectrum, far = np.abs(np.fft.rfft(noise - noise.mean(), 2 * len(noise))) ** 2, len(noise) - 512
    lags = np.fft.irfft(spectrum)[1:far] / (len(noise) - np.arange(1, far)) ** 0.5 / noise.var()
    worst = np.abs(lags).argmax()
    assert abs(lags[worst]) < sigmas(len(lags)), f"numbers {worst + 1} apart share noise"


def test_no_two_numbers_of_a_release_share_noise():
    """False alarms: 1e-8."""
    check_no_lag(drawn(Gaussian(1.3), 4096))


@pytest.mark.parametrize("period", [1024, 2048, 3000])
def test_control_repeated_noise_is_noticed(period):
    """False alarms: 1e-9: the lag of the period has a correlation of 1."""
    with pytest.raises(AssertionError, match="share noise"):
        check_no_lag(np.resize(np.random.default_rng(0).standard_normal(period), 4096))


def test_every_stream_has_a_key_of_128_bits():
    """False alarms: 2e-9: of 64 fair bits, six or fewer differ from the others at one of 128
    places."""
    words = [KEY.stream("noise", k).bit_generator.state["state"]["key"] for k in range(64)]
    ones = np.unpackbits(np.stack(words).astype("<u8").view(np.uint8), axis=1).mean(0)
    assert ones.shape == (128,)
    assert ((ones > 0.1) & (ones < 0.9)).all(), "bits of the key that never change"


# -- on a lattice


def on_lattice(value, multiplier=1.3, key=KEY, name="r/0"):
    total = BoundedSum({"w": np.asarray(value, np.float32)}, Sensitivity.of_contribution(1.0))
    return np.asarray(LatticeGaussian(multiplier)(total, key.at(name))["w"], np.float64)


def test_noise_on_the_lattice_follows_the_law_its_event_claims():
    """False alarms: 2e-8."""
    assert LatticeGaussian(MULTIPLIER).event == GaussianEvent(MULTIPLIER)
    check_noise_law(LatticeGaussian(MULTIPLIER))
    check_no_lag(drawn(LatticeGaussian(1.3), 4096))


@pytest.mark.parametrize("bug", paced([0.97, 1.03], 0.97))
def test_control_wrong_noise_on_the_lattice_is_noticed(bug):
    """False alarms: 1e-9: 3 % of 96,000 numbers is 13 standard deviations."""
    with pytest.raises(AssertionError):
        check_noise_law(lambda total, key: LatticeGaussian(MULTIPLIER * bug)(total, key))


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1e-9, -17.77])
def test_every_release_is_a_whole_multiple_of_a_public_step(value):
    """Else its last bits would tell what it was added to."""
    g, _ = lattice.lattice(1.3, 1.0, 64)
    releases = on_lattice(np.full(64, value), name=f"r/{value}")
    assert math.log2(g).is_integer()
    assert np.array_equal(releases / g, np.rint(releases / g))


def test_control_floats_of_noise_are_no_such_multiples():
    g, _ = lattice.lattice(1.3, 1.0, 4096)
    releases = drawn(Gaussian(1.3), 4096) * 1.3 / g
    assert not np.array_equal(releases, np.rint(releases))


def test_the_release_on_the_lattice_is_the_sum_plus_its_noise():
    total, (g, deviation) = (
        BoundedSum({"w": np.full(64, 5.0)}, Sensitivity.of_contribution(1.0)),
        lattice.lattice(1.3, 1.0, 64),
    )
    bound = LatticeGaussian(1.3).bind(total, KEY.at("r/0"))
    noise = g * lattice.discrete_gaussian(bound.key.stream("noise", "w"), deviation, 64)
    assert np.allclose(LatticeGaussian(1.3).release(bound)["w"], 5.0 + noise, atol=2e-6)
    assert np.isfinite(on_lattice(np.array([3e38, -3e38, 1e30]))).all()


@pytest.mark.parametrize("d", [1, 10**4, 10**7, 10**10])
def test_rounding_is_paid_for(d):
    """d roundings move neighbors apart by up to sqrt(d) steps more; that costs next to nothing."""
    g, deviation = lattice.lattice(1.5, 0.2, d)
    assert deviation >= 1.5 * (0.2 / g + math.sqrt(d)) * (1 + lattice.SLACK / 2)
    assert deviation * g <= 1.5 * 0.2 * (1 + 2e-5) or d > 10**7
    assert deviation >= 2**lattice.FINENESS
    stream = np.random.default_rng(d)
    one = stream.standard_normal(min(d, 10**4)) * 50 * g
    two = one + stream.standard_normal(len(one)) * g / 3
    assert np.linalg.norm(np.rint(one / g) - np.rint(two / g)) <= np.linalg.norm(
        one - two
    ) / g + math.sqrt(len(one))


@pytest.mark.parametrize("sizes", [(64,), (1, 63), (10, 50, 4)])
def test_rounding_is_paid_for_in_every_leaf(monkeypatch, sizes):
    """All numbers of a release are rounded, in however many leaves they are: its noise is that of a
    single leaf."""
    used, real = [], lattice.discrete_gaussian
    monkeypatch.setattr(
        lattice, "discrete_gaussian", lambda key, t, count: (used.append(t), real(key, t, count))[1]
    )
    leaves = {f"leaf {k}": np.zeros(size, np.float32) for k, size in enumerate(sizes)}
    LatticeGaussian(1.3)(BoundedSum(leaves, Sensitivity.of_contribution(1.0)), KEY.at("r/0"))
    assert used == [lattice.lattice(1.3, 1.0, 64)[1]] * len(sizes), (
        "rounding is not paid for in every leaf"
    )


def check_discrete(draws, deviation):
    """Against exp(-k^2 / 2 s^2) on the whole numbers, of which none beyond 9 deviations is drawn."""
    reach = math.ceil(9 * deviation)
    law = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    observed = np.bincount((draws + reach).clip(0, 2 * reach), minlength=len(law))
    assert as_likely(observed, law / law.sum()) > UNLIKELY


@pytest.mark.parametrize("deviation", [1.0, 1.7, 12.3])
def test_whole_noise_is_the_discrete_gaussian(deviation):
    """False alarms: 1e-9."""
    check_discrete(
        lattice.discrete_gaussian(KEY.stream("discrete", str(deviation)), deviation, 60_000),
        deviation,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: np.rint(s.standard_normal(60_000) * 1.0).astype(
            int
        ),  # the rounded normal is wider when the steps are wide
        lambda s: lattice.discrete_gaussian(s, 1.05, 60_000),
        lambda s: abs(lattice.discrete_gaussian(s, 1.0, 60_000)),
    ],
)
def test_control_another_discrete_law_is_noticed(wrong):
    """False alarms: 1e-9: the smallest distance of two laws, 0.0025 in relative entropy, is 150 in
    60,000 draws."""
    with pytest.raises(AssertionError):
        check_discrete(wrong(KEY.stream("control")), 1.0)


def test_the_slack_pays_for_what_is_not_exact():
    """N numbers, each off by a factor of 1 + 2^-52 at most, move epsilon by 2 N 2^-52."""
    for sigma, steps, d in ((1.0, 1000, 10**6), (50.0, 1000, 10**6)):
        found = epsilon(tally((GaussianEvent(sigma), steps)), 1e-5)
        lower = epsilon(tally((GaussianEvent(sigma * (1 + lattice.SLACK)), steps)), 1e-5)
        assert found - lower > 2 * steps * d * 2.0**-52


def test_a_run_may_be_made_on_the_lattice(tmp_path):
    procedure = dpsgd()
    with Ledger.create(tmp_path, delta=1e-3, epsilon_max=50.0) as book:
        state = loop.run(procedure, book, KEY, noise=NOISES["lattice"].keeping)
        assert book.tally == loop.tally(procedure), "it claims the same events"
    assert np.isfinite(np.asarray(state["params"]["w"])).all()


def test_a_run_on_the_lattice_from_the_command_line(tmp_path):
    stream, labels = np.random.default_rng(0), np.arange(120) % 3
    rows = (stream.standard_normal((120, 6)) + 3 * np.eye(6)[labels]).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x_train=rows, y_train=labels)
    arguments = (
        "fit",
        "--features",
        tmp_path / "rows.npz",
        "--method",
        "means",
        "--insecure-seed",
        1,
        "--log",
        "quiet",
    )
    for noise in NOISES:
        succeeds(*arguments, "--noise", noise, "--out", tmp_path / noise)
    models = [(tmp_path / noise / "model.safetensors").read_bytes() for noise in NOISES]
    assert models[0] != models[1], "another mechanism"
    told = [succeeds("account", tmp_path / noise) for noise in NOISES]
    assert told[0] == told[1], "the same promise"
    statements = [succeeds("report", tmp_path / noise) for noise in NOISES]
    assert ["lowest bits are known and were not defended" in each for each in statements] == [
        True,
        False,
    ]
    assert ["whole multiple of a public step" in each for each in statements] == [False, True]
    assert (
        "discrete Gaussian, on a lattice, by Philox4x64-10"
        in (tmp_path / "lattice" / "report.html").read_text()
    )


# -- another generator


def test_chacha_streams_follow_the_same_laws():
    """False alarms: 1e-8."""
    pytest.importorskip("randomgen")
    key = KEY.using("chacha")
    assert not np.array_equal(key.stream("a").random(4), KEY.stream("a").random(4))
    assert np.array_equal(
        key.at("a").stream(1).random(4), KEY.using("chacha").stream("a", 1).random(4)
    )
    check_no_lag(drawn(Gaussian(1.3), 4096, key))
    assert are_normal(drawn(Gaussian(1.3), 4096, key))
    assert type(key.stream("a").bit_generator).__name__ == "ChaCha"


def test_without_its_package_chacha_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "randomgen", None)
    with pytest.raises(ArgumentError, match="pip install"):
        KEY.using("chacha")
