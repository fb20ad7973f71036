"""MobileNetV2, ConvNeXt and vision transformers answer as the reference implementations do, for
random weights from files."""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sfumato.core.trees import leaf_names
from sfumato.networks import catalog, convnext, mobilenet, vit
from sfumato.networks.backbone import Backbone
from sfumato.networks.layers.basic import Linear
from sfumato.weights import flax_vit, hf_vit, hfbare_vit, timm_convnext, timm_mobilenet, timm_vit
from sfumato.weights.layout import fill

if not (find_spec("torch") and find_spec("timm") and find_spec("transformers")):
    pytest.skip("torch, timm and transformers are not installed", allow_module_level=True)

import torch

# isort: split  (transformers would stumble over what stands in for torchvision in:)
import torch_references as reference
from timm.layers import resample_abs_pos_embed
from transformers import ViTConfig, ViTForImageClassification, ViTModel

TOLERANCE = 1e-4
KEY = jax.random.key(0)


def blank(name: str, size: int, classes: int) -> Backbone:
    """The architecture of that name for images of this size, all zeros."""
    make = catalog.find(name).make
    shapes = eqx.filter_eval_shape(make, (size, size, 3), classes, KEY)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def images(size: int) -> np.ndarray:
    """Noise, one image darker than the other, so that pooling over pixels leaves a difference."""
    noise = np.random.default_rng(0).standard_normal((2, size, size, 3))
    return (noise + np.array([-1, 1])[:, None, None, None]).astype(np.float32)


