"""Losses that reach for other examples, samplers that draw one twice, processes that deal by sizes of their
own, rounding that nobody paid for, files and visitors that ask for too much: each is refused, or paid."""

import threading
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clip_helpers import B, everyone, random
from jax import lax

from sfumato.clip import BoundedSum, Sensitivity, check_isolation, clipped_grad
from sfumato.clip.fixed_point import Lattice
from sfumato.core.devices import ALONE, Layout
from sfumato.core.errors import ArgumentError, DataError, LedgerError, RunError
from sfumato.core.keys import SecretKey
from sfumato.data.formats.image_table import list_table
from sfumato.data.split import ReadOptions
from sfumato.noise import BandedGaussian, Gaussian
from sfumato.noise.banded import square_root_bands
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent
from sfumato.privacy.ledger import Ledger
from sfumato.runs.classifier import Classifier, Spec
from sfumato.runs.directory import refuse_existing
from sfumato.sampling import Poisson
from sfumato.train import loop
from sfumato.train.dpsgd import DPSGD
from sfumato.train.schedules import rate_of
from sfumato.train.spread import SpreadSum

KEY = SecretKey.from_insecure_seed(5)


# -- losses


def batch_norm():
    """Of the batch, written as a rule for `vmap`."""
    normed = jax.custom_batching.custom_vmap(lambda x: x)
    normed.def_vmap(lambda size, batched, x: (x - x.mean(0), True))
    return normed


def called(method):
    return lambda x: jax.pure_callback(
        lambda v: v - v.mean(0), jax.ShapeDtypeStruct((3,), jnp.float32), x, vmap_method=method
    )


def backward(rule):
    """The identity, with such a gradient."""

    @jax.custom_vjp
    def same(x):
        return x

    same.defvjp(lambda x: (x, None), lambda _, g: (rule(g),))
    return same


def cropped(g):
    image = g[None, None]
    return lax.conv_general_dilated(image, jnp.ones((1, 1, 1)), (1,), [(-1, 1)])[0, 0]


REACHING = {
    "custom_vmap": batch_norm,
    "pure_callback": lambda: lambda x: x + called("expand_dims")(lax.stop_gradient(x)),
    "custom_vmap behind custom_vjp": lambda: backward(batch_norm()),
    "pure_callback behind custom_vjp": lambda: backward(called("broadcast_all")),
    "psum over axis data": lambda: backward(lambda g: lax.psum(g, "data")),
    "convolution": lambda: backward(cropped),
}
KEEPING = {
    "a rule for one at a time": lambda: backward(
        jax.custom_batching.sequential_vmap(lambda g: 2 * g)
    ),
    "a call for one at a time": lambda: lambda x: x + called("sequential")(lax.stop_gradient(x)),
    "a gradient that is cut": lambda: backward(lambda g: jnp.clip(g, -1e-2, 1e-2)),
}
PARAMS = {"w": jnp.asarray(random(4, 3))}
BATCH = jnp.asarray(random(B, 4, seed=1))


def total(layer, **settings):
    """Of a loss with this layer. An axis "data" is there, as where a program is written for each device."""
    clipped = clipped_grad(lambda p, x: jnp.sum(jnp.tanh(layer(x @ p["w"])) ** 2), 0.1, **settings)
    summed = lambda p: clipped(p, BATCH, everyone()).value  # noqa: E731
    return jax.vmap(summed, axis_name="data", axis_size=1, in_axes=None)(PARAMS)


@pytest.mark.parametrize("name", REACHING)
def test_a_loss_that_vmap_would_show_other_examples_is_refused_in_one_line(name):
    with pytest.raises(ArgumentError) as caught:
        total(REACHING[name]())
    said = str(caught.value)
    assert said.startswith("loss=") and name.split(" ")[0] in said and "\n" not in said


@pytest.mark.parametrize("name", KEEPING)
def test_what_is_asked_one_example_at_a_time_is_clipped_as_ever(name):
    found, slow = (
        np.asarray(total(KEEPING[name](), method=method)["w"]) for method in ("auto", "materialize")
    )
    assert np.any(found) and np.allclose(found, slow, atol=1e-6)


