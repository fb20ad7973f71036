"""Exported models answer as ours do: in another runtime, in another process, for any batch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from run_helpers import CLASSES, refused, succeeds

import sfumato as sf
from sfumato.core.errors import ArgumentError
from sfumato.features import by_name
from sfumato.networks import catalog
from sfumato.networks.convnext import ConvNeXt
from sfumato.networks.input import Prepared
from sfumato.networks.nfnet import NFNetDesign, NormFreeNet
from sfumato.networks.resnet import ResNet, ResNetDesign
from sfumato.networks.resnetv2 import ResNetV2, ResNetV2Design
from sfumato.networks.vit import VisionTransformer
from sfumato.privacy import fields
from sfumato.serving.onnx_graph import model
from sfumato.serving.onnx_rules import RULES

ort = pytest.importorskip("onnxruntime")


def pixels(folder: Path) -> np.ndarray:
    files = sorted((folder / "test").rglob("*.png"))[:5]
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(np.float32) / 255


def declared(out: Path) -> None:
    for path in out.iterdir():
        known = fields.by_file()
        assert f"exported {path.name}" in known or path.name in known, path.name


@pytest.mark.slow
def test_onnx_answers_as_the_run_does_on_real_images(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    told = succeeds("export", finished, "--to", "onnx", "--out", tmp_path / "onnx")
    assert "checked by onnxruntime" in told
    session = ort.InferenceSession(tmp_path / "onnx" / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES) and "epsilon" in about["privacy"]
    images = pixels(folder)
    for part in (images, images[:1]):
        (found,) = session.run(None, {"images": part})
        np.testing.assert_allclose(found, sf.load(finished).predict_proba(part), atol=1e-4)
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    assert config["id2label"] == {str(k): name for k, name in enumerate(CLASSES)}
    assert config["privacy"]["relation"] == "add-or-remove-one"
    declared(tmp_path / "onnx")


@pytest.mark.slow
def test_a_program_of_jax_answers_in_a_process_without_sfumato(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "jax"
    succeeds("export", finished, "--to", "jax", "--out", out)
    images = pixels(folder)
    np.save(tmp_path / "images.npy", images)
    told = f"import numpy as np\nimages = np.load({str(tmp_path / 'images.npy')!r})\n"
    told += (out / "call.py").read_text()
    told += f"import sys\nassert 'sfumato' not in sys.modules\nnp.save({str(tmp_path / 'p.npy')!r}, probabilities)"
    done = subprocess.run([sys.executable, "-c", told], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "p.npy"), sf.load(finished).predict_proba(images), atol=1e-4
    )
    declared(out)


def test_a_card_has_the_promise_as_metadata_and_is_a_model_again(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "card"
    succeeds("export", finished, "--to", "card", "--out", out)
    text = (out / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    found = {
        name: json.loads(value)
        for name, value in (line.split(": ", 1) for line in front.splitlines())
    }
    told = found["differential_privacy"]
    assert told["unit"] == "image" and 0 < told["epsilon"] <= told["promised_epsilon"]
    assert "not covered" in body and "<b>" not in body
    images = pixels(folder)
    np.testing.assert_array_equal(
        sf.load(out).predict_proba(images), sf.load(finished).predict_proba(images)
    )
    assert "; 12 images" in succeeds("evaluate", out, "--data", folder / "test")
    declared(out)


def test_exports_that_cannot_be_are_refused_and_write_nothing(
    finished: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "model"
    copied.mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(finished / name, copied)
    (tmp_path / "there").mkdir()
    for more, says in (
        (("--to", "card", "--out", tmp_path / "x"), "run's directory"),
        (("--to", "jax", "--out", tmp_path / "there"), "exists already"),
        (("--to", "onnx", "--push", "a/b", "--out", tmp_path / "x"), "is for --to card"),
    ):
        refused(tmp_path, "export", copied, *more, says=(says,))


# -- every network and feature map


@eqx.filter_jit
def asked(module: eqx.Module, images):  # type: ignore[no-untyped-def]
    """As the package asks: a network's arrays are arguments. As constants in the program they may be
    folded: XLA of jaxlib 0.10.2 makes zeros of this ResNet-18's scores on a CPU (docs/export.md)."""
    return answering(module)(images)


