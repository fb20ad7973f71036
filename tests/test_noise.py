"""Noise, beyond the law of `test_sampling_noise.py`: no correlation at any distance, keys of full length, other generators."""

import numpy as np
import pytest
from scipy import stats

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian

KEY = SecretKey.from_insecure_seed(7)
UNLIKELY = 1e-6


def drawn(mechanism, size, key=KEY):
    """What a mechanism adds to `size` numbers, in units of its standard deviation."""
    nothing = BoundedSum({"w": np.zeros((size // 8, 8), np.float32)}, Sensitivity.of_contribution(1.0))
    released = mechanism(nothing, key.at("r/0"))
    return np.asarray(released["w"], np.float64).ravel() / mechanism.multiplier


def check_no_lag(noise):
    """The autocorrelation at every lag, by FFT: under independence each is normal with deviation 1 / sqrt(n)."""
    spectrum = np.abs(np.fft.rfft(noise - noise.mean(), 2 * len(noise))) ** 2
    lags = np.fft.irfft(spectrum)[1 : len(noise) - 64] / (len(noise) - np.arange(1, len(noise) - 64)) ** 0.5 / noise.var()
    worst = np.abs(lags).argmax()
    assert abs(lags[worst]) < stats.norm.isf(UNLIKELY / len(lags)), f"numbers {worst + 1} apart share noise"


def test_no_two_numbers_of_a_release_share_noise():
    check_no_lag(drawn(Gaussian(1.3), 4096))


@pytest.mark.parametrize("period", [1024, 2048, 3000])
def test_control_repeated_noise_is_noticed(period):
    with pytest.raises(AssertionError, match="share noise"):
        check_no_lag(np.resize(np.random.default_rng(0).standard_normal(period), 4096))


def test_every_stream_has_a_key_of_128_bits():
    words = [KEY.stream("noise", k).bit_generator.state["state"]["key"] for k in range(64)]
    ones = np.unpackbits(np.stack(words).astype("<u8").view(np.uint8), axis=1).mean(0)
    assert ones.shape == (128,)
    assert ((ones > 0.1) & (ones < 0.9)).all(), "bits of the key that never change"
