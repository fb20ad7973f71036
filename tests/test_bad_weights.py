"""Bad weights, as a user meets them: `sfumato train` says one line that names the way out, and
writes nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from run_helpers import CLASSES, N, refused, succeeds
from safetensors.numpy import load_file, save_file
from test_finetune import write
from torch_files import name, row, text, write_torch

from sfumato import weights
from sfumato.features import by_name
from sfumato.networks import catalog
from sfumato.networks.image_cost import outline
from sfumato.weights import timm_resnet

STEP = ("--steps", "1", "--batch", N, "--views", "0", "--epsilon", "50", "--log", "quiet")


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is as it should be."""
    return write(tmp_path_factory.mktemp("public") / "good.safetensors", "wrn-10-1")


def stranger(path: Path, content: dict[str, np.ndarray]) -> Path:
    """A file that says nothing of itself."""
    save_file(content, path)
    return path


def batch_norm(path: Path) -> Path:
    """resnet18 as timm and torchvision save it, with the statistics of its BatchNorms."""
    network = outline(catalog.find("resnet18"), (224, 224, 3), 10)
    names = {each for entry in timm_resnet.layout(network) for each in entry.theirs}
    return stranger(
        path,
        {each: np.ones(1, np.float32) for each in names} | {"bn1.num_batches_tracked": np.array(1)},
    )


def cut(path: Path, good: Path) -> Path:
    path.write_bytes(good.read_bytes()[:-100])
    return path


def changed(path: Path, good: Path) -> Path:
    """One bit of one number."""
    content = bytearray(good.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def changed_beside_its_digest(path: Path, good: Path) -> Path:
    path.with_name(path.name + ".sha256").write_text(hashlib.sha256(good.read_bytes()).hexdigest())
    return stranger(path, load_file(good))


def code(path: Path) -> Path:
    return write_torch(path, name("os", "system") + row(text("exit 1")) + b"R")


def arrays(good: Path, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    found = load_file(good) | {key.replace("__", "/"): each for key, each in changes.items()}
    return {key: each for key, each in found.items() if each is not None}


BAD: dict[str, tuple[Callable[[Path, Path], Path], tuple[object, ...], tuple[str, ...]]] = {
    "another model than it says": (
        lambda folder, good: good,
        ("--model", "cnn"),
        ("made for wrn-10-1, not for cnn", "give --model wrn-10-1"),
    ),
    "another model, not said": (
        lambda folder, good: stranger(folder / "w.safetensors", load_file(good)),
        ("--model", "wrn-16-1"),
        ("weights do not fit", "choose the model they were made for"),
    ),
    "no model said or named": (
        lambda folder, good: stranger(folder / "w.safetensors", load_file(good)),
        (),
        ("does not say its model", "sfumato models"),
    ),
    "no such model": (
        lambda folder, good: good,
        ("--model", "resnet-of-mine"),
        ("resnet-of-mine", "sfumato models"),
    ),
    "an array is missing": (
        lambda folder, good: stranger(folder / "w.safetensors", arrays(good, norm__scale=None)),
        ("--model", "wrn-10-1"),
        ("lacks norm/scale", "choose the model"),
    ),
    "an array is not finite": (
        lambda folder, good: stranger(
            folder / "w.safetensors", arrays(good, norm__scale=np.full(64, np.nan, np.float32))
        ),
        ("--model", "wrn-10-1"),
        ("not finite: norm/scale", "fetch"),
    ),
    "truncated": (
        lambda folder, good: cut(folder / "w.safetensors", good),
        (),
        ("w.safetensors: damaged", "fetch it again"),
    ),
    "tampered with": (
        lambda folder, good: changed(folder / "w.safetensors", good),
        (),
        ("digest", "fetch or write it again"),
    ),
    "not the file of its digest": (
        lambda folder, good: changed_beside_its_digest(folder / "w.safetensors", good),
        (),
        ("SHA-256", "fetch it again"),
    ),
    "a pickle with code": (
        lambda folder, good: code(folder / "w.pth"),
        ("--model", "resnet18"),
        ("a pickle with code", "os.system", "safetensors"),
    ),
    "BatchNorm statistics": (
        lambda folder, good: batch_norm(folder / "w.safetensors"),
        ("--model", "resnet18_gn"),
        ("BatchNorm statistics", "such as resnet50"),
    ),
    "no file": (lambda folder, good: folder / "none.pth", (), ("none.pth", "no such file", "hub")),
}


@pytest.mark.parametrize(
    "problem, train", [*((each, "head") for each in BAD), ("an array is missing", "last:1")]
)
def test_bad_weights_are_refused_before_anything_is_written(
    folder: Path, public: Path, tmp_path: Path, problem: str, train: str
) -> None:
    make, more, says = BAD[problem]
    source = make(tmp_path, public)
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--weights",
        source,
        *more,
        "--train",
        train,
        "--out",
        tmp_path / "run",
        "--log",
        "quiet",
        says=says,
    )


def test_a_digest_that_the_command_names(folder: Path, public: Path, tmp_path: Path) -> None:
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--weights",
        f"{public}@sha256:{'0' * 64}",
        "--out",
        tmp_path / "run",
        says=("SHA-256", "not 000", "fetch it again"),
    )


