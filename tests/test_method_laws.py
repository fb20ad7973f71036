"""Laws of the public face over all methods: calibrated, run, stopped, run again, accounted, reported.
And any mechanism as the noise of DP-SGD."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from pace import paced
from plugins.halves import Halves
from run_helpers import ctrl_c_after

import sfumato as sf
from sfumato.core import plugins
from sfumato.noise import BandedGaussian
from sfumato.noise.banded import square_root_bands
from sfumato.plan.methods import METHODS
from sfumato.privacy.releases import tally_of
from sfumato.solve.linear_settings import HEADS
from sfumato.train.described import releases_of

N, D, CLASSES, DELTA = 90, 4, 3, 1e-4
STREAM = np.random.default_rng(0)
LABELS = (np.arange(N) % CLASSES).astype(np.int32)
ROWS = (3 * np.eye(D)[LABELS] + STREAM.normal(size=(N, D))).astype(np.float32)
UNIT = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
OPTIONS: dict[str, Any] = {"insecure_seed": 1, "log": "quiet", "checkpoint_seconds": 1e-9}


def dpsgd(**change: Any) -> sf.DPSGD:
    def loss(weight: jax.Array, example: Any) -> jax.Array:
        scores = example["row"] @ weight
        return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])

    own = {"optimizer": optax.sgd(0.1), "sampler": sf.FullBatch(steps=3), "physical_batch_size": N}
    data = sf.data.Arrays(row=ROWS, label=LABELS)
    return sf.DPSGD(loss, np.zeros((D, CLASSES), np.float32), data, **own | change)


def bare(name: str) -> Any:
    """A method of the registry on the same rows, its noise not chosen yet."""
    if METHODS[name].needs == "rows":
        return sf.linear_head(ROWS, LABELS, name)
    return {"dp-sgd": dpsgd, "dp-fc": lambda: sf.FeatureCovariance(UNIT, LABELS, CLASSES)}[name]()


def same(one: Any, two: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", paced(METHODS, "dp-sgd", "dp-fc", "ls"))
def test_every_method_is_calibrated_run_stopped_resumed_accounted_and_reported(
    name: str, tmp_path: Path
) -> None:
    method = sf.calibrate(bare(name), 4.0, DELTA, unit="row")
    whole = sf.run(method, out=tmp_path / "whole", **OPTIONS)
    ledger = sf.Ledger.read(tmp_path / "whole")
    assert ledger.releases == method.steps and 3.99 < ledger.epsilon() <= 4.0
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "90 private rows" in page
    for release in releases_of(method):
        assert release.what.removeprefix("the ")[:40] in page
    stop = min(2, method.steps - 1)
    with ctrl_c_after(stop), pytest.raises(KeyboardInterrupt):
        sf.run(method, out=tmp_path / "run", **OPTIONS)
    assert sf.Ledger.read(tmp_path / "run").releases == stop
    again = sf.calibrate(bare(name), 4.0, DELTA, unit="row")
    assert same(sf.run(again, out=tmp_path / "run", **OPTIONS), whole)
    assert same(sf.run(again, out=tmp_path / "run", **OPTIONS), whole)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_promised_before_the_noise_is_chosen(name: str, tmp_path: Path) -> None:
    given = {"out": tmp_path / "run", "guarantee": sf.Guarantee(4.0, DELTA), **OPTIONS}
    with pytest.raises(sf.ArgumentError, match="calibrate the method") as refused:
        sf.run(bare(name), **given)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in HEADS if "steps" in HEADS[name].__annotations__])
def test_flags_go_before_the_rule(name: str) -> None:
    assert sf.linear_head(ROWS, LABELS, name, steps=3).with_noise(1.0).steps == 4
    with pytest.raises(sf.ArgumentError, match=r"stepz=.*leave it out"):
        sf.linear_head(ROWS, LABELS, name, stepz=3)


@pytest.mark.slow
def test_sampled_gradients_share_the_budget_with_the_mean() -> None:
    """The promise is kept, and sampling leaves neither part with more noise than without it."""
    whole, sampled = (
        sf.calibrate(sf.linear_head(ROWS, LABELS, "sgd", steps=3, batch=batch), 4.0, DELTA)
        for batch in (N, 30)
    )
    assert 3.9 < sf.epsilon(tally_of(sampled.releases), DELTA) <= 4.0
    for one, other in zip(sampled.releases, whole.releases, strict=True):
        assert one.noise_multiplier <= other.noise_multiplier
    assert sampled.releases[1].noise_multiplier < 0.8 * whole.releases[1].noise_multiplier


@pytest.mark.parametrize("labels", [LABELS.astype(str), LABELS.astype(float), LABELS[:0], -LABELS])
def test_labels_that_are_no_classes_are_refused(labels: Any) -> None:
    with pytest.raises(sf.ArgumentError, match="labels"):
        sf.linear_head(ROWS[: len(labels)], labels)


# -- any mechanism as the noise of DP-SGD


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing is allowed yet."""
    monkeypatch.setattr(plugins, "_allowed", set())
    monkeypatch.setattr(plugins, "_given", {})


