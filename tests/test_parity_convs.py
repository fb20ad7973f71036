"""Convolutional networks answer as their reference implementations do, given the same random
weights.

Needs torch, timm and transformers, which nothing else needs; skipped where they are not installed.
"""

from importlib.util import find_spec
from types import ModuleType

import equinox as eqx
import jax
import numpy as np
import pytest

if not all(find_spec(name) for name in ("torch", "timm", "transformers")):
    pytest.skip("needs torch, timm and transformers", allow_module_level=True)

import torch_references as reference
from safetensors.numpy import load_file, save_file

from sfumato.core.trees import leaf_names
from sfumato.networks import catalog
from sfumato.networks.backbone import Backbone
from sfumato.weights import hf_resnet, timm_efficientnet, timm_nfnet, timm_resnet, timm_resnetv2
from sfumato.weights.layout import fill

TOLERANCE = 1e-4  # of the largest score
KEY = jax.random.key(0)
DEEP = pytest.param(101, marks=pytest.mark.slow)


def empty(name: str, side: int = 64, classes: int = 1000) -> Backbone:
    """Our network, as abstract arrays."""
    return eqx.filter_eval_shape(catalog.find(name).make, (side, side, 3), classes, KEY)


def network(name: str, side: int = 64, classes: int = 1000) -> Backbone:
    """Our network full of NaN: whatever `fill` forgets is seen."""
    return jax.tree.map(
        lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), empty(name, side, classes)
    )


def through_our_file(filled: Backbone, blank: Backbone, path) -> Backbone:
    save_file(
        dict(zip(leaf_names(filled), map(np.asarray, jax.tree.leaves(filled)), strict=True)), path
    )
    arrays = load_file(path)
    return jax.tree.unflatten(
        jax.tree.structure(blank), [arrays[name] for name in leaf_names(blank)]
    )


def agrees(theirs, name: str, layout: ModuleType, side: int, folder) -> None:
    images = np.random.default_rng(1).standard_normal((2, side, side, 3)).astype(np.float32)
    expected = reference.scores(theirs, images)
    blank = network(name, side, expected.shape[1])
    arrays = reference.saved(theirs, folder / "theirs.safetensors")
    filled = fill(blank, arrays, layout.layout, layout.unused, keep_head=True)
    answer = eqx.filter_jit(lambda model, x: jax.lax.map(model, x))
    scores = answer(filled, images)
    error = np.abs(scores - expected).max() / np.abs(expected).max()
    print(f"parity: {name} at {side} px with {layout.__name__.rsplit('.', 1)[-1]}: {error:.1e}")
    assert (
        np.std(expected[0] - expected[1]) > 1e-3 * np.abs(expected).max()
    )  # the image does matter
    assert error <= TOLERANCE
    again = through_our_file(filled, blank, folder / "ours.safetensors")
    np.testing.assert_array_equal(answer(again, images), scores)


def fits(theirs: dict[str, tuple[int, ...]], name: str, layout: ModuleType) -> None:
    """Every array has its place and, converted, its shape; without making any."""
    ours = empty(name)
    shapes = dict(
        zip(leaf_names(ours), (leaf.shape for leaf in jax.tree.leaves(ours)), strict=True)
    )
    entries = list(layout.layout(ours))
    assert sorted(entry.ours for entry in entries) == sorted(shapes)
    assert {array for entry in entries for array in entry.theirs} == {
        array for array in theirs if not layout.unused(array)
    }
    for entry in entries:
        arrays = [np.broadcast_to(np.float32(1), theirs[array]) for array in entry.theirs]
        assert entry.convert(*arrays).shape == shapes[entry.ours], entry.ours


def agrees_on_input(name: str) -> None:
    found = catalog.find(name)
    expected = reference.timm_config(name)
    assert (3, found.input.size, found.input.size) == tuple(expected["input_size"])
    assert found.input.mean == expected["mean"] and found.input.std == expected["std"]
    assert found.input.interpolation == expected["interpolation"]
    assert found.weights[:1] == ((expected["hf_hub_id"],) if "hf_hub_id" in expected else ())


# -- residual networks