@pytest.mark.parametrize(
    "model, size, says",
    [
        ("vit_tiny_patch16_224", 100, ("size=(100, 100)", "16 x 16", "96 or 112")),
        ("vit_tiny_patch16_224", 0, ("size=0",)),
        ("convnext_tiny", 16, ("at least 32",)),
    ],
)
def test_a_size_that_no_patches_fill(
    folder: Path, tmp_path: Path, model: str, size: int, says: tuple[str, ...]
) -> None:
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--model",
        model,
        "--method",
        "dp-sgd",
        "--size",
        size,
        *STEP,
        "--out",
        tmp_path / "run",
        says=says,
    )


# -- channels


def images(path: Path, colors: int | None) -> Path:
    draw = np.random.default_rng(0)
    shape = (12, 8, 8) if colors is None else (12, 8, 8, colors)
    np.savez(path, x_train=draw.integers(0, 256, shape).astype(np.uint8), y_train=np.arange(12) % 3)
    return path


@pytest.mark.slow
def test_a_gray_channel_is_repeated_for_weights_of_three(public: Path, tmp_path: Path) -> None:
    succeeds(
        "train",
        "--data",
        images(tmp_path / "gray.npz", None),
        "--weights",
        public,
        "--log",
        "quiet",
        "--epsilon",
        8,
        "--out",
        tmp_path / "run",
    )


@pytest.mark.parametrize("colors", [2, 4])
def test_other_numbers_of_channels_are_refused(public: Path, tmp_path: Path, colors: int) -> None:
    data = images(tmp_path / "a.npz", colors)
    refused(
        tmp_path,
        "train",
        "--data",
        data,
        "--weights",
        public,
        "--out",
        tmp_path / "run",
        says=(f"8, {colors})", "c = 1 or 3"),
    )


def test_colors_for_gray_weights_name_the_way_out(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "gray.safetensors"
    weights.save(
        source, by_name.network("cnn", (8, 8, 1), 2, jax.random.key(0)), "cnn", shape=(8, 8, 1)
    )
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--weights",
        source,
        "--out",
        tmp_path / "run",
        says=("3 channels", "takes 1", "--gray"),
    )


# -- a head of another size


@pytest.mark.slow
def test_a_head_of_another_size_is_replaced(folder: Path, public: Path, tmp_path: Path) -> None:
    """Five outputs in the file, three classes of images: `--weights` always takes a new head."""
    assert load_file(public)["head/bias"].shape == (5,)
    succeeds(
        "train",
        "--data",
        folder,
        "--weights",
        public,
        "--log",
        "quiet",
        "--epsilon",
        8,
        "--out",
        tmp_path / "run",
    )
    assert load_file(tmp_path / "run" / "model.safetensors")["head/linear/bias"].shape == (
        len(CLASSES),
    )


def test_images_of_other_classes_than_the_head_s_are_refused(
    finished: Path, tmp_path: Path
) -> None:
    data = images(tmp_path / "a.npz", 3)
    refused(
        tmp_path,
        "evaluate",
        finished,
        "--data",
        data,
        says=("not the model's", "give images with these class names"),
    )
