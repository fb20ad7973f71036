"""MobileNetV2, ConvNeXt and vision transformers answer as the reference implementations do, for random weights from files."""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato.models import catalogue
from sfumato.models.backbone import Backbone
from sfumato.weights import timm_mobilenet
from sfumato.weights.layout import fill

if not (find_spec("torch") and find_spec("timm")):
    pytest.skip("torch and timm are not installed", allow_module_level=True)

import torch_references as reference  # noqa: E402  which needs them

TOLERANCE = 1e-4
KEY = jax.random.key(0)


def blank(name: str, size: int, classes: int) -> Backbone:
    """The architecture of that name for images of this size, all zeros."""
    make = catalogue.find(name).make
    shapes = eqx.filter_eval_shape(make, (size, size, 3), classes, KEY)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def images(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, size, size, 3)).astype(np.float32)


def difference(network: Backbone, batch: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of scores, relative to the largest score."""
    got = np.asarray(eqx.filter_jit(jax.vmap(network))(batch))
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max(), "the reference ignores its images"
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def check(ours: str, theirs: str, layout: ModuleType, size: int, file: Path, **options: object) -> None:
    """Random weights of timm's network `theirs`, through a file, in our network `ours`: the same scores."""
    model = reference.timm_model(theirs, num_classes=7, **options)
    arrays = reference.saved(model, file)
    network = fill(blank(ours, size, 7), arrays, layout.layout, layout.unused, keep_head=True)
    assert difference(network, images(size), reference.scores(model, images(size))) < TOLERANCE


@pytest.mark.parametrize("size", [64, 75])
def test_mobilenet(tmp_path: Path, size: int) -> None:
    check("mobilenetv2_100", "mobilenetv2_100", timm_mobilenet, size, tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["mobilenetv2_100"])
def test_the_input_is_that_of_the_weights(name: str) -> None:
    ours = catalogue.find(name)
    for weights in ours.weights:
        theirs = reference.timm_config(weights.removeprefix("timm/"))
        assert theirs["input_size"] == (3, ours.input.size, ours.input.size)
        assert (theirs["mean"], theirs["std"], theirs["interpolation"]) == (ours.input.mean, ours.input.std, ours.input.interpolation)
