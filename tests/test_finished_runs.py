"""A finished run's model at work: many files, folders, tables, other labeled images; models that
are worth nothing."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import (
    CLASSES,
    ctrl_c_after,
    refused,
    sfumato,
    succeeds,
    train_arguments,
    write_images,
)

from sfumato.report.verdict import verdicts


def released(run: Path, where: Path) -> Path:
    """What a hospital passes on: the model and nothing else."""
    where.mkdir()
    for name in ("model.json", "model.safetensors"):
        shutil.copy(run / name, where)
    return where


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folders_are_answered_at_any_depth_as_their_files_are_one_by_one(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    images = sorted((folder / "test").rglob("*.png"))
    told = succeeds("predict", finished, folder / "test", "--out", tmp_path / "all.csv")
    assert told == f"predicted {len(images)} images, in {tmp_path / 'all.csv'}\n"
    rows = table(tmp_path / "all.csv")
    assert list(rows[0]) == ["file", "prediction", *(f"P({name})" for name in CLASSES)]
    assert sorted(row["file"] for row in rows) == [str(path) for path in images] and not list(
        tmp_path.glob("*.part")
    )
    singly = {
        row["image"]: row
        for row in map(
            json.loads, succeeds("predict", finished, *images[::5], "--json").splitlines()
        )
    }
    for row in rows:
        if row["file"] in singly:
            one = singly[row["file"]]
            assert row["prediction"] == one["class"]
            for name, p in one["probabilities"].items():
                assert abs(float(row[f"P({name})"]) - p) < 1e-4


def test_predictions_make_the_accuracy_that_evaluate_tells(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    """On the same files, all of them, with nothing but the released model."""
    model = released(finished, tmp_path / "model")
    succeeds("predict", model, folder / "train", "--out", tmp_path / "all.csv")
    rows = table(tmp_path / "all.csv")
    right = sum(Path(row["file"]).parent.name == row["prediction"] for row in rows)
    told = succeeds("evaluate", model, "--data", folder / "train")
    assert f"accuracy {100 * right / len(rows):.2f} %" in told and f"; {len(rows)} images" in told
    assert "its test part" in succeeds("evaluate", model, "--data", folder)
    assert sorted(path.name for path in model.iterdir()) == ["model.json", "model.safetensors"]
    refused(tmp_path, "evaluate", model, says=("released model", "--data"))


def test_the_runs_own_data_set_by_name_is_still_only_what_was_held_out(
    finished: Path, folder: Path
) -> None:
    assert succeeds("evaluate", finished, "--data", folder) == succeeds("evaluate", finished)


def test_other_images_may_lack_a_class_and_be_of_another_size(
    finished: Path, tmp_path: Path
) -> None:
    for name, shade in ((CLASSES[2], 220), (CLASSES[1], 120)):
        write_images(tmp_path / "other" / name, 3, shade, size=(20, 31))
    assert "; 6 images" in succeeds("evaluate", finished, "--data", tmp_path / "other")
    write_images(tmp_path / "other" / "dog", 1, 30)
    refused(tmp_path, "evaluate", finished, "--data", tmp_path / "other", says=("'dog'", "classes"))


def test_one_bad_file_among_many_is_named_at_the_end(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "test", tmp_path / "in")
    bad = tmp_path / "in" / CLASSES[0] / "0.png"
    bad.write_text("no image")
    (tmp_path / "empty").mkdir()
    outcome = sfumato("predict", finished, tmp_path / "in", tmp_path / "no.png", tmp_path / "empty")
    assert outcome.code == 1 and len(outcome.out.splitlines()) == 11
    *named, last = outcome.err.splitlines()
    assert len(named) == 3 and "3 of 14" in last
    for says in (str(bad), "no.png", "no images in this folder"):
        assert any(says in line for line in named), says
    refused(tmp_path, "predict", finished, bad, says=(str(bad), "not a readable image"))
    refused(tmp_path, "predict", finished, bad, "--out", tmp_path / "out.csv", says=(str(bad),))


def test_tables_of_images(finished: Path, folder: Path, tmp_path: Path) -> None:
    images = np.stack(
        [np.asarray(Image.open(path)) for path in sorted((folder / "test" / CLASSES[0]).iterdir())]
    )
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "images.npz", x_test=images.astype(np.float32) / 255)
    singly = succeeds("predict", finished, folder / "test" / CLASSES[0]).splitlines()
    for name in ("images.npy", "images.npz"):
        lines = succeeds("predict", finished, tmp_path / name).splitlines()
        assert [line.split("\t")[2:] for line in lines] == [line.split("\t")[1:] for line in singly]
    succeeds(
        "predict",
        finished,
        tmp_path / "images.npy",
        folder / "test" / CLASSES[1],
        "--out",
        tmp_path / "out.csv",
    )
    assert [row["row"] for row in table(tmp_path / "out.csv")] == [*map(str, range(4)), *[""] * 4]
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    refused(
        tmp_path,
        "predict",
        finished,
        tmp_path / "wrong.npy",
        says=("wrong.npy", "cannot be images"),
    )


def test_tables_that_cannot_be_written_are_refused_before_anything_is_read(
    finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("")
    for out, says in (("a.txt", ".csv"), ("there.csv", "exists"), ("no/a.csv", "folder")):
        refused(
            tmp_path,
            "predict",
            finished,
            tmp_path / "x.png",
            "--out",
            tmp_path / out,
            says=("out=", says),
        )


# -- models that are worth nothing


@pytest.mark.parametrize(
    ("confusion", "says"),
    [
        (
            [[166, 0], [6, 0]],
            [
                "no better than always 'common', which is right for 96.51 %; it answers nothing else",
                "class 'rare' is never found (0 of 6)",
            ],
        ),
        ([[160, 6], [4, 2]], ["no better than always 'common', which is right for 96.51 %"]),
        (
            [[166, 0], [5, 1]],
            [
                "not clearly better than always 'common', which is right for 96.51 %; more images would tell"
            ],
        ),
        ([[90, 10], [10, 90]], []),
        (
            [[0, 0], [0, 9]],
            ["no better than always 'rare', which is right for 100.00 %; it answers nothing else"],
        ),
        ([[0, 0], [0, 0]], []),
    ],
)
def test_a_worthless_model_is_called_so(confusion: list[list[int]], says: list[str]) -> None:
    assert verdicts(confusion, ("common", "rare")) == says


def test_of_many_lost_classes_a_few_are_named() -> None:
    confusion = np.zeros((20, 20), int)
    confusion[:, 0] = 10
    told = verdicts(confusion.tolist(), [f"c{k}" for k in range(20)])
    assert len(told) == 7 and told[-1] == "nor are 14 more classes"


def test_terminal_report_and_card_say_that_a_model_is_worthless(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    counts = [[0, 4, 0], [0, 4, 0], [0, 4, 0]]
    told = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(
        json.dumps(told | {"confusion": counts, "accuracy": 4 / 12})
    )
    said = succeeds("resume", run)
    page, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    for text in (said, page, card):
        assert "no better than always" in text.lower() and "is never found" in text


# -- the command line around it


def test_version() -> None:
    assert succeeds("--version").startswith("sfumato 0.")


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("train", "--data", "digits", "--epsilom", "3"), "--epsilon"),
        (("predict", "run", "a.png", "--jsn"), "--json"),
        (("data", "info", "digits", "--data-dri", "x"), "--data-dir"),
    ],
)
def test_a_mistyped_option_is_one_line_with_the_nearest_one(
    arguments: tuple[str, ...], near: str, tmp_path: Path
) -> None:
    told = refused(tmp_path, *arguments, says=(f"did you mean {near}?",))
    assert len(told) < 150


@pytest.mark.slow
def test_ctrl_c_prints_the_very_command_that_resumes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    with ctrl_c_after(1):
        outcome = sfumato(*train_arguments(folder, out))
    assert outcome.code == 130 and f"`sfumato resume '{out}'`" in outcome.err


def test_a_dry_run_without_an_estimate_times_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr("sfumato.runs.cost.estimate", fail)
    told = succeeds(*train_arguments(folder, tmp_path / "run", "--dry-run", "--no-estimate"))
    assert "noise multiplier" in told and "estimate" not in told