MECHANISMS = {
    "gaussian": sf.Gaussian(1.0),
    "lattice": sf.LatticeGaussian(1.0),
    "plugins.halves:Halves": Halves(1.0),
}


@pytest.mark.parametrize("name", paced(MECHANISMS, "gaussian"))
def test_a_mechanism_is_the_noise_that_is_drawn_and_stated(name: str, tmp_path: Path) -> None:
    found = sf.calibrate(dpsgd(noise=MECHANISMS[name]), 4.0, DELTA)
    assert type(found.noise) is type(MECHANISMS[name]) and found.noise.multiplier != 1.0
    out = tmp_path / "run"
    state = sf.run(found, out=out, **OPTIONS)
    key = sf.SecretKey.from_insecure_seed(1)
    with sf.Ledger.temporary(DELTA, 4.0) as ledger:
        assert same(sf.run(found, ledger, key), state)
    others = [
        sf.run(
            dpsgd(noise=each).with_noise(found.noise.multiplier, found.guarantee),
            out=tmp_path / str(k),
            **OPTIONS,
        )
        for k, each in enumerate(MECHANISMS.values())
    ]
    assert sum(same(each, state) for each in others) == 1
    assert f'"noise": "{name}"' in (out / "plan.json").read_text()
    assert type(MECHANISMS[name]).where in (out / "report.html").read_text()


def test_a_report_of_noise_from_outside_asks_for_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, name = tmp_path / "run", "plugins.halves:Halves"
    sf.run(sf.calibrate(dpsgd(noise=Halves(1.0)), 4.0, DELTA), out=out, **OPTIONS)
    monkeypatch.setattr(plugins, "_given", {})
    with pytest.raises(sf.RunError, match="trust"):
        sf.report(out)
    assert sf.report(out, trust=name) == out / "report.html"


def test_correlated_noise_is_a_mechanism_whose_promise_is_kept_as_it_is(tmp_path: Path) -> None:
    noise = BandedGaussian(1.0, square_root_bands(2))
    sampler = sf.CyclicPoisson(rate=1.0, steps=4, cycle=2)
    method = sf.calibrate(dpsgd(noise=noise, sampler=sampler), 4.0, DELTA)
    assert isinstance(method.noise, sf.Mechanism) and np.array_equal(
        method.noise.correlation(), noise.coefficients
    )
    whole = sf.run(method, out=tmp_path / "whole", **OPTIONS)
    with ctrl_c_after(3), pytest.raises(KeyboardInterrupt):
        sf.run(method, out=tmp_path / "run", **OPTIONS)
    assert same(sf.run(method, out=tmp_path / "run", **OPTIONS), whole)
    with pytest.raises(sf.ArgumentError, match="correlated"):
        sf.run(method, out=tmp_path / "other", noise="lattice", **OPTIONS)