def agrees(module: eqx.Module, shape: tuple[int, int, int]) -> None:
    made = model(answering(module), shape, RULES)
    session = ort.InferenceSession(made.SerializeToString())
    images = np.random.default_rng(0).random((2, *shape), np.float32)
    expected = asked(module, images)
    for batch in (1, 2):
        (found,) = session.run(None, {"images": images[:batch]})
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4)


def answering(module: eqx.Module):  # type: ignore[no-untyped-def]
    return lambda images: jax.nn.softmax(jax.vmap(module)(images))


def filled(name: str, head: str, shape: tuple[int, int, int]) -> eqx.Module:
    """Random numbers where a head has zeros."""
    stream = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: (
            stream.normal(size=leaf.shape).astype(np.float32)
            if eqx.is_array(leaf) and not np.any(leaf)
            else leaf
        ),
        by_name.skeleton(name, head, shape, 3),
    )


@pytest.mark.parametrize(
    ("name", "head", "shape"),
    [
        ("encoder", "linear", (28, 28, 1)),
        ("cells+scattering", "whitened", (32, 32, 3)),
        ("rows", "sphere rooted", (1, 1, 16)),
    ],
)
def test_feature_maps_and_heads_in_onnx(name: str, head: str, shape: tuple[int, int, int]) -> None:
    agrees(filled(name, head, shape), shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", by_name.MAPS)
def test_every_feature_map_in_onnx(name: str) -> None:
    agrees(filled(name, "linear", (32, 40, 3)), (32, 40, 3))


RANDOM = jax.random.key(0)
ONE_OF_EACH_FAMILY = {
    "cnn": None,
    "wrn-10-1": None,
    "resnet18": (32, lambda: ResNet(3, 3, RANDOM, ResNetDesign((1, 1), False, 0, (8, 16), 8))),
    "resnet18_gn": (32, lambda: ResNet(3, 3, RANDOM, ResNetDesign((1, 1), False, 4, (8, 16), 8))),
    "resnetv2_18": (
        32,
        lambda: ResNetV2(3, 3, RANDOM, ResNetV2Design((1, 1), False, "affine", (8, 16), 8)),
    ),
    "nfnet_f0": (
        32,
        lambda: NormFreeNet(3, 3, RANDOM, NFNetDesign((1, 1), (16, 32), 16, group=4, final=24)),
    ),
    "mobilenetv2_100": None,
    "efficientnet_lite0": None,
    "vit_tiny_patch16_224": (
        32,
        lambda: VisionTransformer((32, 32, 3), 3, RANDOM, width=16, depth=2, heads=2, patch=16),
    ),
    "vit_small_patch14_dinov2": (
        42,
        lambda: VisionTransformer(
            (42, 42, 3), 3, RANDOM, width=16, depth=2, heads=2, patch=14, scale=1e-5
        ),
    ),
    "convnext_tiny": (32, lambda: ConvNeXt((32, 32, 3), 3, RANDOM, depths=(1, 2), widths=(8, 16))),
}
"""Name -> the side of the image and a small network of the same class, of the same layers; None where
its own size is small."""


def one_of_the_family(name: str, shape: tuple[int, int, int]) -> Prepared:
    """Random numbers in all arrays: many heads, gains and scales begin as zeros."""
    own = catalog.find(name).input
    wanted = own if own.size is None else replace(own, size=64)
    if (small := ONE_OF_EACH_FAMILY[name]) is not None:
        side, make = small
        wanted = replace(own, size=side)
        abstract = Prepared(eqx.filter_eval_shape(make), wanted)
        named = eqx.filter_eval_shape(catalog.find(name).make, own.shape(shape), 3, RANDOM)
        assert type(abstract.network) is type(named)
    else:
        abstract = by_name.skeleton(name, None, shape, 3, wanted)
    stream = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            stream.standard_normal(leaf.shape) / max(1.0, np.prod(leaf.shape[:-1])) ** 0.5,
            jnp.float32,
        ),
        abstract,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_every_family_of_networks_in_onnx(name: str) -> None:
    shape = (28, 28, 1) if name == "cnn" else (32, 32, 3)
    agrees(one_of_the_family(name, shape), shape)


def test_the_list_above_has_every_family() -> None:
    families = {each.family for each in catalog.architectures().values()}
    assert {catalog.find(name).family for name in ONE_OF_EACH_FAMILY} == families


def test_a_primitive_without_a_rule_is_named() -> None:
    with pytest.raises(ArgumentError, match="cumsum"):
        model(lambda images: jnp.cumsum(images.reshape(len(images), -1), axis=1), (2, 2, 1), RULES)
