"""Noise by ChaCha20 where the sum lies: the cipher, the table and the law against slow twins in Python's
whole numbers; no words twice; the same words however a leaf is laid out."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chance import are_normal, share_nothing
from programs import QUICK
from seal_trees import TREES, WHOLE
from test_noise import check_no_lag, drawn
from test_sampling_noise import MULTIPLIER, check_noise_law

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian, LatticeGaussian, chacha20, lattice, on_device, whole_gaussian
from sfumato.noise.gaussian import unit_noise

KEY = SecretKey.from_insecure_seed(7).using("chacha-device")
BOUND = Sensitivity.of_contribution(1.0)


# -- the cipher


def slow_block(key, place):
    """RFC 8439, Sec. 2.1 to 2.3, word for word."""
    most = 2**32 - 1

    def quarter(state, a, b, c, d):
        for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & most
            state[z] ^= state[x]
            state[z] = (state[z] << bits | state[z] >> (32 - bits)) & most

    first = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *map(int, key), *map(int, place)]
    state = list(first)
    for _ in range(10):
        for k in range(4):
            quarter(state, k, 4 + k, 8 + k, 12 + k)
        for k in range(4):
            quarter(state, k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4)
    return [(a + b) & most for a, b in zip(state, first, strict=True)]


@pytest.mark.parametrize("at_once", [True, False])
def test_the_cipher_makes_the_words_of_rfc_8439(at_once):
    """Sec. 2.3.2."""
    key = np.frombuffer(bytes(range(32)), "<u4").astype(np.uint32)
    place = [1, 0x09000000, 0x4A000000, 0]
    told = """e4e7f110 15593bd1 1fdd0f50 c47120a3 c7f4d1c7 0368c033 9aaa2204 4e6cd4c3
              466482d2 09aa9f07 05d7c214 a2028bd9 d19c12b5 b94e16de e883d0cb 4e3c50a2"""
    words = chacha20.block(key, [jnp.full(3, each, jnp.uint32) for each in place], at_once)
    assert [f"{int(word[2]):08x}" for word in words] == told.split()
    assert [f"{word:08x}" for word in slow_block(key, place)] == told.split()


# -- the law


def test_the_table_is_the_discrete_gaussian_to_the_last_bit():
    weights, known = whole_gaussian.weights(), whole_gaussian.table()
    half, one = whole_gaussian.COLUMNS // 2, 2**96
    assert sum(weights) == whole_gaussian.COLUMNS * one
    below = [int(a) << 64 | int(b) << 32 | int(c) for a, b, c in known.below.T]
    found = [0] * whole_gaussian.COLUMNS
    for column, (own, other) in enumerate(zip(below, known.other.tolist(), strict=True)):
        found[column] += own
        found[other] += one - own
    assert found == weights, "each number is drawn as often as it should be"
    assert weights[half + 1 :] == weights[half - 1 : 0 : -1], "symmetric"
    for k in (1, 7, 400, 2000):  # (w_k / w_0)^(s^2 / k^2) is exp(-1/2)
        ratio = math.log(Fraction(weights[half + k], weights[half])) / k**2 * 2 * 400**2
        assert ratio == pytest.approx(-1, abs=1e-9)
    cut = math.erfc((half - 0.5) / whole_gaussian.NARROW / math.sqrt(2))
    assert cut < 2**-78


@pytest.mark.parametrize(("t", "m"), [(1.2, 1), (1.7, 2), (3.3, 2)])
def test_two_draws_put_together_have_the_law_that_was_derived(t, m):
    """The factor of the docstring, met and not merely kept."""
    k = np.arange(-400, 401)
    law = lambda s: np.exp(-(k**2) / (2 * s * s)) / np.exp(-(k**2) / (2 * s * s)).sum()  # noqa: E731
    spaced = np.zeros(m * (len(k) - 1) + 1)
    spaced[::m] = law(t)
    both = np.convolve(law(t), spaced)
    y = np.arange(len(both)) - len(both) // 2
    near = abs(y) <= 5 * t
    s = t * math.sqrt(1 + m * m)
    ideal = np.exp(-(y**2) / (2 * s * s))
    error = np.abs(both[near] / (ideal / ideal.sum())[near] - 1).max()
    allowed = 2 * math.exp(-2 * math.pi**2 * t * t / (1 + m * m))
    assert error < 2.2 * allowed + 1e-13
    assert t > 2 or error > allowed / 4


def test_no_step_is_wider_than_derived():
    for t, m in (
        (whole_gaussian.NARROW, whole_gaussian.FIRST),
        (whole_gaussian.WIDE, whole_gaussian.MOST),
    ):
        assert t / math.sqrt(1 + m * m) >= whole_gaussian.NARROWEST
    for deviation in (2.0**30, 1.9e9, 2.0**32):
        m = whole_gaussian.multiple(deviation)
        assert deviation <= whole_gaussian.deviation_of(m) <= deviation * (1 + 1e-4)
        assert m <= whole_gaussian.MOST
    huge = LatticeGaussian(1e9)
    with pytest.raises(ArgumentError, match="noise_rng"):
        huge(BoundedSum({"w": jnp.zeros((3000, 3))}, BOUND), KEY)


def slow_noise(key, place, m):
    """As the docstrings of `noise/whole_gaussian.py` say, in Python's whole numbers."""
    words, weights = slow_block(key, [place, 0, 0, 0]), whole_gaussian.table()

    def narrow(four):
        column = four[0] >> 19
        below = int("".join(f"{int(each[column]):08x}" for each in weights.below), 16)
        own = (four[1] << 64 | four[2] << 32 | four[3]) < below
        return (column if own else int(weights.other[column])) - 4096

    one, two, three, four = (narrow(words[4 * k : 4 * k + 4]) for k in range(4))
    return one + 249 * two + m * (three + 249 * four)


