"""Fine-tuning as a user runs it, from files of weights; every mode leaves what it freezes as it
was, to the last bit."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pace import paced
from run_helpers import CLASSES, N, ctrl_c_after, refused, sfumato, succeeds
from safetensors.numpy import load_file

from sfumato import weights
from sfumato.features import by_name
from sfumato.plan import public_weights
from sfumato.plan.config import MethodConfig
from sfumato.runs.classifier import Classifier
from sfumato.train.sgd_settings import default_settings

SHAPE = (8, 8, 3)
NAMES = ("a", "b", "c", "d", "e")
STEPS = (
    "--steps",
    "2",
    "--batch",
    N,
    "--views",
    "0",
    "--epsilon",
    "50",
    "--ema",
    "0",
    "--log",
    "quiet",
)


def write(path: Path, model: str, seed: int = 0) -> Path:
    network = by_name.network(model, SHAPE, len(NAMES), jax.random.key(seed))
    weights.save(path, network, model, NAMES, SHAPE)
    return path


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of weights, of networks with another number of classes than the private images have."""
    root = tmp_path_factory.mktemp("public")
    return {model: write(root / f"{model}.safetensors", model) for model in ("wrn-10-1", "cnn")}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("model", "mode", "trained"),
    paced(
        [
            ("cnn", "last:1", "hidden/|head/"),
            ("cnn", "bias", ".*/bias$|head/"),
            ("cnn", "all", ""),
            ("cnn", "lora:2", "hidden/weight$|head/"),
            ("wrn-10-1", "last:1", "blocks/2/|norm/|head/"),
            ("wrn-10-1", "norms", ".*/(scale|shift)$|head/"),
        ],
        ("cnn", "lora:2", "hidden/weight$|head/"),
    ),
)
def test_only_what_is_trained_changes(
    folder: Path, public: dict[str, Path], tmp_path: Path, model: str, mode: str, trained: str
) -> None:
    run = tmp_path / "run"
    succeeds(
        "train", "--data", folder, "--weights", public[model], "--train", mode, *STEPS, "--out", run
    )
    before = load_file(public[model])
    after = {
        name.removeprefix("network/"): array
        for name, array in load_file(run / "model.safetensors").items()
    }
    assert set(after) == set(before)
    changed = {
        name
        for name in before
        if after[name].shape != before[name].shape or (after[name] != before[name]).any()
    }
    assert changed == {name for name in before if re.match(trained, name)}
    assert after["head/weight"].shape[1] == len(CLASSES)
    plan = read(run / "plan.json")
    assert plan["trains"] == mode and plan["method"] == "dp-sgd" and plan["model"] == model
    assert plan["weights"]["sha256"] in (run / "model_card.md").read_text()


@pytest.mark.slow
def test_a_head_is_trained_on_features_computed_once(
    folder: Path, public: dict[str, Path], tmp_path: Path
) -> None:
    run, source = tmp_path / "run", shutil.copy(public["wrn-10-1"], tmp_path / "w.safetensors")
    succeeds(
        "train",
        "--data",
        folder,
        "--weights",
        source,
        "--log",
        "quiet",
        "--epsilon",
        8,
        "--out",
        run,
    )
    plan = read(run / "plan.json")
    assert (plan["method"], plan["features"], plan["trains"]) == ("fc", 64, None)
    assert [each["name"] for each in plan["releases"]] == ["mean", "moments", "gradient"]
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(run / name, alone)
    Path(source).unlink()  # the released model stands without the public file
    images = [folder / "test" / name / "0.png" for name in CLASSES]
    assert len(succeeds("predict", alone, *images).splitlines()) == 3
    before, after = load_file(public["wrn-10-1"]), load_file(alone / "model.safetensors")
    for name, array in before.items():
        if not name.startswith("head/"):
            np.testing.assert_array_equal(after[f"features/network/network/{name}"], array)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ls", "dp-sgd"])
def test_other_methods_for_the_head(
    folder: Path, public: dict[str, Path], tmp_path: Path, method: str
) -> None:
    run = tmp_path / "run"
    settings = ("--steps", "3", "--batch", N) if method == "dp-sgd" else ()
    succeeds(
        "train",
        "--data",
        folder,
        "--weights",
        public["cnn"],
        "--method",
        method,
        *settings,
        "--log",
        "quiet",
        "--out",
        run,
    )
    assert read(run / "plan.json")["features"] == 32
    image = np.zeros((1, *SHAPE), np.float32)
    assert Classifier.load(run).predict_proba(image).shape == (1, len(CLASSES))


@pytest.mark.slow
def test_features_of_weights_in_a_store(
    folder: Path, public: dict[str, Path], tmp_path: Path
) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    told = succeeds(
        "features",
        "--data",
        folder,
        "--weights",
        public["wrn-10-1"],
        "--out",
        store,
        "--log",
        "quiet",
    )
    assert "rows of 64 numbers" in told and "wrn-10-1" in told
    succeeds("fit", "--features", store, "--method", "ls", "--log", "quiet", "--out", run)
    again = succeeds(
        "features",
        "--data",
        folder,
        "--weights",
        public["wrn-10-1"],
        "--out",
        store,
        "--log",
        "quiet",
    )
    assert again == told
    other = write(tmp_path / "other.safetensors", "wrn-10-1", seed=1)
    assert (
        "another --out"
        in sfumato(
            "features", "--data", folder, "--weights", other, "--out", store, "--log", "quiet"
        ).err
    )


