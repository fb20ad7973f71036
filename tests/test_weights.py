"""Public weights become networks: from our own files, from directories as the hub lays them out; or
they are refused."""

import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import sfumato
from sfumato.core.errors import ArgumentError, WeightsError
from sfumato.core.trees import leaf_names
from sfumato.networks import catalog
from sfumato.networks.architecture import Shape
from sfumato.networks.backbone import Backbone
from sfumato.networks.image_cost import outline
from sfumato.networks.input import Input, Prepared
from sfumato.weights import load, pretrained, save
from sfumato.weights.configs import read_config
from sfumato.weights.layout import Entry, fill, is_parameter, kernel, outlined, same, transposed
from sfumato.weights.load import LAYOUTS, _is_whole

MODEL = "wrn-10-1"
INPUT = Input(8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), "bilinear", 3)
CONFIG = {
    "architecture": MODEL,
    "num_classes": 4,
    "pretrained_cfg": {
        "input_size": [3, 8, 8],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
        "interpolation": "bilinear",
    },
}
IMAGE = jnp.asarray(np.random.default_rng(7).random((12, 10, 3)), jnp.float32)


def network(
    classes: int = 4, seed: int = 0, model: str = MODEL, shape: Shape = (8, 8, 3)
) -> Backbone:
    """Random, also its biases and norms."""
    draws = np.random.default_rng(seed)
    own, static = eqx.partition(outline(catalog.find(model), shape, classes), is_parameter)
    drawn = jax.tree.map(
        lambda leaf: jnp.asarray(draws.normal(1, 0.5, leaf.shape), jnp.float32), own
    )
    return eqx.combine(drawn, static)


# -- a convention of names, as another library could have it


def theirs(ours: str) -> str:
    return "net." + ours.replace("/", ".")


def layout(network: Backbone) -> Iterable[Entry]:
    for name, leaf in zip(
        leaf_names(outlined(network)), jax.tree.leaves(outlined(network)), strict=True
    ):
        turn = {4: kernel, 2: transposed, 1: same}[len(leaf.shape)]
        yield Entry(name, (theirs(name),), turn)


def their_arrays(network: Backbone) -> dict[str, np.ndarray]:
    turned = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    own = outlined(network)
    arrays = {
        theirs(name): np.asarray(leaf).transpose(turned[leaf.ndim])
        for name, leaf in zip(leaf_names(own), jax.tree.leaves(own), strict=True)
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()} | {
        "net.steps": np.array(3)
    }


