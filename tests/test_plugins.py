"""From outside of the package, by nothing but a name: a network, a data set, an optimizer, a
procedure; each trained, stopped, resumed, accounted, reported."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plugins.data import stripes
from plugins.networks import perceptron
from plugins.procedures import KMeans
from run_helpers import ctrl_c_after, sfumato, succeeds
from safetensors.numpy import load_file

import sfumato as sf
from sfumato.core import plugins
from sfumato.train import sgd_settings

NETWORK, DATA = "plugins.networks:perceptron", "plugins.data:stripes"
FLAGS = ("--method", "dp-sgd", "--steps", "4", "--batch", "64", "--epsilon", "8", "--delta", "1e-3")
QUIET = ("--log", "quiet")


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing is allowed yet."""
    monkeypatch.setattr(plugins, "_allowed", set())
    monkeypatch.setattr(plugins, "_given", {})


def train(out: Path, *more: object) -> tuple[object, ...]:
    return ("train", "--data", DATA, "--model", NETWORK, *FLAGS, *QUIET, "--out", out, *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plugins") / "run"
    succeeds(*train(out, "--insecure-seed", 1))
    return out


@pytest.mark.slow
def test_a_network_and_a_data_set_from_outside_train_account_and_report(run: Path) -> None:
    plan = json.loads((run / "plan.json").read_text())
    assert plan["model"] == NETWORK and plan["name"] == "stripes"
    assert (plan["n"], plan["n_test"], plan["classes"]) == (64, 32, ["across", "down"])
    assert plan["parameters"] == 64 * 16 + 16 + 16 * 2 + 2
    assert "epsilon" in succeeds("account", run) and "PRIVA" in succeeds("report", run).upper()
    assert NETWORK in (run / "report.html").read_text()
    assert NETWORK in succeeds(*train(run.parent / "none", "--dry-run", "--no-estimate"))


@pytest.mark.slow
def test_a_run_of_plugins_that_was_stopped_ends_in_the_same_bits(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with ctrl_c_after(2):
        assert sfumato(*train(out, "--insecure-seed", 1)).code == 130
    plugins._allowed.clear()
    refused = sfumato("resume", out)
    assert refused.code == 2 and f"--trust {DATA}" in refused.err and refused.err.count("\n") == 1
    succeeds("resume", out, "--trust", NETWORK, "--trust", DATA)
    assert (out / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_model_of_plugins_predicts_only_if_the_user_trusts_it(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", stripes()[1][0])
    ask = ("predict", run, tmp_path / "images.npy", "--json")
    refused = sfumato(*ask)
    assert refused.code == 2 and f"--trust {NETWORK}" in refused.err
    assert refused.err.count("\n") == 1 and refused.out == ""
    assert len(succeeds(*ask, "--trust", NETWORK).splitlines()) == 32
    plugins._allowed.clear()
    with pytest.raises(sf.ArgumentError, match="--trust"):
        sf.Classifier.load(run)
    assert sf.Classifier.load(run, trust=NETWORK).spec.model == NETWORK
    succeeds("evaluate", run, "--trust", NETWORK, "--trust", DATA)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--model", "plugins.networks:wrong"), "2 scores"),
        (("--model", "plugins.networks:absent"), "cannot be imported"),
        (("--model", "no_such_module:f"), "cannot be imported"),
        (("--data", "plugins.data:nothing"), "gave no data set"),
        (("--model", NETWORK, "--method", "dp-fc"), "fixed features"),
    ],
)
def test_what_is_no_network_and_no_data_set_is_refused_in_one_line(
    tmp_path: Path, flags: tuple[str, ...], says: str
) -> None:
    given = {"--data": DATA, "--model": NETWORK, "--method": "dp-sgd"}
    given |= dict(zip(flags[::2], flags[1::2], strict=True))
    outcome = sfumato(
        "train",
        *(word for pair in given.items() for word in pair),
        *QUIET,
        "--out",
        tmp_path / "run",
    )
    assert outcome.code == 2 and says in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_all_that_a_data_function_may_return_is_the_same_data_set() -> None:
    plugins.allow(DATA, "plugins.data:splits")
    one, two = sf.data.open(DATA), sf.data.open("plugins.data:splits")
    for part in ("train", "test"):
        a, b = getattr(one, part), getattr(two, part)
        assert a.class_names == b.class_names and np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.images(np.arange(len(a))), b.images(np.arange(len(b))))


@pytest.mark.slow
def test_the_estimator_takes_a_function_or_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """By DP-SGD with strings for labels; of few steps, as the default's thousands say no more."""
    default = sgd_settings.default_settings
    monkeypatch.setattr(
        sgd_settings, "default_settings", lambda *facts: replace(default(*facts), steps=4, batch=64)
    )
    (images, labels), _ = stripes()
    for model in (perceptron, NETWORK):
        found = sf.DPImageClassifier(8.0, 1e-3, method="dp-sgd", model=model).fit(images, labels)
        assert found.plan_.model == NETWORK and found.plan_.settings.steps == 4
        assert set(found.predict(images)) <= set(labels) and found.epsilon_ <= 8.0


# -- a procedure and an optimizer


def blobs() -> np.ndarray:
    stream = np.random.default_rng(0)
    centers = np.array([[0.8, 0.0], [-0.4, 0.6], [-0.4, -0.6]])
    return (centers[np.arange(600) % 3] + stream.normal(0, 0.05, (600, 2))).astype(np.float32)


def kmeans(**change: Any) -> KMeans:
    begin = np.array([[0.5, 0.1], [-0.1, 0.5], [-0.1, -0.5]], np.float32)
    return KMeans(**{"rows": blobs(), "centers": begin} | change)


def test_a_procedure_of_ones_own_is_calibrated_run_stopped_resumed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = sf.calibrate(kmeans(), epsilon=2.0, delta=1e-5, unit="customer")
    options = {"insecure_seed": 1, "log": "quiet"}
    whole = sf.run(method, out=tmp_path / "whole", **options)
    ledger = sf.Ledger.read(tmp_path / "whole")
    assert ledger.releases == 3 and 1.99 < ledger.epsilon() <= 2.0 and ledger.unit == "customer"
    assert "epsilon" in succeeds("account", tmp_path / "whole")
    assert "600\u00a0private customers" in succeeds("report", tmp_path / "whole")
    found = load_file(tmp_path / "whole" / "model.safetensors")
    assert np.array_equal(found["centers"], np.asarray(whole["centers"]))
    assert (
        np.linalg.norm(found["centers"] - [[0.8, 0], [-0.4, 0.6], [-0.4, -0.6]], axis=1).max() < 0.1
    )
    page = (tmp_path / "whole" / "report.html").read_text()
    assert "600 private customers" in page and "k-means" in page
    with ctrl_c_after(1), pytest.raises(KeyboardInterrupt):
        sf.run(method, out=tmp_path / "run", **options)
    for other in (kmeans(rows=blobs() + 1), kmeans(centers=np.zeros((4, 2), np.float32))):
        changed = other.with_noise(method.noise, method.guarantee)
        with pytest.raises(sf.RunError):
            sf.run(changed, out=tmp_path / "run", **options)
    again = sf.run(method, out=tmp_path / "run", **options)
    assert np.array_equal(again["centers"], whole["centers"])


def test_a_procedure_that_says_too_little_is_refused_in_one_line(tmp_path: Path) -> None:
    class Bare:
        name, steps = "bare", 1
        start = event = mechanism = measure = absorb = lambda *_: None

    with pytest.raises(sf.ArgumentError, match="with_noise"):
        sf.calibrate(Bare(), 1.0)
    with pytest.raises(sf.ArgumentError, match="attribute n"):
        sf.run(Bare(), out=tmp_path / "run", guarantee=sf.Guarantee(1.0, 1e-5))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_chain_of_optax_with_a_schedule_is_an_optimizer(tmp_path: Path) -> None:
    """Its count of steps is in the state, so a stopped run goes on where the schedule was."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.5, 2, 4)
    chain = optax.chain(
        optax.add_decayed_weights(1e-2),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(schedule),
    )
    method = sf.DPSGD(
        lambda params, example: jnp.sum((params - example["row"]) ** 2),
        np.zeros(2, np.float32),
        sf.data.Arrays(row=blobs()),
        optimizer=chain,
        sampler=sf.FullBatch(steps=4),
        noise=sf.Gaussian(5.0),
        guarantee=sf.Guarantee(4.0, 1e-5),
    )
    options = {"insecure_seed": 1, "log": "quiet"}
    whole = sf.run(method, out=tmp_path / "whole", **options)
    with ctrl_c_after(2), pytest.raises(KeyboardInterrupt):
        sf.run(method, out=tmp_path / "run", checkpoint_seconds=1e-9, **options)
    assert np.array_equal(
        sf.run(method, out=tmp_path / "run", **options)["params"], whole["params"]
    )
