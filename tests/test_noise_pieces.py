"""Noise and seals of large leaves are made piece by piece, on all threads: still one stream for no two numbers, and a seal of
every byte."""

import numpy as np
import pytest

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian, LatticeGaussian, on_host
from sfumato.noise.gaussian import unit_noise
from sfumato.runs.environment import differences, environment

KEY = SecretKey.from_insecure_seed(7)
BOUND = Sensitivity.of_contribution(1.0)
SIZE = on_host.HASHED // 2 + 5
"""Numbers of four bytes: two pieces that are hashed, and some."""


def seal(value, key=KEY):
    return Gaussian(1.3).bind(BoundedSum({"w": value}, BOUND), key.at("r/0")).seal


def test_the_seal_of_a_large_sum_is_of_every_piece_and_of_their_order():
    value = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    seals = [seal(value), seal(value.reshape(1, -1)), seal(value, SecretKey.from_insecure_seed(8))]
    edge = on_host.HASHED // 4
    for place in (0, edge - 1, edge, 2 * edge - 1, 2 * edge, SIZE - 1):
        other = value.copy()
        other.view(np.uint32)[place] ^= 1
        seals.append(seal(other))
    halves = value[: 2 * edge].reshape(2, edge)
    seals.append(seal(np.concatenate([halves[::-1].ravel(), value[2 * edge :]])))
    assert len(set(seals)) == len(seals), "two sums have one seal"
    assert seal(value.copy()) == seals[0], "the same sum has the same seal"


def test_what_is_told_of_a_large_sum_is_no_sum():
    """Nobody can make a leaf of the hashes of another one's pieces: its shape is told, too."""
    value = np.zeros(SIZE, np.float32)
    (told,) = on_host.sealed([value], ["w"], KEY)
    assert len(told) == 3 * 32
    hashes = np.frombuffer(told, np.float32)
    assert bytes(on_host.sealed([hashes], ["w"], KEY)[0]) == bytes(told)
    assert seal(value) != seal(hashes)


@pytest.mark.parametrize("mechanism", [Gaussian(1.3), LatticeGaussian(1.3)])
def test_no_two_pieces_of_a_leaf_share_noise(mechanism):
    size = 2 * on_host.PIECE + 5
    released = mechanism(BoundedSum({"w": np.zeros(size, np.float32)}, BOUND), KEY.at("r/0"))
    noise = np.asarray(released["w"])
    found = set(noise[: on_host.PIECE].tolist()) & set(noise[on_host.PIECE :].tolist())
    # Of 2^36 pairs of float32 some are equal by chance.
    assert len(found) < 0.1 * on_host.PIECE, "pieces share noise"
    assert np.std(noise) == pytest.approx(1.3, rel=0.01)


def test_pieces_are_drawn_alike_for_every_use_and_on_every_number_of_threads(monkeypatch):
    shapes = {"a": (7,), "b": (on_host.PIECE + 3, 2), "c": (0, 3)}
    value = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    bound = Gaussian(1.3).bind(BoundedSum(value, BOUND), KEY.at("r/0"))
    released = Gaussian(1.3).release(bound)
    for name, unit in zip(shapes, unit_noise(value, bound.key), strict=True):
        assert np.array_equal(np.float32(1.3 * unit), released[name])
    monkeypatch.setattr(on_host, "spread", map)
    again = Gaussian(1.3).release(bound)
    assert all(np.array_equal(again[name], released[name]) for name in shapes)


def test_a_run_that_began_with_other_streams_is_refused_in_one_line():
    here = environment()
    before = {name: value for name, value in here.items() if name != "noise"}
    assert not differences(here, here)
    assert differences(before, here) == "noise: it began with None, here is by pieces"