@pytest.mark.slow
def test_the_new_head_is_zero_and_the_images_are_resized(public: dict[str, Path]) -> None:
    found = public_weights.find(MethodConfig(weights=str(public["wrn-10-1"]), size=12))
    assert found is not None and found.input.size == 12 and found.model == "wrn-10-1"
    network = public_weights.prepared(found, 3)
    assert not network.network.head.weight.any() and network.network.head.weight.shape == (64, 3)
    image = jax.random.uniform(jax.random.key(0), (16, 16, 1))  # gray, of another size
    assert network(image).shape == (3,)
    row = public_weights.feature_map("wrn-10-1", (16, 16, 1), found)(image)
    assert row.shape == (64,) and abs(float(np.linalg.norm(row)) - 1) < 1e-4


# -- a run that is stopped


def interrupted(folder: Path, source: Path, run: Path) -> None:
    with ctrl_c_after(1):
        outcome = sfumato(*arguments(folder, source, run))
    assert outcome.code == 130, outcome.err


def arguments(folder: Path, source: Path, run: Path) -> tuple[object, ...]:
    return (
        "train",
        "--data",
        folder,
        "--weights",
        source,
        "--train",
        "last:1",
        *STEPS,
        "--optimizer",
        "adam",
        "--out",
        run,
        "--insecure-seed",
        "1",
        "--checkpoint-seconds",
        "1e-6",
    )


@pytest.mark.slow
def test_resuming_ends_in_the_same_bits_and_refuses_other_weights(
    folder: Path, public: dict[str, Path], tmp_path: Path
) -> None:
    source = Path(shutil.copy(public["cnn"], tmp_path / "w.safetensors"))
    whole, run = tmp_path / "whole", tmp_path / "run"
    succeeds(*arguments(folder, source, whole))
    interrupted(folder, source, run)
    state = load_file(run / "work" / "checkpoint" / "state.safetensors")
    assert {name.split("/")[1] for name in state if name.startswith(("params", "ema"))} == {
        "hidden",
        "head",
    }  # nothing frozen
    public_weights._load.cache_clear()  # as in another process
    write(source, "cnn", seed=1)
    refused(run, "resume", run, says=("w.safetensors", "SHA-256", "restore"))
    public_weights._load.cache_clear()
    shutil.copy(public["cnn"], source)
    succeeds("resume", run)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


# -- refusals


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--train", "head"), ("train='head'", "--weights")),
        (("--model", "scattering", "--size", "16"), ("size=16", "size of its own")),
        (("--optimizer", "adagrad"), ("--optimizer adagrad", "lamb")),
    ],
)
def test_refused_without_weights(
    folder: Path, tmp_path: Path, more: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(tmp_path, "train", "--data", folder, *more, "--out", tmp_path / "run", says=says)


@pytest.mark.parametrize(
    ("model", "more", "says"),
    [
        ("wrn-10-1", ("--train", "last:4"), ("last=4", "3 blocks")),
        ("wrn-10-1", ("--train", "lora:2"), ("lora:2", "no linear layer besides")),
        ("cnn", ("--train", "norms"), ("norms", "last:K")),
        ("cnn", ("--train", "some"), ("train='some'", "head")),
        ("cnn", ("--train", "all", "--method", "ls"), ("method='ls'", "dp-sgd")),
        ("cnn", ("--method", "dp-fc"), ("dp-fc", "fc")),
        ("cnn", ("--views", "4"), ("views=4", "last:1")),
        ("cnn", ("--optimizer", "lamb"), ("optimizer='lamb'", "no such setting")),
        ("cnn", ("--model", "wrn-10-1"), ("made for cnn",)),
        ("cnn", ("--model", "scattering"), ("model='scattering'", "network")),
    ],
)
def test_refused_with_weights(
    folder: Path,
    public: dict[str, Path],
    tmp_path: Path,
    model: str,
    more: tuple[str, ...],
    says: tuple[str, ...],
) -> None:
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--weights",
        public[model],
        *more,
        "--out",
        tmp_path / "run",
        says=says,
    )


# -- settings


def test_a_batch_alone_keeps_the_passes_and_scales_the_rate() -> None:
    default = default_settings("fine-tuning", 50_000, 1.0, 0.3)
    assert (default.batch, default.steps, default.learning_rate, default.views) == (
        16_384,
        250,
        1.0,
        16,
    )
    quarter = default.adjusted(batch=4096)
    assert (quarter.steps, quarter.learning_rate) == (1000, 0.25)
    assert default.adjusted(batch=4096, steps=10).learning_rate == 1.0
    adam = default.adjusted(batch=4096, optimizer="adam")
    assert adam.learning_rate == 0.5e-3 and adam.momentum == 0.9
    assert default.adjusted(optimizer="momentum").learning_rate == pytest.approx(0.1)
    assert default.adjusted(optimizer="lamb", learning_rate=3.0).learning_rate == 3.0


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "lamb"])
def test_every_optimizer_goes_downhill(name: str) -> None:
    """From the gradient of |x|^2 / 2, noise or not."""
    optimizer = (
        default_settings("fine-tuning", 1000, 1.0, 0.3)
        .adjusted(optimizer=name, learning_rate=0.02)
        .transformation()
    )
    x = np.ones(4, np.float32)
    state = optimizer.init(x)
    for _ in range(20):
        update, state = optimizer.update(x, state, x)
        x = x + update
    assert np.all(np.abs(x) < 0.95)
