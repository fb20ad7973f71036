"""What the owner is told before anything is spent: few images, copies of images. The latter in no
file of the run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from run_helpers import FULL_BATCH, sfumato, succeeds

from sfumato.data import copies
from sfumato.data.copies import Copies, find_copies
from sfumato.data.source import Source, from_arrays

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
LABELS = np.arange(12) % 3


def source(images: np.ndarray, labels: np.ndarray, owners: list[str] | None = None) -> Source:
    return replace(
        from_arrays(images, labels, "abc"), owners=None if owners is None else np.array(owners)
    )


def test_copies_are_counted() -> None:
    train, held_out = source(IMAGES[:9], LABELS[:9]), source(IMAGES[9:], LABELS[9:])
    assert (
        find_copies(train, held_out) == find_copies(train, None) == Copies()
        and Copies().words() == []
    )
    again = IMAGES[
        [0, 1, 2, 3, 4, 5, 0, 0, 1]
    ]  # the first image as a, b and c; the second as b and c
    assert find_copies(
        source(again, LABELS[[0, 1, 2, 3, 4, 5, 1, 2, 1]]), source(IMAGES[[0, 9]], LABELS[[0, 9]])
    ) == Copies(two_classes=3, repeated=3, shown=1)
    people = ["x", "y", "z", "x", "y", "z", "x", "x", "x"]
    assert (
        find_copies(source(again, LABELS[:9], people), None).repeated == 1
    )  # of the second image: y and x have it


def test_sets_that_are_not_in_memory_are_not_read_once_more(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(copies, "MOST_BYTES", 8 * 8 * 9 - 1)
    assert find_copies(source(IMAGES[[0] * 9], LABELS[:9]), None) == Copies()


def set_with_copies(path: Path) -> Path:
    """18 images, of which three are one in three classes; the evaluation images hold one of them,
    too."""
    images = np.concatenate([IMAGES, IMAGES[:6]])
    images[-3:] = IMAGES[0]
    images[12:15] ^= 1
    np.savez(
        path,
        x_train=images,
        y_train=np.arange(18) % 3,
        x_test=IMAGES[[0, 1, 2]] ^ np.uint8([[[[0]]], [[[2]]], [[[2]]]]),
        y_test=np.arange(3),
    )
    return path


def test_the_owner_is_told_before_anything_is_spent_and_no_file_is(tmp_path: Path) -> None:
    data, run = set_with_copies(tmp_path / "set.npz"), tmp_path / "run"
    arguments = (
        "train",
        "--data",
        data,
        *FULL_BATCH[:-4],
        "--batch",
        18,
        "--log",
        "json",
        "--out",
        run,
    )
    outcome = sfumato(*arguments)
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    told = [line["warning"] for line in lines if "warning" in line]
    assert [words.split(";")[0].split(":")[0] for words in told[1:]] == [
        "4 training images have a copy of another label",
        "3 training images are copies of others",
        "1 evaluation images are training images too, so the accuracy flatters",
    ]
    assert "n=18 examples of 3 classes" in told[0]
    first = next(place for place, line in enumerate(lines) if line["event"] == "stage")
    assert all("warning" not in line for line in lines[first:])
    for file in run.iterdir():
        assert (
            b"copies" not in file.read_bytes() and b"copy of another label" not in file.read_bytes()
        )


def test_few_images_are_a_warning_of_the_dry_run(tmp_path: Path) -> None:
    data = set_with_copies(tmp_path / "set.npz")
    arguments = (
        "train",
        "--data",
        data,
        "--dry-run",
        "--no-estimate",
        "--model",
        "scattering",
        "--method",
        "fc",
    )
    told = succeeds(*arguments)
    assert "warning   epsilon=3: with n=18 examples of 3 classes" in told and "copies" not in told
    assert (
        "little better than chance"
        in json.loads(succeeds(*arguments, "--log", "json"))["warnings"][0]
    )
    assert "warning" not in succeeds(*arguments, "--epsilon", 100)
