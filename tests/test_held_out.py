"""What is held out and cannot be read ends no run that has paid; other labeled images are named like training images."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from run_helpers import CLASSES, NETWORK, ctrl_c_after, refused, sfumato, succeeds, train_arguments

import sfumato as sf
from sfumato import data
from sfumato.data import opening, records
from sfumato.data.formats.recognized import find_listing
from sfumato.runs import sweeping, training, tuning

BROKEN = f"test/{CLASSES[0]}/2.png"


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A held-out image whose header is whole and whose pixels end too early."""
    place = shutil.copytree(folder, tmp_path / "photos")
    (place / BROKEN).write_bytes((place / BROKEN).read_bytes()[:-40])
    return place


@pytest.mark.slow
def test_a_held_out_image_that_cannot_be_read_ends_no_run_that_has_paid(
    broken: Path, tmp_path: Path
) -> None:
    run, bad = tmp_path / "run", tmp_path / "list"
    lines = succeeds(*train_arguments(broken, run, "--log", "json")).splitlines()
    told = [each for line in lines if BROKEN in (each := json.loads(line).get("warning", ""))]
    assert len(told) == 1 and "`sfumato evaluate`" in told[0]
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(points) == 4 and not any("accuracy" in each for each in points)
    assert (run / "result.json").exists() and not (run / "evaluation.json").exists()
    assert "could not be read" in succeeds("resume", run, "--log", "bar")
    refused(run, "evaluate", run, says=(BROKEN, "--skip-unreadable"))
    succeeds("data", "check", broken, "--out", bad, "--log", "quiet")
    assert "11 test images" in succeeds("evaluate", run, "--skip-unreadable", bad)
    assert json.loads((run / "evaluation.json").read_text())["n"] == 11
    everything = tmp_path / "everything"
    everything.write_text("".join(f"{name}\n" for name in data.open(broken).test.names))  # type: ignore[union-attr]
    refused(run, "evaluate", run, "--skip-unreadable", everything, says=("names all 12",))


def test_a_held_out_image_that_features_need_is_named_before_anything_is_paid(
    broken: Path, tmp_path: Path
) -> None:
    asked = ("train", "--data", broken, "--method", "ls", "--model", "scattering")
    outcome = sfumato(*asked, "--log", "quiet", "--out", tmp_path / "run")
    assert outcome.code == 2 and BROKEN in outcome.err and not (tmp_path / "run").exists()


def table(place: Path, images: list[Path]) -> Path:
    """Its columns are not called as usual, and one that is holds something else."""
    with (place / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["where", "label", "species", "part", "site"])
        for k, path in enumerate(images):
            part = "test" if k % 3 else "train"
            rows.writerow([path.with_suffix(""), "x", path.parent.name, part, "ab"[k % 2]])
    return place / "t.csv"


def test_other_images_are_named_as_training_images_are(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    other = table(tmp_path, sorted((folder / "train").rglob("*.png")))
    asked = ("evaluate", finished, "--data", other, "--path", "where")
    told = succeeds(*asked, "--label", "species", "--split", "part", "--group", "site")
    assert "16 images" in told and "its test part" in told and "site=b:" in told
    refused(tmp_path, *asked, "--label", "race", says=("label='race'", "found where, label"))
    refused(tmp_path, *asked, says=("label has only one class (x)",))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--label", "x"), ("label='x'", "--data")),
        (("--split", "part"), ("split='part'", "test, validation")),
        (("--split", "validation"), ("split='validation'", "no validation images")),
    ],
)
def test_the_own_images_of_a_run_are_read_as_it_read_them(
    finished: Path, flags: tuple[str, ...], says: tuple[str, ...]
) -> None:
    refused(finished, "evaluate", finished, *flags, says=says)


@pytest.mark.slow
def test_a_table_of_paths_from_the_root_is_trained_on(folder: Path, tmp_path: Path) -> None:
    lines = [
        f"{path},{path.parent.name},{path.parents[1].name}"
        for path in sorted(folder.rglob("*.png"))
    ]
    (tmp_path / "t.csv").write_text("\n".join(["file,label,split", *lines]), "utf-8")
    succeeds(*train_arguments(tmp_path / "t.csv", tmp_path / "run"))


def method(source: Any) -> sf.DPSGD:
    def loss(weight: Any, example: Any) -> Any:
        image, label = example
        return ((image.reshape(-1) @ weight)[label] - 1) ** 2

    return sf.calibrate(
        sf.DPSGD(
            loss,
            np.zeros((192, 3), np.float32),
            source,
            optimizer=optax.sgd(0.1),
            sampler=sf.FullBatch(3),
        ),
        4.0,
        1e-3,
    )


def test_a_method_of_ones_own_goes_on_without_reading_all_bytes_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = data.open(folder).train, tmp_path / "run"
    with ctrl_c_after(1), pytest.raises(KeyboardInterrupt):
        sf.run(method(source), out=out, log="quiet")
    began = json.loads((out / "work/began.json").read_text())
    assert began["environment"]["decoder"] == source.decoder and began["stamp"]
    with monkeypatch.context() as patch:
        patch.delattr(records.Records, "digests")
        sf.run(method(data.open(folder).train), out=out, log="quiet")
    assert (out / "result.json").exists()


@pytest.mark.parametrize("command", ["train", "sweep", "tune"])
def test_a_data_set_is_listed_once_by_the_same_flags(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is listed any more once the plan is made, so Ctrl-C may come then."""
    listed: list[Path] = []

    def counted(path: Path, options: Any) -> Any:
        listed.append(path)
        return find_listing(path, options)

    def stop(log: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "find_listing", counted)
    for module in (training, sweeping, tuning):
        monkeypatch.setattr(module, "make_progress", stop)
    own = {
        "train": (*NETWORK, "--steps", "1", "--batch", "8"),
        "sweep": ("--model", "sides", "--method", "ls", "--epsilon", "9"),
        "tune": ("--model", "sides", "--method", "ls", "--validation", "0.3"),
    }[command]
    where = table(tmp_path, sorted((folder / "train").rglob("*.png")))
    columns = ("--path", "where", "--label", "species", "--resize", "8")
    outcome = sfumato(command, "--data", where, *columns, *own, "--out", tmp_path / "out")
    assert outcome.code == 130 and listed == [where], outcome.err