def difference(network: Backbone, batch: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of scores, relative to the largest score."""
    got = np.asarray(
        eqx.filter_jit(lambda network, batch: jax.vmap(network)(batch))(network, batch)
    )
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max(), (
        "the reference ignores its images"
    )
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def check(
    ours: str, theirs: str, layout: ModuleType, size: int, file: Path, **options: object
) -> None:
    """Random weights of timm's network `theirs`, through a file, in our network `ours`: the same
    scores."""
    model = reference.timm_model(theirs, num_classes=7, **options)
    arrays = reference.saved(model, file)
    network = fill(blank(ours, size, 7), arrays, layout.layout, layout.unused, keep_head=True)
    error = difference(network, images(size), reference.scores(model, images(size)))
    print(f"parity: {ours} at {size} px with {layout.__name__.rsplit('.', 1)[-1]}: {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.parametrize("size", [64, 75])
def test_mobilenet(tmp_path: Path, size: int) -> None:
    check(
        "mobilenetv2_100", "mobilenetv2_100", timm_mobilenet, size, tmp_path / "weights.safetensors"
    )


@pytest.mark.parametrize(
    "name, size", [("convnext_tiny", 64), ("convnext_tiny", 75), ("convnext_small", 32)]
)
def test_convnext(tmp_path: Path, name: str, size: int) -> None:
    check(name, name, timm_convnext, size, tmp_path / "weights.safetensors")


# -- vision transformers


@pytest.mark.parametrize(
    "name, size",
    [
        ("vit_tiny_patch16_224", 48),
        ("vit_small_patch16_224", 32),
        ("vit_base_patch16_224", 32),
        ("vit_base_patch32_224", 64),
        ("vit_base_patch16_gap_224", 32),
        ("vit_small_patch14_dinov2", 28),
    ],
)
def test_vit(tmp_path: Path, name: str, size: int) -> None:
    check(name, name, timm_vit, size, tmp_path / "weights.safetensors", img_size=size)


@pytest.mark.parametrize("size", [32, 80, 96, 112])
def test_positions_of_another_grid(tmp_path: Path, size: int) -> None:
    """timm resizes in float32 by the same cubic, in another order of sums."""
    model = reference.timm_model("vit_tiny_patch16_224", num_classes=7, img_size=64)
    arrays = reference.saved(model, tmp_path / "weights.safetensors")
    network = fill(
        blank("vit_tiny_patch16_224", size, 7),
        arrays,
        timm_vit.layout,
        timm_vit.unused,
        keep_head=True,
    )
    side = size // 16
    with torch.no_grad():
        expected = resample_abs_pos_embed(model.pos_embed, [side, side])[0].numpy()
        model.set_input_size((size, size))
    assert isinstance(network, vit.VisionTransformer)
    assert np.abs(network.positions - expected).max() < 1e-5 * np.abs(expected).max()
    assert difference(network, images(size), reference.scores(model, images(size))) < TOLERANCE


def tiny() -> vit.VisionTransformer:
    make = eqx.filter_eval_shape(
        vit.VisionTransformer, (32, 32, 3), 7, KEY, width=32, depth=3, heads=4, patch=8, hidden=48
    )
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), make)


_TINY = ViTConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    image_size=32,
    patch_size=8,
    num_labels=7,
)


def test_hugging_face(tmp_path: Path) -> None:
    model = reference.randomize(ViTForImageClassification(_TINY), 0)
    model.save_pretrained(tmp_path)
    network = fill(
        tiny(),
        load_file(tmp_path / "model.safetensors"),
        hf_vit.layout,
        hf_vit.unused,
        keep_head=True,
    )
    with torch.no_grad():
        expected = model(torch.from_numpy(images(32).transpose(0, 3, 1, 2))).logits.numpy()
    assert difference(network, images(32), expected) < TOLERANCE


def test_hugging_face_without_a_head(tmp_path: Path) -> None:
    model = reference.randomize(ViTModel(_TINY), 0)
    model.save_pretrained(tmp_path)
    file = load_file(tmp_path / "model.safetensors")
    network = fill(tiny(), file, hfbare_vit.layout, hfbare_vit.unused, keep_head=False)
    network = eqx.tree_at(lambda it: it.head, network, Linear(jnp.eye(32), jnp.zeros(32)))
    with torch.no_grad():
        expected = (
            model(torch.from_numpy(images(32).transpose(0, 3, 1, 2)))
            .last_hidden_state[:, 0]
            .numpy()
        )
    assert difference(network, images(32), expected) < TOLERANCE


def flax_arrays(state: dict[str, np.ndarray], heads: int) -> dict[str, np.ndarray]:
    """timm's arrays under the names, and in the shapes, of the first releases."""
    width = state["cls_token"].shape[-1]
    each = width // heads
    out = {
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "pre_logits/kernel": np.zeros((width, width)),
        "pre_logits/bias": np.zeros(width),
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
    }
    for name in [name for name in state if name.endswith("norm1.weight")]:
        at = name.removesuffix(".norm1.weight")
        to = "Transformer/encoderblock_" + at.removeprefix("blocks.")
        for theirs, ours in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out[f"{to}/{ours}/scale"] = state[f"{at}.{theirs}.weight"]
            out[f"{to}/{ours}/bias"] = state[f"{at}.{theirs}.bias"]
        for theirs, ours in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            out[f"{to}/MlpBlock_3/{ours}/kernel"] = state[f"{at}.mlp.{theirs}.weight"].T
            out[f"{to}/MlpBlock_3/{ours}/bias"] = state[f"{at}.mlp.{theirs}.bias"]
        attention = f"{to}/MultiHeadDotProductAttention_1"
        for index, part in enumerate(("query", "key", "value")):
            rows = slice(index * width, (index + 1) * width)
            out[f"{attention}/{part}/kernel"] = state[f"{at}.attn.qkv.weight"][rows].T.reshape(
                width, heads, each
            )
            out[f"{attention}/{part}/bias"] = state[f"{at}.attn.qkv.bias"][rows].reshape(
                heads, each
            )
        out[f"{attention}/out/kernel"] = state[f"{at}.attn.proj.weight"].T.reshape(
            heads, each, width
        )
        out[f"{attention}/out/bias"] = state[f"{at}.attn.proj.bias"]
    return out


def test_flax(tmp_path: Path) -> None:
    """timm's own reader of that convention and ours make the same network of one file."""
    written = reference.timm_model("vit_tiny_patch16_224", num_classes=7, img_size=32)
    path = tmp_path / "weights.npz"
    np.savez(
        path, **flax_arrays(reference.saved(written, tmp_path / "weights.safetensors"), heads=3)
    )
    model = reference.timm_model("vit_tiny_patch16_224", seed=1, num_classes=7, img_size=32)
    model.load_pretrained(str(path))
    with np.load(path) as file:
        network = fill(
            blank("vit_tiny_patch16_224", 32, 7),
            dict(file),
            flax_vit.layout,
            flax_vit.unused,
            keep_head=True,
        )
    assert difference(network, images(32), reference.scores(model, images(32))) < TOLERANCE


# -- all


LAYOUTS = {"vit": timm_vit, "convnext": timm_convnext}


@pytest.mark.parametrize(
    "name", [each.name for family in (vit, convnext) for each in family.ARCHITECTURES]
)
def test_every_shape_is_that_of_the_reference(name: str) -> None:
    """Of networks too large to run, too: for each leaf, what the layout makes of arrays of the
    reference's shapes."""
    ours = catalog.find(name)
    network = eqx.filter_eval_shape(ours.make, ours.input.shape((224, 224, 3)), 1000, KEY)
    theirs = reference.timm_shapes(name, num_classes=1000)
    leaves = dict(zip(leaf_names(network), jax.tree.leaves(network), strict=True))
    entries, used = list(LAYOUTS[ours.family].layout(network)), set()
    for entry in entries:
        used |= set(entry.theirs)
        arrays = [
            np.broadcast_to(np.float32(0), theirs[each]) for each in entry.theirs
        ]  # no memory
        one_layer = entry.ours.startswith("stacks/")
        shape = entry.convert(*arrays[:1] if one_layer else arrays).shape
        assert (
            (len(arrays), *shape[1:]) == leaves[entry.ours].shape
            if one_layer
            else shape == leaves[entry.ours].shape
        )
    assert used == set(theirs) and len(leaves) == len(entries)


@pytest.mark.parametrize(
    "name", [each.name for family in (mobilenet, vit, convnext) for each in family.ARCHITECTURES]
)
def test_the_input_is_that_of_the_weights(name: str) -> None:
    ours = catalog.find(name)
    for weights in ours.weights:
        theirs = reference.timm_config(weights.removeprefix("timm/"))
        assert theirs["input_size"] == (3, ours.input.size, ours.input.size)
        assert (theirs["mean"], theirs["std"]) == (ours.input.mean, ours.input.std)
        assert theirs["interpolation"] == ours.input.interpolation
