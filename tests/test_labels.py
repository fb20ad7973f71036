"""One function for labels, and every door that labels come in by: arrays, .npz, files of rows, both
estimators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato import DPImageClassifier, DPLinearClassifier, data
from sfumato.core.errors import SfumatoError
from sfumato.data.labels import declared, encode, encode_parts, names_of

N, PLACES = 24, np.arange(24) % 3
CODES = np.array([7, 2222, 19998])[PLACES]
NAMES = np.array(["cat", "dog", "eel"])[PLACES]
ROWS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8), np.uint8)


class NAType:
    """As pandas has it: neither None nor a number."""


GOOD = {
    "codes": (CODES, ("7", "2222", "19998")),
    "from one": (PLACES.astype(np.uint8) + 1, ("1", "2", "3")),
    "below zero": (PLACES - 1, ("-1", "0", "1")),
    "huge": (PLACES.astype(np.uint64) + np.uint64(2**63), tuple(str(2**63 + k) for k in range(3))),
    "whole floats": (CODES.astype(np.float64), ("7", "2222", "19998")),
    "strings": (NAMES, ("cat", "dog", "eel")),
    "objects": (NAMES.astype(object), ("cat", "dog", "eel")),
    "numbers as objects": (CODES.astype(object), ("7", "2222", "19998")),
    "list": (NAMES.tolist(), ("cat", "dog", "eel")),
    "column": (CODES[:, None], ("7", "2222", "19998")),
    "truth values": (PLACES == 1, ("False", "True")),
}
BAD = {
    "NaN": (np.where(PLACES == 0, np.nan, PLACES), "8 labels that are NaN or None, the first at 0"),
    "None": (np.where(PLACES == 1, None, NAMES), "the first at 1"),
    "NaN among strings": (
        np.where(PLACES == 2, float("nan"), NAMES.astype(object)),
        "the first at 2",
    ),
    "pandas' NA": (np.where(PLACES == 2, NAType(), NAMES.astype(object)), "the first at 2"),
    "masked": (np.ma.masked_array(CODES, PLACES == 1), "the first at 1"),
    "infinity": (np.where(PLACES == 0, np.inf, PLACES), "inf: Unknown label type"),
    "real numbers": (np.linspace(0, 1, N) + 0.25, "0.25: Unknown label type"),
    "indicators": (np.eye(3)[PLACES], "argmax"),
    "one number": (3, "shape"),
    "several types": ([0, "a", 1] * 8, "several types: int, str"),
    "bytes": (NAMES.astype("S3"), "give whole numbers or strings"),
    "dates": (PLACES.astype("datetime64[D]"), "give whole numbers or strings"),
    "complex": (PLACES * 1j, "give whole numbers or strings"),
    "dictionaries": ([{}] * N, "give whole numbers or strings"),
    "several lengths": ([[1], [1, 2]] * 12, "several lengths"),
    "a class for each": (np.arange(N), "24 different labels for 24 examples"),
    "one class": (np.zeros(N, int), "only one class"),
}


def by_arrays(labels: Any, _: Path) -> tuple[tuple[str, ...], np.ndarray]:
    source = data.from_arrays(IMAGES, labels)
    return source.class_names, source.labels


def by_npz(labels: Any, folder: Path) -> tuple[tuple[str, ...], np.ndarray]:
    np.savez(folder / "a.npz", x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=labels)
    splits = data.open(str(folder / "a.npz"))
    assert splits.test is not None and splits.test.class_names == splits.train.class_names
    np.testing.assert_array_equal(splits.test.labels, splits.train.labels)
    return data.describe(str(folder / "a.npz")).classes, splits.train.labels


def by_rows(labels: Any, folder: Path) -> tuple[tuple[str, ...], np.ndarray]:
    np.savez(folder / "a.npz", X=ROWS, y=labels)
    train = data.open_rows(folder / "a.npz", 0.0, data.ReadOptions(test_fraction=0.0)).train
    return train.class_names, train.labels


def by_images(labels: Any, _: Path) -> tuple[tuple[str, ...], np.ndarray]:
    model = DPImageClassifier(epsilon=8.0, method="means", model="scattering").fit(IMAGES, labels)
    assert set(model.predict(IMAGES).tolist()) <= set(np.asarray(labels).ravel().tolist())
    return model.plan_.classes, np.searchsorted(model.classes_, np.asarray(labels).ravel())


def by_linear(labels: Any, _: Path) -> tuple[tuple[str, ...], np.ndarray]:
    model = DPLinearClassifier(epsilon=8.0, method="means").fit(ROWS, labels)
    assert set(model.predict(ROWS).tolist()) <= set(np.asarray(labels).ravel().tolist())
    return names_of(model.classes_), np.searchsorted(model.classes_, np.asarray(labels).ravel())


DOORS = [by_arrays, by_npz, by_rows, by_images, by_linear]
IN_FILES = {
    "codes",
    "from one",
    "below zero",
    "huge",
    "whole floats",
    "strings",
    "column",
    "truth values",
    "NaN",
    "infinity",
    "real numbers",
    "indicators",
    "one number",
    "bytes",
    "dates",
    "complex",
    "a class for each",
    "one class",
}
"""What a file without pickles can hold."""


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("door", DOORS)
def test_every_door_finds_the_same_classes(door: Callable, kind: str, tmp_path: Path) -> None:
    labels, names = GOOD[kind]
    if door in (by_npz, by_rows) and kind not in IN_FILES:
        pytest.skip("no file holds these without a pickle")
    found, codes = door(labels, tmp_path)
    assert found == names
    np.testing.assert_array_equal(codes, PLACES == 1 if kind == "truth values" else PLACES)


@pytest.mark.parametrize("door", [by_arrays, by_npz, by_rows])
def test_a_matrix_of_zeros_and_ones_is_findings(door: Callable, tmp_path: Path) -> None:
    """Of the estimators `test_findings_run.py` says so."""
    matrix, _ = BAD["indicators"]
    names, found = door(matrix, tmp_path)
    assert names == ("0", "1", "2")
    np.testing.assert_array_equal(found, matrix)


@pytest.mark.parametrize(
    ("door", "kind"), [(door, kind) for door in DOORS for kind in BAD if kind != "indicators"]
)
def test_every_door_refuses_what_is_no_label(door: Callable, kind: str, tmp_path: Path) -> None:
    labels, says = BAD[kind]
    if door in (by_npz, by_rows) and kind not in IN_FILES:
        pytest.skip("no file holds these without a pickle")
    if kind == "one number" and door is not by_arrays:
        says = None  # files and scikit-learn have words of their own for this
    with pytest.raises((SfumatoError, ValueError), match=says) as refusal:
        door(labels, tmp_path)
    assert "\n" not in str(refusal.value)


def test_declared_classes_fix_the_set_and_their_order_is_sorted() -> None:
    assert declared(["b", "a"]).tolist() == ["a", "b"]
    classes, codes = encode(["b", "b"], classes=declared(["a", "b", "c"]))
    assert classes.tolist() == ["a", "b", "c"] and codes.tolist() == [1, 1]
    assert encode(np.array([2.0, 1.0]), classes=[1, 2])[1].tolist() == [1, 0], "1.0 is 1"
    assert encode(np.arange(N), classes=np.arange(N))[1].tolist() == list(range(N)), (
        "whoever says so may have a class for each"
    )
    with pytest.raises(SfumatoError, match="labels='d': not one of the declared classes"):
        encode(["d"], classes=["a", "b"])
    for classes in ([], ["a"], ["a", "a"], ["a", None], [0.5, 1.5], 3, [0, "a"]):
        with pytest.raises(SfumatoError, match="classes="):
            declared(classes)


def test_other_parts_may_have_fewer_classes_but_no_others() -> None:
    parts = {"train": [1, 2, 9] * 4, "test": np.array([9.0, 1.0])}
    names, numbers = encode_parts(parts, "a.npz", {"train": "y", "test": "z"})
    assert names == ("1", "2", "9") and numbers["test"].tolist() == [2, 0]
    with pytest.raises(SfumatoError, match=r"a\.npz: z=3: not one of the classes of y \(1, 2, 9\)"):
        encode_parts({**parts, "test": [3]}, "a.npz", {"train": "y", "test": "z"})
