"""Splits of a data set's own, in every spelling; units that are folders; what is passed over, and
what is said of it."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import labeled_images, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from run_helpers import succeeds

from sfumato import data
from sfumato.core.errors import ArgumentError, DataError, on_one_line
from sfumato.data import ReadOptions

CLASSES = {"a": 12, "b": 12}
ROWS, LABELS = (
    np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32),
    np.arange(40) % 2,
)


def refusal(root: Path, options: ReadOptions = ReadOptions()) -> str:  # noqa: B008
    with pytest.raises((DataError, ArgumentError)) as caught:
        data.describe(str(root), options=options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def write_splits(root: Path, *names: str) -> Path:
    for name in names:
        write_folder(root / name, CLASSES)
    return root


# -- splits of folders


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "dev", "Test"),
    ],
)
def test_own_splits_are_read_in_every_spelling(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_splits(tmp_path, *names)
    for validation in (0.0, 0.3):  # the data set's own images take the place of a share
        info, splits = (
            data.describe(str(tmp_path), validation=validation),
            data.open(str(tmp_path), validation=validation),
        )
        assert info.counts == {"train": 24, "validation": 24, "test": 24}
        assert (
            splits.validation is not None
            and splits.test is not None
            and splits.validation.split == "validation"
        )
        assert (len(splits.train), len(splits.validation), len(splits.test)) == (24, 24, 24)
        assert splits.evaluated(validation) is (splits.validation if validation else splits.test)


def test_with_a_validation_split_alone_nobody_else_is_held_out(tmp_path: Path) -> None:
    splits = data.open(str(write_splits(tmp_path, "train", "val")))
    assert data.describe(str(tmp_path)).counts == {"train": 24, "validation": 24}
    assert splits.test is None and splits.evaluated(0.0) is splits.validation is not None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("train", "car"), "'train' is taken for the train split, not for a class"),
        (("Test", "car"), "'Test' is taken for the test split, not for a class"),
        (("train", "val", "valid"), "'val' and 'valid' are both taken for the validation split"),
        (("train", "Train"), "'Train' and 'train' are both taken for the train split"),
        (("val", "test"), "has no train/"),
    ],
)
def test_what_is_taken_for_a_split_says_so(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    assert says in refusal(write_splits(tmp_path, *names))


def test_words_that_are_also_classes_are_splits_beside_a_training_part_only(tmp_path: Path) -> None:
    write_folder(tmp_path, {"valid": 9, "invalid": 9})
    assert data.describe(str(tmp_path)).classes == ("invalid", "valid")


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", "lost+found", ".ipynb_checkpoints", "$RECYCLE.BIN"]
)
def test_folders_of_systems_are_no_classes(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, CLASSES)
    write_folder(tmp_path, {name: 1, f"a/{name}": 1})
    assert data.describe(str(tmp_path)).classes == ("a", "b")
    assert len(data.open(str(tmp_path), options=ReadOptions(test_fraction=0.0)).train) == 24


# -- units that are folders


def test_a_folder_below_the_class_is_a_unit(tmp_path: Path) -> None:
    write_folder(
        tmp_path, {f"{name}/p{k}": 3 for name in "ab" for k in range(6)} | {"b/p0": 2, "b/q": 1}
    )
    assert "--unit folder" in refusal(tmp_path)
    options = ReadOptions(unit="folder", test_fraction=0.5)
    info, splits = (
        data.describe(str(tmp_path), options=options),
        data.open(str(tmp_path), options=options),
    )
    assert (
        splits.test is not None
        and splits.test.owners is not None
        and splits.train.owners is not None
    )
    sides = [set(source.owners.tolist()) for source in (splits.train, splits.test)]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == {*(f"p{k}" for k in range(6)), "q"}
    assert info.units == len(sides[0]) and info.classes == ("a", "b")


def test_images_without_a_folder_and_folders_too_deep_are_refused(tmp_path: Path) -> None:
    options = ReadOptions(unit="folder")
    write_folder(tmp_path / "flat", CLASSES)
    assert "'0.png' lies directly in its class" in refusal(tmp_path / "flat", options)
    write_folder(tmp_path / "deep", {"a/p/x": 1, "b/q/y": 1})
    assert "it has a folder 'x' in it" in refusal(tmp_path / "deep", options)
    for split in ("train", "val"):
        write_folder(tmp_path / "both" / split, {"a/p": 2, "b/q": 2})
    assert "both the training and the validation part" in refusal(tmp_path / "both", options)


# -- files that are not read


@pytest.mark.slow
def test_files_that_are_not_read_are_counted_by_their_ending(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 30, "b": 30})
    for k in range(4):
        (tmp_path / "a" / f"{k}.XCF").write_text("x")
    for name in ("a/k", "b/x.gif", "b/y.gif", "b/by.Somebody"):
        (tmp_path / name).write_text("x")
    Image.new("RGB", (6, 8)).save(tmp_path / "stray.png")
    found = {
        ".xcf": 4,
        ".gif": 2,
        "without an ending": 1,
        "with other endings": 1,
        "images that lie in no class folder": 1,
    }
    assert data.describe(str(tmp_path)).left_out == found == data.open(str(tmp_path)).left_out
    fit = ("train", "--data", tmp_path, "--resize", 8, "--model", "scattering", "--method", "means")
    said = "9 files that are not read: 4 .xcf, 2 .gif"
    assert said in succeeds(*fit, "--dry-run") and said in succeeds("data", "info", tmp_path)
    told = succeeds(*fit, "--out", tmp_path.parent / "run", "--log", "json")
    assert any(said in str(json.loads(line).get("text")) for line in told.splitlines())
    assert json.loads((tmp_path.parent / "run" / "plan.json").read_text())["left_out"] == found
    assert said in succeeds("report", tmp_path.parent / "run")


# -- arrays


def own_arrays(x: str, y: str, splits: tuple[str, ...]) -> dict[str, np.ndarray]:
    images, labels = labeled_images(20, (6, 5), 2)
    return {
        form.format(split): array
        for split in splits
        for form, array in ((x, images), (y, labels[:, None]))
    }


@pytest.mark.parametrize(
    ("x", "y", "splits"),
    [
        ("{}_images", "{}_labels", ("train", "val", "test")),
        ("x_{}", "y_{}", ("train", "val", "test")),
        ("X_{}", "Y_{}", ("Train", "valid", "TEST")),
        ("images_{}", "labels_{}", ("train", "dev", "test")),
    ],
)
def test_arrays_of_every_spelling_are_read(
    tmp_path: Path, x: str, y: str, splits: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "m.npz", **own_arrays(x, y, splits))
    counts = {"train": 20, "validation": 20, "test": 20}
    assert data.describe(tmp_path / "m.npz").counts == counts
    found = data.open(tmp_path / "m.npz", options=ReadOptions(resize=4))
    assert found.validation is not None and found.validation.raw([0]).shape == (1, 4, 4, 1)
    rows = {
        name: ROWS[:20] if array.ndim == 3 else array
        for name, array in own_arrays(x, y, splits).items()
    }
    np.savez(tmp_path / "rows.npz", **rows)
    assert data.describe_rows(tmp_path / "rows.npz", 0.2, ReadOptions()).counts == counts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"val_labels": None}, "has no val_labels"),
        ({"x_val": np.zeros((20, 6, 5))}, "would not be read"),
        ({"val_labels": np.full(20, 9)}, "val_labels=9: not one of the classes of train_labels"),
        ({"train_labels": np.zeros((20, 3, 2))}, "train_labels='shape (20, 3, 2)'"),
    ],
)
def test_bad_arrays_are_called_by_their_own_names(tmp_path: Path, change: dict, says: str) -> None:
    arrays = own_arrays("{}_images", "{}_labels", ("train", "val")) | change
    np.savez(
        tmp_path / "m.npz", **{name: array for name, array in arrays.items() if array is not None}
    )
    assert says in refusal(tmp_path / "m.npz")


def test_a_column_of_text_is_named(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "f0": ROWS[:, 0],
        "f1": ROWS[:, 1],
        "name": [f"r{k}" for k in range(40)],
        "label": LABELS,
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: column 'name' holds string.*--unit"):
        data.describe_rows(tmp_path / "a.parquet", 0.0, ReadOptions())
    assert data.describe_rows(tmp_path / "a.parquet", 0.0, ReadOptions(unit="name")).units


# -- one line, whatever a name holds


@pytest.mark.slow
def test_predict_says_one_line_an_image_whatever_a_class_is_called(tmp_path: Path) -> None:
    names = ("ill\nness", "tab\there")
    np.savez(
        tmp_path / "rows.npz",
        x_train=3 * np.eye(4, dtype=np.float32)[LABELS],
        y_train=np.array(names)[LABELS],
    )
    succeeds(
        "fit",
        "--features",
        tmp_path / "rows.npz",
        "--method",
        "means",
        "--log",
        "quiet",
        "--out",
        tmp_path / "run",
    )
    np.savez(tmp_path / "new.npz", X=ROWS[:5])
    lines = succeeds("predict", tmp_path / "run", tmp_path / "new.npz").splitlines()
    assert len(lines) == 5 and all(len(line.split("\t")) == 4 for line in lines)
    assert {line.split("\t")[2] for line in lines} <= {"ill\\nness", "tab\\there"}


@given(st.text())
def test_a_name_on_one_line_is_on_one_line_and_can_be_printed(name: str) -> None:
    shown = on_one_line(name + "\udcff")
    assert len(shown.splitlines()) == 1 and "\t" not in shown and shown.encode()


NAMES = st.sampled_from(
    ["a", "b", "train", "Val", "test", "dev", "__MACOSX", "new\nline", "x.xcf", "0.png", ".hidden"]
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    paths=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=8),
    unit=st.sampled_from([None, "folder"]),
)
def test_any_tree_is_listed_or_refused_in_one_line(
    tmp_path_factory, paths: list[list[str]], unit: str | None
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for path in paths:
        place = root.joinpath(*path[:-1])
        if (
            not any(part.is_file() for part in (place, *place.parents, place / path[-1]))
            and not (place / path[-1]).is_dir()
        ):
            place.mkdir(parents=True, exist_ok=True)
            (place / path[-1]).write_bytes(b"")
    try:
        found = data.describe(root, options=ReadOptions(unit=unit, test_fraction=0.0))
    except (DataError, ArgumentError) as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert len(found.classes) > 1 and "__MACOSX" not in found.classes