def test_a_call_that_remembers_other_examples_is_found_out():
    seen = []

    def remembered(x):
        seen.append(float(x.sum()))
        return np.float32(sum(seen[-2:]))

    def loss(p, x):
        weight = jax.pure_callback(
            remembered, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential"
        )
        return weight * jnp.sum(x @ p["w"])

    with pytest.raises(ArgumentError, match="changed when the other examples did"):
        check_isolation(clipped_grad(loss, 1e3), PARAMS, BATCH)


# -- samplers


@dataclass(frozen=True)
class Wrong(Poisson):
    drawn: tuple = ()

    def indices(self, key, step):
        return np.array(self.drawn)


def trainer(sampler, **settings):
    examples = np.zeros((8, 4), np.float32)
    usual = {"fetch": lambda indices, step: examples[indices], "physical_batch_size": 2}
    return DPSGD(
        lambda p, x: jnp.sum(p["w"][:, 0] * x),
        PARAMS,
        optimizer=optax.sgd(0.1),
        sampler=sampler,
        clip_norm=1.0,
        noise=Gaussian(1.0),
        **usual | settings,
    )


@pytest.mark.parametrize("drawn", [(0, 0), (3, 1), (-1,), (7, 8), (0.5,), ((1, 2),)])
def test_a_sampler_that_draws_an_example_twice_or_none_that_there_is_is_refused(drawn):
    method = trainer(Wrong(0.5, 1, 8, drawn=drawn))
    with pytest.raises(ArgumentError, match=r"sampler='Wrong'.*each once"):
        method.measure(method.start(), 0, KEY)


@pytest.mark.parametrize("given", [lambda rows: rows[:-1], lambda rows: np.concatenate([rows] * 2)])
def test_data_that_give_another_number_of_examples_are_refused(given):
    examples = np.ones((8, 4), np.float32)
    method = trainer(Wrong(0.5, 1, 8, drawn=(1, 5)), fetch=lambda at, step: given(examples[at]))
    with pytest.raises(ArgumentError, match=r"data=.*2 examples for 2 indices"):
        method.measure(method.start(), 0, KEY)


# -- noise


@pytest.mark.parametrize("promised", [Gaussian(1.5), BandedGaussian(2.0, square_root_bands(2))])
def test_less_noise_than_is_paid_for_is_refused_before_it_is_paid(promised, tmp_path):
    method = trainer(Poisson(0.5, 2, 8))
    method.event = lambda step: PoissonSampledEvent(0.5, GaussianEvent(2.0))
    method.mechanism = lambda step: promised.at(step, str)
    with Ledger.create(tmp_path, delta=1e-5, epsilon_max=9.0) as ledger:
        with pytest.raises(ArgumentError, match="is paid for"):
            loop.run(method, ledger, KEY)
        assert ledger.releases == 0


# -- processes


def test_processes_agree_on_the_sizes_by_which_they_deal():
    """Of two sizes some examples would be summed twice, and others not at all."""
    told = []

    class Asked(Layout):
        def agree(self, what, *parts):
            told.append((what, *map(str, parts)))

    method = trainer(Poisson(0.5, 1, 8), layout=Asked((None,)))
    method.rehearse(method.start())
    assert any("physical" in what and "2" in parts for what, parts in told), "not compared"


# -- rounding


def test_of_very_many_examples_rounding_to_words_is_part_of_the_sensitivity():
    """An example that is made for it moves each number by nearly a spacing more than it holds."""
    n = 2**28
    spacing = Lattice(1.0, n).spacing
    held = {d: 0.999_98 / d**0.5 / spacing for d in range(100_000, 102_000)}
    d = next(d for d, own in held.items() if 0.02 < own % 1 < 0.04)
    most = int(held[d])
    others = np.full(d, 0.49 * spacing, np.float32)
    own = np.full(d, (most + 0.02) * spacing, np.float32)
    clipped = clipped_grad(lambda p, x: jnp.vdot(p, x), 1.0)
    spread = SpreadSum(clipped, ALONE, jnp.zeros(d), (), lambda: n)
    batch = jnp.asarray(np.stack([others, own]))
    sums = []
    for mask in ([True, True], [True, False]):
        made = spread.add(spread.start(), jnp.zeros(d), batch, jnp.array(mask))
        sums.append(spread.value(made, lambda: ()))
    moved = np.linalg.norm(*[np.asarray(sums[0].value, np.float64) - np.asarray(sums[1].value)])
    assert moved > 1.00001, "the attack is too weak to tell"
    assert moved <= sums[0].sensitivity.add_or_remove, (
        "rounding moves a sum further than is paid for"
    )
    few = SpreadSum(clipped, ALONE, jnp.zeros(d), (), lambda: 50_000)
    few.add(few.start(), jnp.zeros(d), batch, jnp.array(mask))
    assert few.value(few.start(), lambda: ()).sensitivity == Sensitivity.of_contribution(1.0)