@pytest.mark.parametrize(
    "name, side",
    [
        ("resnet18", 64),
        ("resnet34", 64),
        ("resnet50", 97),
        ("resnet50", 224),
        ("resnet50_gn", 96),
        pytest.param("resnet101", 64, marks=pytest.mark.slow),
    ],
)
def test_resnets(name: str, side: int, tmp_path) -> None:
    agrees(reference.timm_model(name), name, timm_resnet, side, tmp_path)


@pytest.mark.parametrize("depth", [18, 34, DEEP])
def test_our_group_norm_resnets_are_timms_with_another_norm(depth: int, tmp_path) -> None:
    theirs = reference.timm_model(f"resnet{depth}", norm_layer="groupnorm")
    agrees(theirs, f"resnet{depth}_gn", timm_resnet, 64, tmp_path)


@pytest.mark.parametrize("depth", [18, 34, 50, DEEP])
def test_hugging_face_resnets(depth: int, tmp_path) -> None:
    agrees(reference.hugging_face_resnet(depth), f"resnet{depth}", hf_resnet, 64, tmp_path)


# -- with pre-activation


@pytest.mark.parametrize(
    "name, side",
    [
        ("resnetv2_18", 64),
        ("resnetv2_50", 97),
        ("resnetv2_50x1_bit", 64),
        ("resnetv2_50x1_bit", 224),
    ],
)
def test_resnets_v2(name: str, side: int, tmp_path) -> None:
    agrees(reference.timm_model(name), name, timm_resnetv2, side, tmp_path)


@pytest.mark.parametrize("depth", [18, 50])
def test_our_group_norm_resnets_v2_are_timms_with_another_norm(depth: int, tmp_path) -> None:
    theirs = reference.timm_model(f"resnetv2_{depth}", norm_layer="groupnorm")
    agrees(theirs, f"resnetv2_{depth}_gn", timm_resnetv2, 64, tmp_path)


def test_every_array_of_a_deep_resnet_v2_fits() -> None:
    fits(reference.timm_shapes("resnetv2_101"), "resnetv2_101", timm_resnetv2)


# -- without normalization


@pytest.mark.parametrize(
    "name, side",
    [
        ("nf_resnet50", 64),
        ("nf_resnet50", 97),
        ("dm_nfnet_f0", 64),
        ("dm_nfnet_f0", 97),
        ("nfnet_f0", 97),
        pytest.param("dm_nfnet_f1", 64, marks=pytest.mark.slow),
    ],
)
def test_networks_without_norms(name: str, side: int, tmp_path) -> None:
    agrees(reference.timm_model(name), name, timm_nfnet, side, tmp_path)


@pytest.mark.parametrize(
    "name", [f"{kind}_f{f}" for kind in ("dm_nfnet", "nfnet") for f in range(1, 7)]
)
def test_every_array_of_the_large_ones_fits(name: str) -> None:
    fits(reference.timm_shapes(name), name, timm_nfnet)


# -- inverted residuals


@pytest.mark.parametrize(
    "name, side",
    [
        ("efficientnet_lite0", 64),
        ("efficientnet_lite0", 75),
        ("tf_efficientnet_lite0", 64),
        ("tf_efficientnet_lite0", 75),
        pytest.param("efficientnet_lite4", 64, marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_lite2", 65, marks=pytest.mark.slow),
    ],
)
def test_efficientnet_lite(name: str, side: int, tmp_path) -> None:
    agrees(reference.timm_model(name), name, timm_efficientnet, side, tmp_path)


@pytest.mark.parametrize(
    "name", [f"{kind}efficientnet_lite{k}" for kind in ("", "tf_") for k in range(1, 5)]
)
def test_every_array_of_efficientnet_lite_fits(name: str) -> None:
    fits(reference.timm_shapes(name), name, timm_efficientnet)


# -- public weights


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet50_gn",
        "resnetv2_18",
        "resnetv2_50",
        "resnetv2_101",
        "resnetv2_50x1_bit",
        "nf_resnet50",
        *(f"{kind}efficientnet_lite{k}" for kind in ("", "tf_") for k in range(3)),
        *(f"{kind}_f{f}" for kind in ("dm_nfnet", "nfnet") for f in range(7)),
    ],
)
def test_inputs_and_names_of_weights_are_timms(name: str) -> None:
    agrees_on_input(name)
