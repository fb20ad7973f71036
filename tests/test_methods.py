"""The public face: a loss, parameters and data of one's own, calibrated, run, stopped, resumed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pace import paced
from safetensors.numpy import load_file
from test_clip_frameworks import SHAPE, equinox, flax_linen, flax_nnx, haiku

import sfumato as sf
from sfumato.core.trees import leaf_names
from sfumato.privacy import fields
from sfumato.runs.recorder import Recorder

N, D, C = 60, 5, 3
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((N, D)).astype(np.float32)
LABELS = RNG.integers(0, C, N).astype(np.int32)
SEED = {"insecure_seed": 3, "log": "quiet"}


def loss(params: Any, example: Any) -> jax.Array:
    scores = jax.nn.relu(1 + example["row"] @ params["w"] + params["b"])  # relu: a custom_jvp
    return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])


def method(loss: Any = loss, rows: np.ndarray = ROWS, **change: Any) -> sf.DPSGD:
    params = {"w": np.zeros((D, C), np.float32), "b": np.zeros(C, np.float32)}
    settings = {
        "optimizer": optax.adam(0.1),
        "sampler": sf.FullBatch(steps=4),
        "noise": sf.Gaussian(4.0),
        "guarantee": sf.Guarantee(3.0, 1e-3),
        "physical_batch_size": 32,
    }
    return sf.DPSGD(loss, params, sf.data.Arrays(row=rows, label=LABELS), **settings | change)


def same(one: Any, two: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(two) and all(
        np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs
    )


# -- what it computes


def test_a_step_is_the_published_sum_of_clipped_gradients() -> None:
    made = method(clip_norm=0.3)
    state = made.start()
    value = made.measure(state, 0, sf.SecretKey.from_insecure_seed(0)).value
    expected = jax.tree.map(np.zeros_like, made.params)
    for row, label in zip(ROWS, LABELS, strict=True):
        own = jax.grad(loss)(state["params"], {"row": row, "label": label})
        norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(own)))
        scale = min(1, 0.3 / norm)
        expected = jax.tree.map(lambda t, g, s=scale: t + s * g, expected, own)
    for leaf, other in zip(jax.tree.leaves(value), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-4)
    assert made.contribution == pytest.approx(0.3)


def test_a_sampler_learns_n_from_the_data() -> None:
    made = method(sampler=sf.Poisson(batch_size=15, steps=4))
    assert made.event(0) == sf.PoissonSampledEvent(0.25, sf.GaussianEvent(4.0))
    assert (made.n, made.steps, made.sampler.expected_batch_size) == (N, 4, 15)
    with pytest.raises(sf.ArgumentError, match=r"(?=.*59)(?=.*60)"):
        method(sampler=sf.Poisson(0.25, 4, 59))
    with pytest.raises(sf.ArgumentError, match="61"):
        method(sampler=sf.Poisson(batch_size=61, steps=4))


def test_a_source_is_data() -> None:
    train = sf.data.open("digits").train
    images, labels = train[np.array([3, 1])]
    assert np.array_equal(images, train.images([3, 1])) and np.array_equal(
        labels, train.labels[[3, 1]]
    )


def test_augmentation_is_drawn_anew_for_every_example_and_step_and_never_from_its_neighbors() -> (
    None
):
    def noisy(example: Any, key: jax.Array) -> Any:
        return {**example, "row": example["row"] + jax.random.normal(key, (D,))}

    def linear(params: Any, example: Any) -> jax.Array:
        return 1e-3 * (example["row"] @ params["w"][:, 0] + params["b"].sum())

    key = sf.SecretKey.from_insecure_seed(0)

    def total(step: int, physical: int = 32, rows: np.ndarray = ROWS) -> np.ndarray:
        made = method(linear, rows, augment=noisy, physical_batch_size=physical)
        return np.asarray(made.measure(made.start(), step, key).value["w"][:, 0]) / 1e-3

    plain = ROWS.sum(0)
    drawn = total(0) - plain
    assert 2 < np.linalg.norm(drawn) / np.sqrt(D) < 20  # of 60 draws: about 7.7
    np.testing.assert_allclose(total(0, physical=7), total(0), atol=1e-2)
    assert np.abs(total(1) - total(0)).max() > 0.1
    spoiled = ROWS.copy()
    spoiled[7] += 1
    np.testing.assert_allclose(total(0, rows=spoiled) - total(0), np.ones(D), atol=1e-2)


# -- calibration


def test_calibration_gives_a_new_method_that_spends_what_was_asked() -> None:
    bare = method(noise=None, guarantee=None)
    with pytest.raises(sf.ArgumentError, match="calibrate"):
        bare.event(0)
    found = sf.calibrate(bare, epsilon=2.0, delta=1e-3)
    assert bare.noise is None and bare.guarantee is None
    assert found.guarantee == sf.Guarantee(2.0, 1e-3)
    assert 1.99 < sf.epsilon({found.event(0): found.steps}, 1e-3) <= 2.0
    assert sf.calibrate(bare, 2.0, 1e-3).noise == found.noise
    assert sf.calibrate(found, 1.0, 1e-3).noise.multiplier > found.noise.multiplier
    for wrong in ({"epsilon": 0.0}, {"epsilon": 2.0, "delta": 0.5}, {"epsilon": 2.0, "unit": ""}):
        with pytest.raises(sf.ArgumentError) as refused:
            sf.calibrate(bare, **wrong)
        assert "\n" not in str(refused.value)


# -- run directories


@pytest.mark.slow
def test_a_run_leaves_parameters_ledger_curve_and_report(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    made = method(ema_decay=0.9)
    state = sf.run(made, out=out, evaluate=lambda params: float(np.abs(params["w"]).max()), **SEED)
    found = load_file(out / "model.safetensors")
    assert same(found, {"b": np.asarray(state["ema"]["b"]), "w": np.asarray(state["ema"]["w"])})
    ledger = sf.Ledger.read(out)
    assert ledger.releases == 4 and 0 < ledger.epsilon() <= 3.0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["measured"]["accuracy"] == float(np.abs(found["w"]).max())
    assert not (out / "secret.key").exists() and not (out / "work").exists()
    page, card = (out / "report.html").read_text(), (out / "model_card.md").read_text()
    for text in ("60 private examples", "A model, trained on", "row (5 float32)"):
        assert text in page
    for absent in ("classes", " image", "None", "no test data"):
        assert absent not in page.split("</style>")[1].split("<figure>")[0], absent
    assert "a differentially private model" in card
    assert sf.report(out) == out / "report.html" and (out / "report.html").read_text() == page
    for path in out.iterdir():
        if path.suffix == ".json":
            fields.check(path.name, json.loads(path.read_text()))
        assert path.name in fields.by_file()


def test_running_twice_is_running_once(tmp_path: Path) -> None:
    first = sf.run(method(), out=tmp_path / "run", **SEED)
    paid = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    again = sf.run(method(), out=tmp_path / "run", **SEED)
    assert same(first, again) and (tmp_path / "run" / "ledger.jsonl").read_bytes() == paid


@pytest.mark.parametrize("seconds", paced([1e-9, 1e9], 1e-9))
def test_a_run_stopped_after_any_step_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """From the last checkpoint, or, where there is none yet, from the beginning."""
    whole = sf.run(method(), out=tmp_path / "whole", **SEED)
    after_step = Recorder.after_step
    for stop in (1, 3, 4):
        out = tmp_path / str(stop)

        def killed(self: Recorder, done: int, state: Any, stop: int = stop) -> None:
            after_step(self, done, state)
            if done == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Recorder, "after_step", killed)
            sf.run(method(), out=out, checkpoint_seconds=seconds, **SEED)
        assert sf.Ledger.read(out).releases == stop
        assert same(sf.run(method(), out=out, **SEED), whole)
        assert sf.Ledger.read(out).releases == 4


CHILD = """
import os, sys
sys.path.insert(0, {tests!r})
import sfumato as sf, test_methods as t
from sfumato.privacy.ledger import Ledger
spend = Ledger.spend
def last(self, *args, **kwargs):
    spend(self, *args, **kwargs)
    if self.releases == 3:
        os.kill(os.getpid(), 9)