@pytest.fixture(autouse=True)
def _foreign_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """That library's names, and a small catalog, since a refusal looks for what would fit in all of
    it."""
    known = {
        name: catalog.find(name) for name in ("cnn", "wrn-16-1", MODEL, "vit_tiny_patch16_224")
    }
    monkeypatch.setattr(catalog, "architectures", lambda: known)
    module = ModuleType("sfumato.weights.foreign")
    module.layout, module.unused = layout, lambda name: name == "net.steps"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(LAYOUTS, "wrn", ("foreign",))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As the hub lays it out."""
    save_file(their_arrays(network()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@eqx.filter_jit
def scores(prepared: Prepared, image: jax.Array) -> jax.Array:
    return prepared(image)


def refusal(*arguments: object, **named: object) -> str:
    with pytest.raises(WeightsError) as error:
        pretrained(*arguments, **named)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


# -- loading


def test_a_directory_as_the_hub_lays_it_out(directory: Path) -> None:
    weights = sfumato.weights.load(directory)
    assert (weights.architecture, weights.input, weights.source) == (MODEL, INPUT, str(directory))
    assert (
        weights.sha256 == hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    )
    found = pretrained(directory)
    assert found.input == INPUT
    np.testing.assert_allclose(
        scores(found, IMAGE), scores(Prepared(network(), INPUT), IMAGE), rtol=1e-5
    )
    assert all(
        eqx.is_array(leaf)
        for leaf in jax.tree.leaves(eqx.filter(found, lambda leaf: hasattr(leaf, "dtype")))
    )


def test_a_new_head_of_zeros_and_another_size(directory: Path) -> None:
    found = pretrained(directory, classes=7, size=16)
    assert found.input == replace(INPUT, size=16)
    assert found.network.head.weight.shape == (64, 7)
    np.testing.assert_array_equal(scores(found, IMAGE), np.zeros(7))
    np.testing.assert_array_equal(
        found.network.blocks[2].second.conv.kernel, network().blocks[2].second.conv.kernel
    )


def test_into_a_network_with_a_head_of_its_own(directory: Path) -> None:
    weights, mine = load(directory), network(classes=5, seed=3)
    found = weights.into(mine, "new")
    np.testing.assert_array_equal(found.head.weight, mine.head.weight)
    np.testing.assert_array_equal(found.stem.kernel, network().stem.kernel)
    with pytest.raises(WeightsError, match="4 outputs, the network's 5; take a new head"):
        weights.into(mine)
    with pytest.raises(ArgumentError, match="head"):
        weights.into(mine, "other")


def test_torch_and_numpy_files_with_a_configuration_or_a_model_beside_them(directory: Path) -> None:
    np.savez(directory / "mine.npz", **their_arrays(network()))
    assert load(directory / "mine.npz").input == INPUT
    (directory / "mine.json").write_text(json.dumps({**CONFIG, "pretrained_cfg": {}}))
    assert load(directory / "mine.npz").input == Input()
    image = IMAGE[:9, :9]
    expected = scores(Prepared(network(), Input()), image)
    np.testing.assert_allclose(
        scores(pretrained(directory / "mine.npz"), image), expected, rtol=1e-5
    )
    (directory / "mine.json").unlink()
    (directory / "config.json").unlink()
    np.testing.assert_allclose(
        scores(pretrained(directory / "mine.npz", model=MODEL), image), expected, rtol=1e-5
    )
    (directory / "mine.npz").rename(directory / f"{MODEL}.a1.npz")
    np.testing.assert_allclose(
        scores(pretrained(directory / f"{MODEL}.a1.npz"), image), expected, rtol=1e-5
    )


# -- our own format


def test_our_own_file_says_all_that_is_needed(tmp_path: Path) -> None:
    given = Prepared(network(), replace(INPUT, size=None, colors=None))
    with pytest.raises(ArgumentError, match="shape"):
        save(tmp_path / "a.safetensors", given, MODEL)
    save(tmp_path / "a.safetensors", given, MODEL, ("a", "b", "c", "é"), (8, 8, 3))
    weights = load(tmp_path / "a.safetensors")
    assert (weights.architecture, weights.input, weights.classes) == (
        MODEL,
        INPUT,
        ("a", "b", "c", "é"),
    )
    found = pretrained(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(scores(found, IMAGE), scores(Prepared(network(), INPUT), IMAGE))
    assert pretrained(tmp_path / "a.safetensors", classes=2).network.head.bias.shape == (2,)


def test_a_network_whose_structure_depends_on_the_image_comes_back(tmp_path: Path) -> None:
    small = Prepared(network(model="cnn", shape=(16, 16, 3)), Input())
    save(tmp_path / "a.safetensors", small, "cnn", shape=(16, 16, 3))
    image = jnp.resize(IMAGE, (16, 16, 3))
    np.testing.assert_array_equal(
        scores(pretrained(tmp_path / "a.safetensors"), image), scores(small, image)
    )


def test_position_embeddings_of_our_own_file_are_resized(tmp_path: Path) -> None:
    vit = catalog.find("vit_tiny_patch16_224")
    given = Prepared(network(model=vit.name, shape=(32, 32, 3)), replace(vit.input, size=32))
    save(tmp_path / "a.safetensors", given, vit.name)
    np.testing.assert_array_equal(
        pretrained(tmp_path / "a.safetensors").network.positions, given.network.positions
    )
    larger = pretrained(tmp_path / "a.safetensors", size=64).network.positions
    assert larger.shape == (17, 192)
    np.testing.assert_array_equal(larger[0], given.network.positions[0])
    np.testing.assert_allclose(larger[1:].mean(), given.network.positions[1:].mean(), atol=0.1)
    with pytest.raises(ArgumentError, match="patches"):
        pretrained(tmp_path / "a.safetensors", size=40)


@pytest.mark.parametrize(
    "changes, argument",
    [
        ({"path": "a.npz"}, "path"),
        ({"architecture": "resnet-of-mine"}, "model"),
        ({"classes": ("a",)}, "classes"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, changes: dict, argument: str) -> None:
    arguments = {"path": "a.safetensors", "architecture": MODEL, "classes": ()} | changes
    with pytest.raises(ArgumentError, match=argument):
        save(
            tmp_path / arguments["path"],
            Prepared(network(), INPUT),
            arguments["architecture"],
            arguments["classes"],
        )


def test_our_own_file_with_other_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, Prepared(network(), INPUT), MODEL)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    save_file(arrays, path, metadata | {"input": "{"})
    assert "metadata is damaged" in refusal(path)
    arrays["head/bias"] = arrays["head/bias"] + 1
    save_file(arrays, path, metadata)
    assert "digest" in refusal(path)


# -- refusals


@pytest.mark.slow
def test_missing_left_over_misshapen_and_not_finite_arrays_are_named(directory: Path) -> None:
    path, arrays = directory / "model.safetensors", their_arrays(network())

    def without(name: str) -> dict[str, np.ndarray]:
        return {key: array for key, array in arrays.items() if key != name}

    bad = {
        "the file lacks net.norm.scale;": without("net.norm.scale"),
        "the network has no place for net.extra;": arrays | {"net.extra": np.zeros(1, np.float32)},
        "of another shape: norm/shift (1,) where the network has (64,);": arrays
        | {"net.norm.shift": np.zeros(1, np.float32)},
        "of another shape: net.stem.kernel (16,) for stem/kernel (3, 3, 3, 16)": arrays
        | {"net.stem.kernel": np.zeros(16, np.float32)},
        "not finite: norm/scale;": arrays | {"net.norm.scale": np.full(64, np.nan, np.float32)},
        "BatchNorm statistics (net.running_mean)": arrays
        | {"net.running_mean": np.zeros(1, np.float32)},
        "file has no head": without("net.head.bias"),
    }
    for message, content in bad.items():
        save_file(content, path)
        assert message in refusal(directory)
    assert pretrained(directory, classes=3).network.head.bias.shape == (3,)
    save_file({"other": np.zeros(1, np.float32)}, path)
    assert "the file lacks net.blocks" in refusal(directory)


def test_a_layout_that_forgets_a_leaf_does_not_leave_it_random() -> None:
    with pytest.raises(WeightsError, match="nothing in the file makes stem/gain"):
        fill(
            network(),
            {"net.steps": np.zeros(1)} | their_arrays(network()),
            lambda network: [entry for entry in layout(network) if entry.ours != "stem/gain"],
            lambda name: name in ("net.steps", "net.stem.gain"),
            keep_head=True,
        )


def test_the_wrong_model_is_refused_and_the_right_one_named(directory: Path) -> None:
    assert f"made for {MODEL}, not for wrn-16-4" in refusal(directory, model="wrn-16-4")
    with pytest.raises(ArgumentError, match="model='resnet-of-mine'"):
        load(directory, "resnet-of-mine")
    with pytest.raises(
        WeightsError, match=f"weights of {MODEL} do not fit a SmallCNN; choose model='{MODEL}'"
    ):
        load(directory).into(network(model="cnn"))
    (directory / "config.json").write_text(json.dumps({"architecture": "resnet-of-mine"}))
    assert "made for 'resnet-of-mine', which is not here" in refusal(directory)
    (directory / "config.json").unlink()
    for model in ("wrn-16-1", "cnn"):
        told = refusal(directory, model=model)
        assert (
            told.endswith(f"; they fit {MODEL}: give --model {MODEL} (model={MODEL!r})")
            and told.count("fit") == 2
        )


def test_a_file_that_says_nothing_is_of_the_only_model_it_fits(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "config.json").unlink()
    assert load(directory).architecture == MODEL
    file = (directory / "model.safetensors").rename(
        directory / "wrn-16-1.safetensors"
    )  # a name is a hint, and may be wrong
    assert load(file).architecture == MODEL
    twin = replace(catalog.find(MODEL), name="twin")
    known = catalog.architectures() | {"twin": twin}
    monkeypatch.setattr(catalog, "architectures", lambda: known)
    assert (
        f"does not say its model; they fit {MODEL}, twin; choose one of them by --model (model=)"
        in refusal(file)
    )
    assert load(file, "twin").architecture == "twin"
    assert load(file.rename(directory / "twin.safetensors")).architecture == "twin"


def test_vision_transformers_are_told_apart_by_their_positions() -> None:
    """Those for 224 and 384 pixels fit the same files, since position embeddings can be resized."""
    network = outline(catalog.find("vit_tiny_patch16_224"), (224, 224, 3), 7)
    numbers = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(outlined(network)))
    assert _is_whole("vit_tiny_patch16_224", numbers) and not _is_whole(
        "vit_tiny_patch16_384", numbers
    )


def test_a_pinned_digest(directory: Path) -> None:
    file = directory / "model.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert load(f"{directory}@sha256:{digest}").sha256 == digest
    assert "not " + "0" * 64 in refusal(f"{file}@sha256:{'0' * 64}")
    assert "64 hexadecimal digits" in refusal(f"{file}@sha256:beef")
    beside = directory / "model.safetensors.sha256"
    beside.write_text(f"{digest}  model.safetensors\n")
    assert load(file).sha256 == digest
    beside.write_text("1" * 64)
    assert "not " + "1" * 64 in refusal(directory)
    beside.write_text("none")
    assert "sha256sum" in refusal(directory)


def test_places_without_weights(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.pth")
    assert "no such file" in refusal("weights/nothing.pth")
    assert "no such file" in refusal("one_word")
    assert "found: none" in refusal(tmp_path)
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", a=np.ones(1))
    assert "a.npz, b.npz" in refusal(tmp_path)
    for content in ("{", "[]"):
        (tmp_path / "config.json").write_text(content)
        assert "config.json" in refusal(tmp_path / "a.npz")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": MODEL, "pretrained_cfg": {"input_size": 3}})
    )
    assert "configuration beside the weights is damaged" in refusal(tmp_path / "a.npz")


def test_without_the_hubs_client_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = refusal("timm/vit_base_patch16_224.augreg_in21k")
    assert "pip install 'sfumato[hub]'" in said and "path" in said


# -- configurations


def test_timms_configuration_before_version_0_9() -> None:
    facts = read_config(
        {
            "architecture": "wrn-16-4",
            "input_size": [3, 64, 64],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "label_names": ["a", "b"],
        },
        {},
    )
    assert facts.input == Input(
        64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", 3
    ) and facts.classes == ("a", "b")


VIT = {
    "model_type": "vit",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "patch_size": 16,
    "image_size": 224,
    "num_channels": 3,
    "id2label": {"1": "hen", "0": "cock", "10": "goose"},
}
VIT_INPUT = {
    "size": 224,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}


def test_a_vision_transformer_of_transformers() -> None:
    facts = read_config(VIT, VIT_INPUT)
    assert facts.architecture == "vit_base_patch16_224" and facts.classes == (
        "cock",
        "hen",
        "goose",
    )
    assert facts.input == Input(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear", 3)
    assert read_config(VIT, {}).input is None
    large = VIT | {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "patch_size": 32,
        "image_size": 384,
    }
    assert (
        read_config(large, {"size": {"height": 384, "width": 384}, **VIT_INPUT}).architecture
        == "vit_large_patch32_384"
    )


@pytest.mark.parametrize(
    "depths, kind, name",
    [
        ([2, 2, 2, 2], "basic", "resnet18"),
        ([3, 4, 6, 3], "basic", "resnet34"),
        ([3, 4, 6, 3], "bottleneck", "resnet50"),
        ([3, 4, 23, 3], "bottleneck", "resnet101"),
    ],
)
def test_residual_networks_of_transformers(depths: list[int], kind: str, name: str) -> None:
    preprocessor = {
        "size": {"shortest_edge": 224},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    }
    facts = read_config(
        {"model_type": "resnet", "depths": depths, "layer_type": kind, "num_channels": 3},
        preprocessor,
    )
    assert facts.architecture == name
    assert facts.input == Input(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 3)


@pytest.mark.parametrize(
    "config, preprocessor",
    [
        ({"model_type": "bert"}, {}),
        ({"architecture": "a", "pretrained_cfg": {"input_size": [3, 8, 9]}}, {}),
        ({"architecture": "a", "pretrained_cfg": {"input_size": [3, 8, 8]}}, {}),
        (VIT, {"size": {"height": 8, "width": 9}}),
        (VIT, {"size": 8}),
        (VIT | {"id2label": {"a": "b"}}, {}),
        (VIT | {"id2label": 3}, VIT_INPUT),
    ],
)
def test_configurations_that_cannot_be_used(config: dict, preprocessor: dict) -> None:
    with pytest.raises(WeightsError):
        read_config(config, preprocessor)
