"""Public weights see of an image what their publishers showed them: `crop_pct` of their configuration."""

import io
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from test_weights import CONFIG, MODEL, network

from sfumato import weights
from sfumato.cli.printing import print_plan
from sfumato.core import typed_json
from sfumato.core.errors import WeightsError
from sfumato.networks.input import Input, Prepared
from sfumato.plan import public_weights
from sfumato.plan.config import DataConfig, MethodConfig, TrainConfig
from sfumato.runs.jobs import spec_of
from sfumato.runs.training import plan_for
from sfumato.weights.configs import read_config

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 10, 10, 3), np.uint8)
PLAIN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
RESNET = {"model_type": "resnet", "depths": [2, 2, 2, 2], "layer_type": "basic"}


def timm(**more: Any) -> dict[str, Any]:
    return {**CONFIG, "pretrained_cfg": {**CONFIG["pretrained_cfg"], **more}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("config", "preprocessor", "share"),
    [
        (timm(crop_pct=0.875), {}, 0.875),
        (timm(crop_pct=0.9, crop_mode="center"), {}, 0.9),
        (timm(crop_pct=0.9, crop_mode="squash"), {}, None),
        (timm(crop_pct=1.0), {}, None),
        (timm(), {}, None),
        (RESNET, {"crop_pct": 0.875, "size": {"shortest_edge": 224}}, 0.875),
        (RESNET, {"crop_pct": 0.875, "size": {"shortest_edge": 384}}, None),
        (RESNET, {"size": {"shortest_edge": 256}, "crop_size": 224}, 0.875),
        (RESNET, {"size": 256, "crop_size": 224, "do_center_crop": False}, None),
        (RESNET, {"size": 224}, None),
    ],
)
def test_configurations_say_what_is_cut_off(
    config: dict[str, Any], preprocessor: dict[str, Any], share: float | None
) -> None:
    found = read_config(config, preprocessor and preprocessor | PLAIN).input
    assert found is not None and found.crop_larger == share and found.crop is None


@pytest.mark.parametrize("share", [0, 1.5, "most", -1])
def test_a_share_that_cannot_be_is_refused(share: Any) -> None:
    with pytest.raises(WeightsError, match="damaged"):
        read_config(timm(crop_pct=share), {})


def test_larger_images_are_cut_to_their_center_and_others_seen_whole() -> None:
    own, whole = Input(8, colors=3, crop_larger=0.8), Input(8, colors=3)
    image = jnp.asarray(IMAGES[0])
    np.testing.assert_array_equal(own(image), whole(image[1:9, 1:9]))
    wide = jnp.asarray(np.concatenate([IMAGES[0], IMAGES[1]], 1))
    np.testing.assert_array_equal(own(wide), whole(wide[1:9, 6:14]))
    for side in (8, 6):
        np.testing.assert_array_equal(own(image[:side, :side]), whole(image[:side, :side]))
    assert own.seen((10, 10)) == "the central 8 x 8 of 10 x 10 pixels" and not own.seen((8, 8))
    assert replace(own, crop=0.5).window((10, 10)) == (5, 5), "what views leave goes before it"
    assert typed_json.convert(Input, {"size": 8}).crop_larger is None


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file that says how its network was shown images."""
    own = Prepared(network(), Input(8, colors=3, crop_larger=0.8))
    weights.save(tmp_path / "public.safetensors", own, MODEL)
    return tmp_path / "public.safetensors"


@pytest.mark.slow
def test_features_and_model_see_the_center_and_the_plan_says_so(
    published: Path, tmp_path: Path
) -> None:
    rows, words = [], np.array(["a", "b"])[np.arange(24) % 2]
    for name, images in {"large": IMAGES, "cut": IMAGES[:, 1:9, 1:9]}.items():
        np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=words)
        where = DataConfig(data=str(tmp_path / f"{name}.npz"), test_fraction=0.0)
        plan = plan_for(TrainConfig(where, method=MethodConfig("ls", weights=str(published))))
        told = "they see the central 8 x 8 of 10 x 10 pixels"
        assert any(told in fact for fact in plan.public_facts) == (name == "large")
        printed = io.StringIO()
        with redirect_stdout(printed):
            print_plan(plan, None, False, "")
        assert ("sees the central 8 x 8" in printed.getvalue()) == (name == "large")
        own = spec_of(plan, "linear").input
        assert own is not None and own.crop_larger == 0.8
        features = public_weights.feature_map(plan.model, plan.shape, plan.weights)
        rows.append(np.asarray(features(jnp.asarray(images[0], jnp.float32) / 255)))
    np.testing.assert_array_equal(*rows)


def test_a_run_that_began_without_it_goes_on_without_it(published: Path) -> None:
    found = public_weights.find(MethodConfig(weights=str(published), model=MODEL))
    assert found is not None and found.input.crop_larger == 0.8
    old = typed_json.plain(found)
    del old["input"]["crop_larger"]
    began = typed_json.convert(type(found), old)
    assert public_weights.prepared(began, 2).input == replace(found.input, crop_larger=None)
    assert public_weights.prepared(found, 2).input == found.input
