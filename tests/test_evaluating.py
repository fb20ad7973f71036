"""`sfumato evaluate`: both kinds of error, groups, and a calibration that predictions follow."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_helpers import refused, succeeds

import sfumato as sf
from sfumato.runs.temperature import FILE

N = 160


def two_classes(path: Path) -> Path:
    """Images of two classes that overlap, and a column of two groups."""
    stream = np.random.default_rng(0)
    labels = np.arange(N) % 2
    pixels = np.clip(
        stream.normal(110 + 30 * labels[:, None, None, None], 45, (N, 8, 8, 1)), 0, 255
    )
    images, words = pixels.astype(np.uint8), np.array(["well", "ill"])[labels]
    sex = np.array(["f", "m"])[(np.arange(N) // 2) % 2]
    np.savez(
        path,
        x_train=images[:120],
        y_train=words[:120],
        x_test=images[120:],
        y_test=words[120:],
        sex_test=sex[120:],
    )
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of rows, as they are quick; validation images are held out. Copy it before changing anything."""
    root = tmp_path_factory.mktemp("two")
    settings = ("--method", "dp-sgd", "--model", "cnn", "--steps", 6, "--epsilon", 50)
    data = ("--data", two_classes(root / "two.npz"), "--validation", 0.4, "--log", "quiet")
    succeeds("train", *data, *settings, "--sampler", "full", "--out", root / "run")
    return root / "run"


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_the_positive_class_decides_what_is_sensitivity(own: Path) -> None:
    told = {
        name: succeeds("evaluate", own, "--split", "test", "--positive", name)
        for name in ("well", "ill")
    }
    found = json.loads((own / "evaluation.json").read_text())
    well, ill = found["confusion"][1], found["confusion"][0]  # classes are sorted: ill, well
    for name, row, k in (("well", well, 1), ("ill", ill, 0)):
        share = f"{100 * row[k] / sum(row):.1f} %"
        line = next(each for each in told[name].splitlines() if each.startswith("sensitivity"))
        assert share in line and f"'{name}'" in line
    assert found["metrics"]["two"]["positive"] == 0
    assert "What a threshold trades" in (own / "report.html").read_text()
    refused(own, "evaluate", own, "--positive", "dog", says=("positive='dog'", "ill, well"))


@pytest.mark.slow
def test_groups_come_from_the_archive_or_from_a_table(own: Path, run: Path) -> None:
    told = succeeds("evaluate", own, "--group", "sex")
    groups = json.loads((own / "evaluation.json").read_text())["metrics"]["groups"]
    assert [each["name"] for each in groups] == ["f", "m"]
    assert sum(np.sum(each["confusion"]) for each in groups) == 40
    assert "sex=f:" in told and "Group by group" in (own / "report.html").read_text()
    refused(own, "evaluate", own, "--group", "age", says=("group='age'", "sex_test"))


def test_groups_of_files_come_from_a_table(finished: Path, folder: Path, tmp_path: Path) -> None:
    files = sorted((folder / "test").rglob("*.png"))
    with open(tmp_path / "who.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "site"])
        rows.writerows([path.relative_to(folder), "ab"[k % 2]] for k, path in enumerate(files))
    asked = ("evaluate", finished, "--data", folder, "--group", "site")
    assert "site=b:" in succeeds(*asked, "--group-table", tmp_path / "who.csv")
    (tmp_path / "less.csv").write_text("file,site\nnone.png,a\n")
    refused(
        tmp_path, *asked, "--group-table", tmp_path / "less.csv", says=("less.csv", "no site for")
    )
    refused(tmp_path, *asked, says=("--group-table",))


@pytest.mark.slow
def test_a_calibration_is_kept_beside_the_model_and_predictions_follow_it(own: Path) -> None:
    before = {name: (own / name).read_bytes() for name in ("model.json", "model.safetensors")}
    plain = sf.load(own)
    told = succeeds("evaluate", own, "--split", "validation", "--calibrate")
    assert "no epsilon covers" in told
    found = json.loads((own / FILE).read_text())
    assert found["positive"] == "well" and 0 < found["threshold"] < 1
    assert before == {name: (own / name).read_bytes() for name in before}
    found |= {"temperature": 2.0, "threshold": 0.9}
    (own / FILE).write_text(json.dumps(found))
    images = np.random.default_rng(1).random((20, 8, 8, 1), np.float32)
    p, q = plain.predict_proba(images), sf.load(own).predict_proba(images)
    roots = np.sqrt(p)
    np.testing.assert_allclose(q, roots / roots.sum(1, keepdims=True), atol=1e-5)
    called = sf.load(own).predict(images)
    assert list(called) == ["well" if each >= 0.9 else "ill" for each in q[:, 1]]
    np.save(own.parent / "x.npy", images)
    lines = succeeds("predict", own, own.parent / "x.npy").splitlines()
    assert [line.split("\t")[2] for line in lines] == list(called)
    assert "answered from 0.9 on" in succeeds("evaluate", own)


def test_test_images_calibrate_nothing(own: Path) -> None:
    refused(own, "evaluate", own, "--calibrate", says=("calibrate=True", "--split validation"))


def test_the_report_leaves_out_what_was_not_set(own: Path) -> None:
    page = (own / "report.html").read_text()
    settings = page.split("Settings of this run")[1]
    assert ">none<" not in settings and ">no<" not in settings and "validation" in settings