def test_a_release_is_what_the_slow_twin_makes():
    """Sums of all sizes, whatever sign; also beyond 2^32 steps."""
    value = np.array([0, 1.5, -1.5, 3e-9, 700.0, -1e6, 1e8, -1e-30, 2.0**-40], np.float32)
    bound = LatticeGaussian(1.3).bind(BoundedSum({"w": value}, BOUND), KEY.at("r/0"))
    g, deviation = lattice.lattice(1.3, 1.0, len(value))
    m, key = whole_gaussian.multiple(deviation), bound.key.cipher_key("noise", "w")
    released = np.asarray(LatticeGaussian(1.3).release(bound)["w"], np.float64)
    for place, (each, found) in enumerate(zip(value, released, strict=True)):
        exact = round(Fraction(float(each)) / Fraction(g)) + slow_noise(key, place, m)
        assert found == pytest.approx(float(exact * Fraction(g)), rel=2e-7)
    units = unit_noise({"w": value}, bound.key)[0]
    s = whole_gaussian.multiple(2.0**31)
    whole = [slow_noise(key, place, s) for place in range(len(value))]
    assert np.array_equal(units, np.array(whole) / whole_gaussian.deviation_of(s))
    with pytest.raises(ArgumentError, match="NaN or infinity"):
        Gaussian(1.3)(BoundedSum({"w": np.array([np.inf, -np.inf])}, BOUND), KEY)


@pytest.mark.parametrize("mechanism", [Gaussian, LatticeGaussian])
def test_noise_from_the_device_follows_the_law_its_event_claims(mechanism):
    """False alarms: 2e-8."""
    made = mechanism(MULTIPLIER)
    check_noise_law(lambda total, key: made(total, key.using("chacha-device")))
    check_no_lag(drawn(mechanism(1.3), 4096, KEY))
    assert are_normal(drawn(mechanism(1.3), 4096, KEY))


# -- no words twice