Ledger.spend = last
sf.run(t.method(), out={out!r}, **t.SEED)
"""


def test_a_run_killed_right_after_a_payment_ends_in_the_same_bits_in_another_process(
    tmp_path: Path,
) -> None:
    """So what is compared is equal in every process, whatever the seed of its hashes."""
    whole = sf.run(method(), out=tmp_path / "whole", **SEED)
    out = tmp_path / "killed"
    code = CHILD.format(tests=str(Path(__file__).parent), out=str(out))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert sf.Ledger.read(out).releases == 3
    assert same(sf.run(method(), out=out, **SEED), whole)
    assert sf.Ledger.read(out).releases == 4


def other_loss(params: Any, example: Any) -> jax.Array:
    return 2.0 * loss(params, example)


OTHERS = {
    "clip_norm": ({"clip_norm": 0.5}, "clipping.clip_norm=1.0"),
    "loss": ({"loss": other_loss}, "clipping.loss="),
    "learning rate": ({"optimizer": optax.adam(0.2)}, "update="),
    "optimizer": ({"optimizer": optax.sgd(0.1)}, "state.optimizer"),
    "sampler": ({"sampler": sf.FullBatch(steps=5)}, "steps=4"),
    "noise": ({"noise": sf.Gaussian(5.0)}, "noise.multiplier=4.0"),
    "promise": ({"guarantee": sf.Guarantee(4.0, 1e-3)}, "epsilon=3.0"),
    "data": ({"rows": ROWS + 1}, "private examples"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("methods") / "run"

    def stop(done: int, params: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sf.run(method(), out=out, evaluate=lambda params: stop(1, params), **SEED)
    return out


@pytest.mark.parametrize("name", OTHERS)
def test_another_method_in_the_same_directory_is_refused(stopped: Path, name: str) -> None:
    change, says = OTHERS[name]
    paid = sf.Ledger.read(stopped).releases
    with pytest.raises(sf.RunError) as refused:
        sf.run(method(**change), out=stopped, **SEED)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert sf.Ledger.read(stopped).releases == paid


def test_the_command_line_says_who_can_go_on(stopped: Path) -> None:
    from run_helpers import sfumato

    outcome = sfumato("resume", stopped)
    assert outcome.code == 2 and "sf.run with the same method" in outcome.err
    assert outcome.err.count("\n") == 1


def test_what_cannot_be_run_is_refused_in_one_line(tmp_path: Path) -> None:
    key = sf.SecretKey.from_insecure_seed(0)
    cases = [
        (lambda: sf.run(method(noise=None), out=tmp_path / "a", **SEED), "noise=None"),
        (lambda: sf.run(method(guarantee=None), out=tmp_path / "a", **SEED), "guarantee=None"),
        (lambda: sf.run(method()), "out=None"),
        (lambda: sf.run(method(), key=key, out=tmp_path / "a"), "out="),
        (lambda: sf.run(method(), out=tmp_path / "a", log="loud"), "log='loud'"),
        (
            lambda: sf.DPSGD(loss, {}, optimizer=optax.sgd(1), sampler=sf.FullBatch(1, 2)),
            "data=None",
        ),
    ]
    for call, says in cases:
        with pytest.raises(sf.ArgumentError) as refused:
            call()
        assert says in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(sf.BudgetError):
        sf.run(method(noise=sf.Gaussian(0.5)), out=tmp_path / "a", **SEED)
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.parametrize("make", [equinox, flax_linen, flax_nnx, haiku])
def test_a_network_of_any_framework_is_run_published_and_read_again(
    make: Any, tmp_path: Path
) -> None:
    apply, params = make()
    stream = np.random.default_rng(0)
    data = sf.data.Arrays(image=stream.random((12, *SHAPE), np.float32), label=np.arange(12) % 3)

    def own(params: Any, example: Any) -> jax.Array:
        scores = apply(params, example["image"])
        return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])

    made = sf.DPSGD(
        own,
        params,
        data,
        optimizer=optax.sgd(0.1),
        sampler=sf.FullBatch(steps=1),
        noise=sf.Gaussian(3.0),
        guarantee=sf.Guarantee(3.0, 1e-3),
        physical_batch_size=12,
    )
    state = sf.run(made, out=tmp_path / "run", **SEED)
    found = load_file(tmp_path / "run" / "model.safetensors")
    names = leaf_names(params)
    for name, leaf in zip(names, jax.tree.leaves(state["params"]), strict=True):
        assert np.array_equal(found[name], leaf)
    assert same(sf.run(made, out=tmp_path / "run", **SEED), state)


# -- other methods, and attacks


@pytest.mark.slow
def test_feature_covariance_has_the_same_face(tmp_path: Path) -> None:
    from sfumato.features.feature_map import Group
    from sfumato.solve.covariance_settings import CovarianceSettings

    rows = (ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)).astype(np.float32)
    recipe = CovarianceSettings(0.05, 0.25, 0.5, 1e-3, 4, 0.9, 1.0, 1.0)
    made = sf.FeatureCovariance(rows, LABELS, C, (Group(1, D, 1.0),), 1.0, recipe)
    found = sf.calibrate(made, epsilon=2.0, delta=1e-3)
    state = sf.run(found, out=tmp_path / "run", **SEED)
    ledger = sf.Ledger.read(tmp_path / "run")
    assert ledger.releases == found.steps and 1.99 < ledger.epsilon() <= 2.0
    assert "dp-fc" in (tmp_path / "run" / "report.html").read_text()
    assert same(state, sf.run(found, out=tmp_path / "run", **SEED))


@pytest.mark.slow
@pytest.mark.usefixtures("noise_by_name")
def test_canaries_attack_a_method_of_ones_own(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sf.run(method(), out=out, **SEED)
    found = sf.attack(out, method(), size=200, seed=0)
    assert found.unpaid == () and {each.attack for each in found.results} == {"whitebox"}
    assert all(each.epsilon == sf.Ledger.read(out).epsilon() for each in found.results)
    assert not any(each.broken for each in found.results)
    assert "What attacks could measure" in (out / "report.html").read_text()
    with pytest.raises(sf.RunError, match=r"clipping\.clip_norm"):
        sf.attack(out, method(clip_norm=0.5))


# -- the engine under jit


@pytest.mark.slow
def test_clip_norms_by_group_are_taken_by_jit() -> None:
    params, batch = method().params, {"row": jnp.asarray(ROWS), "label": jnp.asarray(LABELS)}
    norms = {"w": 0.3, "b": 0.2}
    grad = sf.clipped_grad(loss, norms, groups=lambda name: name)
    mask = jnp.ones(N, bool)
    plain, jitted = grad(params, batch, mask), jax.jit(grad)(params, batch, mask)
    for one, two in zip(jax.tree.leaves(plain.value), jax.tree.leaves(jitted.value), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert hash(grad) == hash(sf.clipped_grad(loss, dict(norms), groups=grad.groups))
    norms["w"] = 99.0
    assert grad.clip_norm["w"] == 0.3
