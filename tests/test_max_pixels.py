"""A limit on the pixels of an image file, at every door through which files come, and how it is
raised."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
from PIL import Image
from run_helpers import refused, succeeds

SAYS = ("8 x 8 pixels, of more than 63", "--max-pixels 64", "store it smaller")
LIMITED = ("--max-pixels", 63)
PLAN = ("--model", "scattering", "--method", "fc", "--dry-run", "--no-estimate")


def test_training_images(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path, "train", "--data", folder, *PLAN, *LIMITED, says=SAYS)
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--resize",
        8,
        "--out",
        tmp_path / "run",
        *LIMITED,
        says=SAYS,
    )
    refused(
        tmp_path,
        "features",
        "--data",
        folder,
        "--out",
        tmp_path / "rows",
        "--model",
        "scattering",
        *LIMITED,
        says=SAYS,
    )
    refused(
        tmp_path,
        "tune",
        "--data",
        folder,
        "--out",
        tmp_path / "best",
        "--model",
        "scattering",
        *LIMITED,
        says=SAYS,
    )
    refused(tmp_path, "data", "info", folder, *LIMITED, says=SAYS)
    assert (
        json.loads(succeeds("train", "--data", folder, *PLAN, "--max-pixels", 64, "--log", "json"))[
            "n"
        ]
        == 24
    )
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        *PLAN,
        "--max-pixels",
        0,
        says=("max_pixels=0", "at least 1"),
    )


def test_one_image_among_others_is_named(folder: Path, tmp_path: Path) -> None:
    data = copytree(folder, tmp_path / "data")
    large = next((data / "train").rglob("0.png"))
    Image.new("RGB", (40, 30)).save(large)
    arguments = (
        "train",
        "--data",
        data,
        "--resize",
        8,
        "--model",
        "scattering",
        "--method",
        "fc",
        "--max-pixels",
        64,
    )
    refused(
        tmp_path,
        *arguments,
        "--out",
        tmp_path / "run",
        says=("0.png", "40 x 30 pixels", "--max-pixels 1200"),
    )


def test_images_of_a_finished_run(finished: Path, folder: Path, tmp_path: Path) -> None:
    image = next((folder / "test").rglob("*.png"))
    refused(tmp_path, "predict", finished, image, *LIMITED, says=(*SAYS, image.name))
    assert succeeds("predict", finished, image, "--max-pixels", 64)
    refused(tmp_path, "evaluate", finished, "--data", folder / "test", *LIMITED, says=SAYS)
    refused(tmp_path, "evaluate", finished, *LIMITED, says=SAYS)


def test_arrays_have_their_pixels_on_the_disk(tmp_path: Path) -> None:
    """So none needs a limit; one that is packed as nothing would need one is told how to be stored."""
    np.savez(
        tmp_path / "plain.npz", x_train=np.zeros((4, 64, 64), np.uint8), y_train=np.arange(4) % 2
    )
    succeeds("train", "--data", tmp_path / "plain.npz", "--test-fraction", 0, *PLAN, *LIMITED)
    np.savez_compressed(
        tmp_path / "bomb.npz", x_train=np.zeros((2, 4000, 4000), np.uint8), y_train=np.arange(2)
    )
    refused(
        tmp_path,
        "train",
        "--data",
        tmp_path / "bomb.npz",
        *PLAN,
        says=("100 times the size", "numpy.savez"),
    )
