"""Directories written by timm and transformers themselves, settings included, give their logits
through `pretrained`."""

import json
from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
if find_spec("timm") is None:
    pytest.skip("timm is not installed", allow_module_level=True)

import torch
import torch_references as reference
import transformers

from sfumato.networks.input import Input
from sfumato.weights import load, pretrained

IMAGENET = Input(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 3)
IMAGE = np.random.default_rng(0).random((64, 64, 3), np.float32)


def agree(path: Path, model, given: Input) -> None:  # type: ignore[no-untyped-def]
    pixels = (IMAGE - np.asarray(given.mean, np.float32)) / np.asarray(given.std, np.float32)
    with torch.no_grad():
        said = model(torch.from_numpy(pixels.transpose(2, 0, 1))[None].float())
    expected = getattr(said, "logits", said)[0].numpy()
    found = pretrained(path)
    assert found.input == given
    np.testing.assert_allclose(
        found(jnp.asarray(IMAGE)), expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_directory_of_timm(tmp_path: Path, name: str) -> None:
    size = {"img_size": 64} if name.startswith("vit") else {}
    model = reference.randomize(reference.timm.create_model(name, num_classes=7, **size), seed=0)
    reference.timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"] |= {
        "input_size": [3, 64, 64],
        "mean": IMAGENET.mean,
        "std": IMAGENET.std,
        "interpolation": "bicubic",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).architecture == name
    agree(tmp_path, model, IMAGENET)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "pytorch_model.bin")
    agree(tmp_path, model, IMAGENET)


def test_a_residual_network_of_transformers(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=7
    )
    described(tmp_path, transformers.ResNetForImageClassification(config))


def test_a_vision_transformer_of_transformers(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=192, num_attention_heads=3, intermediate_size=768, image_size=64, num_labels=7
    )
    described(tmp_path, transformers.ViTForImageClassification(config))


def described(path: Path, model) -> None:  # type: ignore[no-untyped-def]
    reference.randomize(model, seed=0).save_pretrained(path)
    settings = {
        "size": {"height": 64, "width": 64},
        "image_mean": IMAGENET.mean,
        "image_std": IMAGENET.std,
        "resample": 3,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load(path).classes == tuple(f"LABEL_{i}" for i in range(7))
    agree(path, model, IMAGENET)
