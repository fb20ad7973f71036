"""All formats give the same records; what is wrong in one is refused in one line that names file and
record."""

import csv
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from format_writers import CLASSES, WRITERS, Item, as_csv, as_folder, as_tar, items, rows
from hostile_helpers import refused

from sfumato import data
from sfumato.core.errors import ArgumentError
from sfumato.data import ReadOptions
from sfumato.data.formats.recognized import FORMATS, find_listing
from sfumato.data.listing import Listing

NO_TEST = ReadOptions(test_fraction=0.0)


@pytest.fixture(scope="module")
def given() -> list[Item]:
    return items()


@pytest.fixture(scope="module")
def written(given: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def place(kind: str) -> Path:
        if kind not in made:
            pytest.importorskip(WRITERS[kind].needs)
            made[kind] = WRITERS[kind].write(tmp_path_factory.mktemp("format") / "birds", given)
        return made[kind]

    return place


def listed(path: Path, options: ReadOptions = NO_TEST) -> Listing:
    found = find_listing(path, options)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_images_in_every_format_are_the_same_records(
    kind: str, written: Callable[[str], Path], given: list[Item]
) -> None:
    listing = listed(written(kind))
    assert sorted(listing.classes) == list(CLASSES) and listing.named
    found = {
        (split, name): (part.records.read(k), listing.classes[part.labels[k]])
        for split, part in listing.parts.items()
        for k, name in enumerate(part.names)
    }
    assert found == {(item.split, item.name): (item.content, item.label) for item in given}


@pytest.mark.parametrize("kind", WRITERS)
def test_records_are_read_by_threads_and_processes_and_tell_where_they_lie(
    kind: str, written: Callable[[str], Path]
) -> None:
    records = listed(written(kind)).parts["train"].records
    copy = pickle.loads(pickle.dumps(records))
    with ThreadPoolExecutor(4) as pool:
        mine, theirs = (list(pool.map(each.read, range(len(each)))) for each in (records, copy))
    assert mine == theirs and copy.stamp() == records.stamp()
    assert str(written(kind).parent) in records.where(3) and records.where(3) != records.where(4)


@pytest.mark.parametrize("kind", [kind for kind, writer in WRITERS.items() if writer.has_units])
def test_units_are_a_column(kind: str, written: Callable[[str], Path], given: list[Item]) -> None:
    part = listed(written(kind), ReadOptions(unit="patient")).parts["train"]
    assert part.units is not None
    units = {item.name: item.unit for item in given}
    assert [units[name] for name in part.names] == list(part.units)
    with pytest.raises(ArgumentError, match="doctor"):
        listed(written(kind), ReadOptions(unit="doctor"))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_data_set_of_every_format_opens_and_says_the_same_of_itself(
    kind: str, written: Callable[[str], Path], given: list[Item]
) -> None:
    info, splits = data.describe(written(kind)), data.open(written(kind))
    assert info.counts == {"train": 160, "test": 40} and info.shape == (9, 12, 3)
    assert not info.by_position and splits.test is not None
    names = list(splits.train.names)
    at = names.index(given[5].name)
    folder = data.open(written("folder")).train
    np.testing.assert_array_equal(
        splits.train.raw([at]), folder.raw([list(folder.names).index(given[5].name)])
    )


def test_every_format_is_written_by_one_of_the_writers_above(
    written: Callable[[str], Path],
) -> None:
    """But for the hub, which is `datasets` and a network."""
    used = {
        next(k for k, each in enumerate(FORMATS) if each.holds(written(kind))) for kind in WRITERS
    }
    assert used == set(range(1, len(FORMATS)))


def test_a_new_format_is_one_file_and_one_line(
    tmp_path: Path, given: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    from plugins.zip_format import FORMAT

    from sfumato.data.formats import recognized

    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as archive:
        for item in given:
            archive.writestr(item.name, item.content)
    monkeypatch.setattr(recognized, "FORMATS", (FORMAT, *FORMATS))
    assert data.describe(tmp_path / "birds.zip", options=NO_TEST).counts == {"train": 200}
    train = data.open(tmp_path / "birds.zip", options=NO_TEST).train
    assert train.class_names == CLASSES and train.raw([7]).shape == (1, 9, 12, 3)


# -- tables


def table(place: Path, edit: Callable[[list[dict[str, str]]], object], **options: str) -> str:
    """What is said of a table after an edit of its rows."""
    given = items(6, 3)
    as_folder(place, given)
    changed = rows(given)
    edit(changed)
    with (place / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(changed[0]))
        writer.writeheader()
        writer.writerows(changed)
    return refused(lambda: data.open(place / "t.csv", options=ReadOptions(**options)))


WRONG_TABLES = {
    "a missing file": (
        lambda rows: rows[2].update(file_name="gone.jpg"),
        ("row 4", "'file_name'", "gone.jpg", "no such file"),
    ),
    "a duplicate": (
        lambda rows: rows[2].update(file_name=rows[0]["file_name"]),
        ("row 4", "again, after row 2"),
    ),
    "the same file by another path": (
        lambda rows: rows[2].update(file_name="./train/../" + rows[0]["file_name"]),
        ("row 4", "again, after row 2"),
    ),
    "out of the folder": (
        lambda rows: rows[1].update(file_name="train/../../x.jpg"),
        ("row 3", "leaves the table's folder", "from the root"),
    ),
    "an empty path": (lambda rows: rows[1].update(file_name=" "), ("row 3", "'file_name'")),
    "an empty label": (
        lambda rows: rows[1].update(label=""),
        ("row 3", "'label'", "is empty (1 such)"),
    ),
    "no split": (lambda rows: rows[1].update(split="trian"), ("row 3", "'trian'", "no split")),
    "a class of the test part alone": (lambda rows: rows[-1].update(label="emu"), ("'emu'",)),
    "no column of paths": (
        lambda rows: [row.update(where=row.pop("file_name")) for row in rows],
        ("no column is called file_name", "found label, split, patient, where", "--path COLUMN"),
    ),
}


@pytest.mark.parametrize("kind", WRONG_TABLES)
def test_wrong_tables_are_refused_by_row_and_column(tmp_path: Path, kind: str) -> None:
    edit, says = WRONG_TABLES[kind]
    said = table(tmp_path, edit)
    for word in ("t.csv", *says):
        assert word in said, said


def test_columns_of_other_names_are_named_by_flags(tmp_path: Path) -> None:
    given = items(9, 3)
    as_folder(tmp_path, given)
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["where", "label", "species", "part", "fold"])
        for item in given:
            writer.writerow([item.name, "x", item.label, item.split, 3])
    options = ReadOptions(path="where", label="species", split="part")
    splits = data.open(tmp_path / "t.csv", options=options)
    assert splits.train.class_names == CLASSES and len(splits.train) == 9
    said = refused(
        lambda: data.open(tmp_path / "t.csv", options=ReadOptions(path="where", label="race"))
    )
    assert "label='race'" in said and "found where, label, species" in said


def test_classes_may_be_columns_of_zeros_and_ones_and_paths_lack_their_ending(
    tmp_path: Path,
) -> None:
    given = items(9, 3)
    as_folder(tmp_path, given)

    def write(row: Callable[[Item], list[object]]) -> Path:
        with (tmp_path / "t.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *CLASSES])
            writer.writerows([item.name.removesuffix(".jpg"), *row(item)] for item in given)
        return tmp_path / "t.csv"

    options = ReadOptions(label=",".join(CLASSES), test_fraction=0.0)
    path = write(lambda item: [f"{item.label == name:.1f}" for name in CLASSES])
    train = data.open(path, options=options).train
    assert [train.class_names[k] for k in train.labels] == [item.label for item in given]
    write(lambda item: [1, *(int(item.label == name) for name in CLASSES[1:])])
    assert "row 3, column 'cat,dog,owl' holds 2 classes" in refused(
        lambda: data.open(path, options=options)
    )
    write(lambda item: ["yes", 0, 0])
    assert "row 2, column 'cat' is 'yes'" in refused(lambda: data.open(path, options=options))


def test_a_path_from_the_root_is_read_there_and_numbers_are_sorted_as_numbers(
    tmp_path: Path,
) -> None:
    given = items(24, 3)
    as_folder(tmp_path / "images", given)
    (tmp_path / "t").mkdir()
    lines = [f"{tmp_path}/images/{item.name};{k % 12}" for k, item in enumerate(given)]
    (tmp_path / "t" / "t.csv").write_text("\n".join(["path;target", *lines]))
    splits = data.open(tmp_path / "t" / "t.csv", options=NO_TEST)
    assert splits.train.class_names == tuple(map(str, range(12)))
    assert splits.train.raw([0]).shape == (1, 9, 12, 3)


def test_folds_are_no_splits_and_labels_may_be_folders(tmp_path: Path) -> None:
    given = items(9, 3)
    as_folder(tmp_path, given)
    text = "".join(
        json.dumps({"file_name": item.name, "fold": k % 3}) + "\n" for k, item in enumerate(given)
    )
    (tmp_path / "metadata.jsonl").write_text(text)
    train = data.open(tmp_path, options=NO_TEST).train
    assert train.class_names == CLASSES and len(train) == 12


# -- other formats


def test_a_test_split_without_labels_is_left_out_and_counted(tmp_path: Path) -> None:
    given = [
        item if item.split == "train" else Item(item.split, "", item.name, item.content, item.unit)
        for item in items(9, 3)
    ]
    info = data.describe(as_csv(tmp_path, given))
    assert info.counts.keys() == {"train", "test"} and info.counts["test"] < 9
    assert info.left_out == {"records of the test split, which has no labels": 3}


def test_records_without_names_are_known_by_their_position(tmp_path: Path) -> None:
    given = [Item(item.split, item.label, "a.jpg", item.content, item.unit) for item in items(9, 3)]
    pytest.importorskip("pyarrow")
    info = data.describe(WRITERS["parquet"].write(tmp_path, given), validation=0.3)
    assert info.by_position


WRONG_FILES = {
    "a compressed tar": ("x.tar.gz", b"\x1f\x8b\x08" + bytes(600), ("compressed", "plain .tar")),
    "no tar": ("x.tar", b"nothing of the kind" * 100, ("cannot be read as tar",)),
    "no TFRecord": ("x.tfrecord", b"nothing of the kind" * 100, ("record 0", "no TFRecord")),
    "a compressed TFRecord": ("x.tfrecord", b"\x1f\x8b\x08" + bytes(600), ("compressed",)),
    "no ArrayRecord": ("x.array_record", b"nothing" * 100, ("cannot be read as ArrayRecord",)),
    "no Parquet": ("x.parquet", b"PAR1 nothing PAR1" * 100, ("cannot be read as Parquet",)),
    "an empty table": ("x.csv", b"", ("first row is empty",)),
    "a head alone": ("x.csv", b"path,label\n", ("has no rows",)),
    "a short row": ("x.csv", b"path,label\nx.jpg\n", ("row 2 has 1 entries",)),
    "one column twice": ("x.csv", b"path,path\n", ("'path' twice",)),
    "UTF-16": ("x.csv", "path,label\n".encode("utf-16"), ("is not UTF-8",)),
    "no JSON": ("x.jsonl", b'{"path": "a", "label": 1}\n{', ("row 2 is no JSON",)),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_what_is_not_of_its_format_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    name, content, says = WRONG_FILES[kind]
    pytest.importorskip(
        "array_record" if "Array" in kind else "pyarrow" if "Parquet" in kind else "PIL"
    )
    (tmp_path / name).write_bytes(content)
    said = refused(lambda: data.open(tmp_path / name))
    for word in (name, *says):
        assert word in said, said


def test_two_images_in_a_record_are_told_apart_by_name(tmp_path: Path) -> None:
    import io
    import tarfile

    given = items(9, 3)
    path = as_tar(tmp_path, given) / "train-000000.tar"
    with tarfile.open(path, "a") as archive:
        for item in given[0:9:2]:
            member = tarfile.TarInfo(item.name.removesuffix("jpg") + "mask.png")
            member.size = 5
            archive.addfile(member, io.BytesIO(b"mask!"))
    assert "has the images jpg, mask.png; name one with --path jpg" in refused(
        lambda: data.open(tmp_path)
    )
    assert len(data.open(tmp_path, options=ReadOptions(path="jpg")).train) == 9


def test_shards_whose_split_is_not_to_be_seen_are_refused(tmp_path: Path) -> None:
    as_tar(tmp_path, items(9, 3))
    (tmp_path / "test-000000.tar").rename(tmp_path / "more.tar")
    assert "does not say to which split" in refused(lambda: data.open(tmp_path))


@pytest.mark.slow
def test_a_name_of_the_hub_is_read_through_datasets(
    tmp_path: Path, given: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network: `datasets` takes a folder for the name of a data set, too."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place = WRITERS["parquet"].write(tmp_path / "birds", given)
    splits = data.open(f"hf:{place}")
    assert splits.train.class_names == CLASSES and len(splits.train) == 160
    assert splits.train.records is not None and splits.train.records.read(0) == given[0].content
