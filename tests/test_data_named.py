"""Named data sets, from every layout they come in."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from data_helpers import (
    cifar_files,
    cifar_parts,
    joined,
    labeled_images,
    tar_gz,
    write_files,
    write_idx,
)

from sfumato import data
from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.named import default_data_dir

FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}


@pytest.fixture(autouse=True)
def no_default_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "default"))


def check(
    name: str, data_dir: Path, expected: dict[str, tuple[np.ndarray, np.ndarray]], **more
) -> data.Splits:
    """Open and describe agree with each other and with the arrays that were written."""
    splits = data.open(name, data_dir=data_dir, download=False, **more)
    info = data.describe(name, data_dir=data_dir, **more)
    assert info.counts == {
        k: len(v) for k in ("train", "validation", "test") if (v := getattr(splits, k))
    }
    assert info.shape == splits.train.shape and info.classes == splits.train.class_names
    for split, (images, labels) in expected.items():
        source = getattr(splits, split)
        assert (source.name, source.split) == (name, split)
        np.testing.assert_array_equal(source.labels, labels)
        np.testing.assert_array_equal(
            source.raw(np.arange(len(source))), images.reshape(len(images), *source.shape)
        )
    return splits


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize(("joint", "ending"), [("-", ".gz"), (".", "")])
def test_idx(tmp_path: Path, name: str, place: str, joint: str, ending: str) -> None:
    place = (
        place.replace("MNIST", "FashionMNIST").replace("mnist", "fashion-mnist")
        if name != "mnist"
        else place
    )
    check(name, tmp_path, write_idx(tmp_path / place, joint, ending))


def damage_idx(content: bytes, how: str) -> bytes:
    return {
        "magic": b"\0\0\x0d\x03" + content[4:],
        "truncated": content[:-1],
        "longer": content + b"x",
        "header": content[:6],
        "huge": content[:4] + b"\xff" * 12 + content[16:],
        "empty": b"",
    }[how]


@pytest.mark.parametrize("how", ["magic", "truncated", "longer", "header", "huge", "empty"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_damaged_idx_is_named(tmp_path: Path, how: str, ending: str) -> None:
    write_idx(tmp_path, ending=ending)
    path = tmp_path / f"train-images-idx3-ubyte{ending}"
    content = gzip.decompress(path.read_bytes()) if ending else path.read_bytes()
    damaged = damage_idx(content, how)
    path.write_bytes(gzip.compress(damaged) if ending else damaged)
    with pytest.raises(DataError, match=path.name) as caught:
        data.open("mnist", data_dir=tmp_path, download=False)
    assert "\n" not in str(caught.value)


def test_a_cut_gzip_stream_and_differing_counts_are_named(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=path.name):
        data.open("mnist", data_dir=tmp_path, download=False)
    path.write_bytes((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())
    with pytest.raises(DataError, match=r"10 images, but train-labels-idx1-ubyte.gz has 20 labels"):
        data.describe("mnist", data_dir=tmp_path)


def test_fashion_files_are_not_taken_for_mnist(tmp_path: Path) -> None:
    write_idx(tmp_path, ending="")
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(
        labels.read_bytes()[:8] + bytes(data.published("fashion_mnist").first_test_labels)
    )
    assert data.describe("fashion_mnist", data_dir=tmp_path).counts == {"train": 20, "test": 10}
    with pytest.raises(DataError, match="not found"):
        data.describe("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("form", ["folder", "archive", "inside", "variant"])
def test_cifar(tmp_path: Path, name: str, form: str) -> None:
    files, folder = cifar_files(name), FOLDERS[name]
    if form == "archive":
        archive = name.replace("cifar", "cifar-") + "-binary.tar.gz"
        (tmp_path / archive).write_bytes(tar_gz(folder, files))
    else:
        write_files(
            tmp_path / {"folder": folder, "inside": "", "variant": f"{name}/{folder}"}[form], files
        )
    check(name, tmp_path, {split: joined(parts) for split, parts in cifar_parts(name).items()})


@pytest.mark.parametrize("place", ["cifar-10-python.tar.gz", "cifar10/cifar-10-python.tar.gz"])
def test_the_python_archive_of_cifar_is_refused_with_the_name_of_the_binary_one(
    tmp_path: Path, place: str
) -> None:
    write_files((tmp_path / place).parent, {"cifar-10-python.tar.gz": b"pickles"})
    with pytest.raises(DataError, match=r"python.tar.gz is not read.*cifar-10-binary.tar.gz") as it:
        data.open("cifar10", data_dir=tmp_path, download=False)
    assert "\n" not in str(it.value)


def test_a_label_that_no_class_has_is_named(tmp_path: Path) -> None:
    files = cifar_files("cifar10")
    write_files(tmp_path, files | {"data_batch_2.bin": b"\x4d" + files["data_batch_2.bin"][1:]})
    with pytest.raises(DataError, match="labels=77") as caught:
        data.open("cifar10", data_dir=tmp_path, download=False)
    assert "\n" not in str(caught.value)


def test_truncated_and_missing_cifar_files_are_named(tmp_path: Path) -> None:
    files = cifar_files("cifar10")
    write_files(tmp_path / "a", files | {"data_batch_4.bin": files["data_batch_4.bin"][:-1]})
    with pytest.raises(DataError, match=r"data_batch_4.bin.*truncated"):
        data.describe("cifar10", data_dir=tmp_path / "a")
    del files["test_batch.bin"]
    write_files(tmp_path / "b", files)
    (tmp_path / "c").mkdir()
    archive = tar_gz("cifar-10-batches-bin", files)
    (tmp_path / "c" / "cifar-10-binary.tar.gz").write_bytes(archive)
    for place in ("b", "c"):
        with pytest.raises(DataError, match=r"test_batch.bin is missing"):
            data.open("cifar10", data_dir=tmp_path / place, download=False)
    (tmp_path / "c" / "cifar-10-binary.tar.gz").write_bytes(archive[: len(archive) // 2])
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: cannot be read"):
        data.open("cifar10", data_dir=tmp_path / "c", download=False)


def test_digits_need_no_file_and_split_by_hash() -> None:
    splits = check("digits", Path("nowhere"), {}, validation=0.1)
    assert splits.validation is not None and splits.test is not None
    sizes = [len(splits.train), len(splits.validation), len(splits.test)]
    assert sum(sizes) == data.published("digits").images == 1797
    assert splits.train.shape == (8, 8, 1) and splits.train.raw([0]).dtype == np.uint8
    assert splits.train.raw(np.arange(sizes[0])).max() == 255
    other = data.open("digits", options=data.ReadOptions(seed=1))
    assert (
        len(other.train) != sizes[0] + sizes[1] or (other.train.labels != splits.train.labels).any()
    )


def test_validation_comes_off_training_and_leaves_test_alone(tmp_path: Path) -> None:
    write_files(tmp_path, cifar_files("cifar10"))
    test = joined(cifar_parts("cifar10")["test"])
    splits = check("cifar10", tmp_path, {"test": test}, validation=0.3)
    assert splits.validation is not None and splits.validation.split == "validation"
    assert len(splits.train) + len(splits.validation) == 50


def test_arrays_can_be_resized_and_made_gray(tmp_path: Path) -> None:
    write_files(tmp_path, cifar_files("cifar10"))
    splits = check("cifar10", tmp_path, {}, options=data.ReadOptions(resize=16, gray=True))
    assert splits.train.raw([0, 1]).shape == (2, 16, 16, 1) and splits.train.raw([]).shape == (
        0,
        16,
        16,
        1,
    )


def test_the_table_answers_without_any_file() -> None:
    assert data.names() == ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")
    for name in data.names():
        row = data.published(name)
        assert row.images > 0 and row.license and row.address and len(set(row.classes)) in (10, 100)
        assert all(len(file.md5) == 32 for file in row.files)
    with pytest.raises(ArgumentError, match="cifar11"):
        data.published("cifar11")


def test_an_unknown_name_and_a_data_dir_that_is_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"data='cifar11'.*named data sets are digits, mnist"):
        data.open("cifar11")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArgumentError, match="data_dir"):
        data.open("cifar10", data_dir=tmp_path / "file", download=False)


def test_where_data_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write_idx(tmp_path / "default" / "mnist")
    check("mnist", tmp_path / "elsewhere", expected)
    assert default_data_dir() == tmp_path / "default"
    monkeypatch.delenv("SFUMATO_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_data_dir() == tmp_path / "cache" / "sfumato" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_data_dir() == Path.home() / ".cache" / "sfumato" / "data"


# --- .npz ---


def npz(path: Path, **changes) -> Path:
    images, labels = labeled_images(60, (6, 5, 3), 3)
    arrays = {
        "x_train": images[:40],
        "y_train": labels[:40],
        "x_test": images[40:],
        "y_test": labels[40:],
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_npz(tmp_path: Path) -> None:
    path = npz(tmp_path / "mine.npz")
    info, splits = data.describe(str(path)), data.open(str(path))
    assert (
        info.counts == {"train": 40, "test": 20}
        and info.shape == (6, 5, 3)
        and info.classes == ("0", "1", "2")
    )
    assert splits.test is not None and splits.train.name == "mine" and splits.test.split == "test"
    with np.load(path) as stored:
        np.testing.assert_array_equal(splits.test.raw(np.arange(20)), stored["x_test"])
    alone = npz(tmp_path / "alone.npz", x_test=None, y_test=None)
    splits = data.open(str(alone), validation=0.2)
    assert splits.test and splits.validation
    counts = {
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
    }
    assert data.describe(str(alone), validation=0.2).counts == counts and sum(counts.values()) == 40


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_train": None}, "has no y_train"),
        ({"y_test": None}, "has no y_test"),
        ({"X_test": np.zeros(1)}, "X_test would not be read"),
        ({"y_train": np.zeros(40, int), "y_test": np.zeros(20, int)}, "only one class"),
        ({"y_test": np.full(20, 7)}, "y_test=7: not one of the classes of y_train"),
        ({"y_train": np.zeros(39, int)}, "39"),
        ({"x_train": np.zeros((40, 9))}, "x_train has shape"),
        ({"x_test": np.zeros((20, 6, 6, 3), np.uint8)}, "store one size"),
        ({"x_train": np.zeros((40, 6, 5, 3), np.int64)}, "uint8"),
        ({"y_train": np.array([{}] * 40)}, "y_train cannot be read"),
        ({"y_train": np.linspace(0, 1, 40), "x_test": None, "y_test": None}, "y_train"),
    ],
)
def test_bad_npz_is_refused_in_one_line(tmp_path: Path, changes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        data.open(str(npz(tmp_path / "bad.npz", **changes)))
    assert "\n" not in str(caught.value) and "bad.npz" in str(caught.value)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        data.open(str(tmp_path / "a.npz"))
    with pytest.raises(ArgumentError, match="no such folder or file"):
        data.open(str(tmp_path / "missing.npz"))
    floats = npz(
        tmp_path / "f.npz", x_train=np.zeros((40, 6, 5, 3)), x_test=np.zeros((20, 6, 5, 3))
    )
    with pytest.raises(ArgumentError, match="resize=4"):
        data.open(str(floats), options=data.ReadOptions(resize=4))
