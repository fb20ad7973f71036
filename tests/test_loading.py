"""`sf.load`: runs and estimators, asked with arrays, files and Pillow's images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import CLASSES, ctrl_c_after, sfumato, train_arguments

import sfumato as sf


def test_files_pictures_and_arrays_have_one_answer(finished: Path, folder: Path) -> None:
    model = sf.load(finished)
    files = sorted((folder / "test" / CLASSES[0]).glob("*.png"))[:3]
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    answers = [
        model.predict_proba(given)
        for given in (
            arrays,
            files,
            [str(file) for file in files],
            [Image.open(file) for file in files],
            (files[0], Image.open(files[1]), str(files[2])),
        )
    ]
    for each in answers[1:]:
        np.testing.assert_allclose(each, answers[0], atol=1e-6)
    assert (
        model.predict_proba(files[0]).shape
        == (1, 3)
        == model.predict_proba(Image.open(files[0])).shape
    )
    assert list(model.classes_) == list(CLASSES)
    assert list(model.predict(files)) == [CLASSES[k] for k in answers[0].argmax(1)]
    assert list(sf.load(str(finished / "model.safetensors")).predict(files)) == list(
        model.predict(files)
    )


def test_what_has_another_size_or_transparency_is_brought_to_the_models(finished: Path) -> None:
    model = sf.load(finished)
    big = Image.new("RGBA", (31, 20), (10, 200, 30, 128))
    assert model.predict_proba(big).shape == (1, 3) and big.size == (31, 20) and big.mode == "RGBA"


def test_what_is_no_image_is_refused_in_one_line(finished: Path, tmp_path: Path) -> None:
    model = sf.load(finished)
    (tmp_path / "bad.png").write_text("no image")
    for given, says in (
        (tmp_path / "bad.png", "bad.png"),
        (tmp_path / "none.png", "no such file"),
        (tmp_path, "a folder"),
        ([tmp_path / "bad.png", np.zeros((8, 8, 3))], "alone"),
        (np.zeros((2, 5, 5, 3)), "shape"),
    ):
        with pytest.raises(sf.SfumatoError, match=says) as refused:
            model.predict(given)
        assert "\n" not in str(refused.value)


def test_saved_estimators_are_told_apart(tmp_path: Path) -> None:
    rows, labels = np.eye(6, dtype=np.float32)[np.arange(60) % 3], np.arange(60) % 3
    fitted = sf.DPLinearClassifier(epsilon=8.0, method="ls").fit(rows, labels)
    fitted.save(tmp_path / "heads.safetensors")
    again = sf.load(tmp_path / "heads.safetensors")
    assert isinstance(again, sf.DPLinearClassifier)
    np.testing.assert_array_equal(again.predict_proba(rows), fitted.predict_proba(rows))


def test_what_is_not_finished_or_no_model_is_refused(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    with ctrl_c_after(2):
        assert sfumato(*train_arguments(folder, tmp_path / "half")).code == 130
    shutil.copytree(finished, tmp_path / "unwritten")  # killed between the model and the result
    (tmp_path / "unwritten" / "result.json").unlink()
    (tmp_path / "noise.safetensors").write_bytes(b"0" * 100)
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("half", "resume"),
        ("unwritten", "resume"),
        ("noise.safetensors", "damaged"),
        ("nowhere", "no such"),
        ("empty", "no finished model"),
    ):
        with pytest.raises(sf.RunError, match=says) as refused:
            sf.load(tmp_path / name)
        assert "\n" not in str(refused.value)