def test_noise_of_the_device_is_wider_by_what_rounding_the_sum_may_add():
    """As a sum is rounded to multiples of g before it, neighbors may lie sqrt(d) g further apart."""
    multiplier, d = 1e6, 100_000
    sums = BoundedSum(
        {"a": jnp.zeros(d // 2), "b": jnp.zeros(d // 2)}, Sensitivity.of_contribution(1.0)
    )
    released = Gaussian(multiplier)(sums, KEY.using("chacha-device").at("r/0"))
    g = 2.0 ** (np.floor(np.log2(multiplier)) - 30)
    found = np.std(np.concatenate([np.asarray(released[name]) for name in "ab"]), dtype=np.float64)
    wanted = multiplier * (1 + d**0.5 * g)  # 1.15 times the multiplier
    assert found == pytest.approx(wanted, rel=0.02), "the noise is not as wide as rounding needs"


# -- schedules


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_a_run_that_warms_up_all_the_time_has_rates_that_are_numbers(name):
    """0.96 of ten steps are ten, rounded."""
    rates = [float(rate_of(name, 2.0, 0.96, 10)(step)) for step in range(10)]
    assert np.allclose(rates, np.arange(1, 11) / 5)


# -- what users type


def test_a_number_beyond_all_sense_is_refused_by_its_name():
    with pytest.raises(ArgumentError, match=r"steps=1e\+20|steps=100000000000000000000"):
        Poisson(0.5, 10**20, 8)


def test_a_ledger_that_cannot_be_read_is_named_in_one_line(tmp_path):
    link = tmp_path / "ledger"
    link.symlink_to(link)
    with pytest.raises(LedgerError, match=r"ledger: cannot be read .*; name a run"):
        Ledger.read(link)


def test_findings_that_no_column_has_are_named_and_not_taken_for_folders(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / "t.csv").write_text("path,E\na/1.png,1\na/2.png,0\n")
    with pytest.raises(ArgumentError, match=r"findings='G': .*no such column \(found path, E\)"):
        list_table(tmp_path / "t.csv", ReadOptions(findings="G"))


# -- files, directories, visitors


def test_a_pickle_of_a_nest_of_tuples_is_refused_at_once(tmp_path):
    """Its hash, and its text, would be those of 2^64 entries."""
    from sfumato.core.errors import WeightsError
    from sfumato.weights.torch_files import read_torch
    from sfumato.weights.torch_pickle import Refused, interpret

    nest = b"".join(b"\x94h" + bytes([k]) + b"\x86" for k in range(64))
    for code in (
        b"\x80\x04)" + nest + b"\x94h\x40\x93.",
        b"\x80\x04\x8c\x05torch)" + nest + b"\x93.",
    ):
        with pytest.raises(Refused, match="not text"):
            interpret(code, {})
    magic = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    (tmp_path / "w.pt").write_bytes(magic + b"\x80\x04)" + nest + b".")
    with pytest.raises(WeightsError, match="version tuple"):
        read_torch(tmp_path / "w.pt")


def test_a_link_to_nowhere_is_no_place_for_a_run(tmp_path):
    link = tmp_path / "run"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="exists already"):
        refuse_existing(link)


def test_images_of_visitors_are_decoded_one_after_the_other(monkeypatch):
    """A small file may be an image of 50 million pixels, whose copies fill the memory."""
    pytest.importorskip("starlette")
    from sfumato.serving import service

    lock, decode, held = threading.Lock(), service.decode, []
    classifier = Classifier(Spec("cnn", None, (8, 8, 1), ("a", "b")), eqx.nn.Identity())

    def watched(*arguments):
        held.append(lock.locked())
        return decode(*arguments)

    monkeypatch.setattr(service, "decode", watched)
    with pytest.raises(DataError, match="not a readable image"):
        service._answer(classifier, b"no image", 100, lock)
    assert held == [True] and not lock.locked()