def test_every_number_of_a_leaf_has_a_place_of_its_own_however_it_is_divided():
    shape = (6, 4, 10)
    for cuts in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 5), (3, 2, 1), (2, 1, 5), (3, 4, 2)):
        own = tuple(size // cut for size, cut in zip(shape, cuts, strict=True))
        whole = np.full(shape, -1)
        for part in product(*map(range, cuts)):
            starts = [which * size for which, size in zip(part, own, strict=True)]
            where = jnp.asarray(on_device.placed(shape, own, starts), jnp.uint32)
            found = np.concatenate(
                [np.asarray(on_device.places(block, 7, where)[0]) for block in range(36)]
            )
            box = tuple(slice(a, a + size) for a, size in zip(starts, own, strict=True))
            whole[box] = found[: math.prod(own)].reshape(own)
        assert np.array_equal(whole.ravel(), np.arange(240)), cuts


def test_leaves_releases_and_uses_have_keys_of_their_own():
    """With the places above, no (key, counter) comes twice. False alarms: 1e-9."""
    names = [(use, leaf) for use in ("noise", "seal") for leaf in ("a", "b", "a/b")]
    keys = {
        tuple(KEY.at(release).cipher_key(*name).tolist())
        for release, name in product(("r/0", "r/1", "r"), names)
    }
    assert len(keys) == 18
    value = {"a": np.zeros(500, np.float32), "b": np.zeros(500, np.float32)}
    leaves = [
        np.asarray(leaf, np.float64)
        for release in ("r/0", "r/1")
        for leaf in Gaussian(1.0)(BoundedSum(value, BOUND), KEY.at(release)).values()
    ]
    assert share_nothing(np.stack(leaves)), "leaves share noise"


# -- the seal


def test_a_seal_made_on_the_device_is_of_names_shapes_types_and_numbers():
    seals = [Gaussian(1.0).bind(BoundedSum(tree, BOUND), KEY).seal for tree in TREES]
    assert len(set(seals)) == len(TREES)
    again = BoundedSum({"a": jnp.asarray(WHOLE)}, BOUND)
    assert Gaussian(1.0).bind(again, KEY).seal == seals[0]
    host = SecretKey.from_insecure_seed(7)
    assert Gaussian(1.0).bind(again, host).seal != seals[0]


def test_the_hash_of_a_leaf_is_the_sum_that_was_derived():
    value = np.array([1.5, -2.5, 1e-20], np.float32)
    key = KEY.cipher_key("seal", "w")
    (found,) = on_device.sealed([value], ["w"], KEY)
    sums = [0] * 8
    for place, bits in enumerate(value.view(np.uint32).tolist()):
        words = slow_block(key, [place, 0, 0, 0])
        for j in range(8):
            sums[j] += words[2 * j] * (bits & 0xFFFF) + words[2 * j + 1] * (bits >> 16)
    assert np.frombuffer(found, np.uint32).tolist() == [each % 2**32 for each in sums]


# -- many devices


LAYOUTS = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian
assert len(jax.devices()) == 8
mesh = jax.make_mesh((4, 2), ("data", "fsdp"))
value = np.random.default_rng(0).standard_normal((8, 24)).astype(np.float32)
made, key = Gaussian(1.3), SecretKey.from_insecure_seed(1).using("chacha-device").at("r/0")
def found(leaf):
    bound = made.bind(BoundedSum({"w": leaf}, Sensitivity.of_contribution(1.0)), key)
    return bound.seal, made.release(bound)["w"]
seal, alone = found(value)
for spec in (P("data"), P("fsdp", "data")):
    own, released = found(jax.device_put(value, NamedSharding(mesh, spec)))
    assert own == seal, f"{spec}: another seal"
    assert np.array_equal(released, alone), f"{spec}: other words"
    assert released.sharding.is_equivalent_to(NamedSharding(mesh, spec), 2), spec
    largest = max(each.data.nbytes for each in released.addressable_shards)
    assert largest * len({str(each.index) for each in released.addressable_shards}) == 8 * 24 * 4
"""


def test_the_same_words_and_the_same_seal_however_a_leaf_is_laid_out():
    environment = os.environ | {
        "XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    ran = subprocess.run(
        [sys.executable, "-c", LAYOUTS],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


def test_a_leaf_of_too_many_numbers_is_refused():
    huge = jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32)
    with pytest.raises(ArgumentError, match="divide it"):
        on_device._run(on_device._hashed, huge)
