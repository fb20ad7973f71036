"""A folder of image files: what is in it, how each kind of file is decoded, what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import labeled_images, write_folder
from PIL import Image
from run_helpers import succeeds

from sfumato import data
from sfumato.core.errors import ArgumentError, DataError
from sfumato.data import ReadOptions, from_records
from sfumato.data.decode import decode_file

NO_TEST = ReadOptions(test_fraction=0.0)


def in_one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(params=["preloaded", "lazy"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "lazy":
        monkeypatch.setattr(from_records, "KEPT_BYTES", 0)


def test_class_folders(tmp_path: Path, reading: None) -> None:
    pixels = write_folder(tmp_path / "pets", {"dog": 30, "cat": 20, "10": 10, "9": 3})
    (tmp_path / "pets" / ".hidden").mkdir()
    (tmp_path / "pets" / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("x")
    splits = data.open(str(tmp_path / "pets"), options=NO_TEST)
    assert splits.train.class_names == ("10", "9", "cat", "dog") and splits.train.name == "pets"
    assert splits.test is None and splits.validation is None and splits.skipped == ()
    paths = sorted(pixels, key=lambda path: (path.split("/")[0], path.split("/")[1]))
    np.testing.assert_array_equal(
        splits.train.raw(np.arange(63)), np.stack([pixels[path] for path in paths])
    )
    assert [splits.train.class_names[k] for k in splits.train.labels] == [
        path.split("/")[0] for path in paths
    ]
    assert splits.train.raw([]).shape == (0, 8, 6, 3)
    assert splits.train.raw([5, 2]).dtype == np.uint8


def test_describe_agrees_with_open_and_the_split_is_by_file_name(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 30, "b": 40})
    info = data.describe(str(tmp_path), validation=0.2)
    splits = data.open(str(tmp_path), validation=0.2)
    assert splits.test is not None and splits.validation is not None
    assert info.counts == {
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
    }
    assert info.shape == splits.train.shape and info.classes == ("a", "b") and info.unit == "image"

    def known(source: data.Source) -> set[bytes]:
        return {source.raw([k]).tobytes() for k in range(len(source))}

    earlier = [known(side) for side in (splits.train, splits.validation, splits.test)]
    gone = tmp_path / "a" / "17.png"
    lost = np.asarray(Image.open(gone)).tobytes()
    gone.unlink()
    after = data.open(str(tmp_path), validation=0.2)
    assert after.test is not None and after.validation is not None
    now = [known(side) for side in (after.train, after.validation, after.test)]
    assert now == [before - {lost} for before in earlier]


def test_train_and_test_folders(tmp_path: Path, reading: None) -> None:
    write_folder(tmp_path / "train", {"a": 4, "b": 5})
    pixels = write_folder(tmp_path / "test", {"b": 3})
    splits, info = data.open(str(tmp_path)), data.describe(str(tmp_path))
    assert info.counts == {"train": 9, "test": 3}
    assert (
        splits.test is not None
        and splits.test.labels.tolist() == [1, 1, 1]
        and splits.test.split == "test"
    )
    np.testing.assert_array_equal(splits.test.raw([2])[0], pixels["b/2.png"])
    shutil.rmtree(tmp_path / "test")  # a share of train/ is then held out
    splits = data.open(str(tmp_path), options=ReadOptions(test_fraction=0.4))
    assert splits.test is not None and len(splits.train) + len(splits.test) == 9


# --- kinds of files ---


def smooth(h: int = 12, w: int = 9) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    return np.stack([20 * y, 25 * x, 10 * (x + y)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".jpg", ".JPEG"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    options = {
        ".webp": {"lossless": True},
        ".jpg": {"quality": 100, "subsampling": 0},
        ".JPEG": {"quality": 100},
    }
    Image.fromarray(smooth()).save(path, **options.get(suffix, {}))
    error = np.abs(decode_file(path, ReadOptions()).astype(int) - smooth())
    assert error.max() <= {".jpg": 6, ".JPEG": 40}.get(suffix, 0)


def test_gray_palette_and_two_colored_files_become_rgb(tmp_path: Path) -> None:
    gray = smooth()[..., 2]
    for name, image in {
        "L": Image.fromarray(gray),
        "P": Image.fromarray(gray).convert("P"),
        "LA": Image.merge("LA", [Image.fromarray(gray), Image.new("L", (9, 12), 255)]),
    }.items():
        image.save(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(
            decode_file(tmp_path / f"{name}.png", ReadOptions()), np.stack([gray] * 3, -1)
        )
        np.testing.assert_array_equal(
            decode_file(tmp_path / f"{name}.png", ReadOptions(gray=True)), gray[..., None]
        )
    Image.fromarray(gray > 100).save(tmp_path / "1.png")
    np.testing.assert_array_equal(
        decode_file(tmp_path / "1.png", ReadOptions(gray=True))[..., 0], 255 * (gray > 100)
    )


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, :, 3] = 255  # opaque black above, transparent black below
    Image.fromarray(rgba).save(tmp_path / "a.png")
    palette = Image.fromarray(np.array([[0, 0, 0], [1, 1, 1]], np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "b.png", transparency=palette.getpixel((0, 1)))
    half = rgba.copy()
    half[1, :, 3] = 128
    Image.fromarray(half).save(tmp_path / "c.webp", lossless=True, exact=True)
    expected = np.repeat(np.array([[[0]], [[255]]], np.uint8), 3, axis=1)
    for name in ("a.png", "b.png"):
        np.testing.assert_array_equal(
            decode_file(tmp_path / name, ReadOptions(gray=True)), expected
        )
    assert decode_file(tmp_path / "c.webp", ReadOptions())[1, 0, 0] == 127


def test_sixteen_bits_keep_their_high_part(tmp_path: Path) -> None:
    samples = np.array([[0, 257, 128, 129], [65535, 32768, 65406, 1000]], np.uint16)
    Image.fromarray(samples).save(tmp_path / "a.png")
    expected = np.rint(samples / 257).astype(np.uint8)
    np.testing.assert_array_equal(
        decode_file(tmp_path / "a.png", ReadOptions(gray=True))[..., 0], expected
    )
    np.testing.assert_array_equal(decode_file(tmp_path / "a.png", ReadOptions())[..., 1], expected)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, undo) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        Image.fromarray(smooth()).save(tmp_path / kind / "x.png", exif=exif)
    expected = undo(smooth())
    splits = data.open(str(tmp_path), options=NO_TEST)
    np.testing.assert_array_equal(splits.train.raw([0])[0], expected)
    assert data.describe(str(tmp_path), options=NO_TEST).shape == expected.shape


def test_resize_takes_the_center_square_and_averages(tmp_path: Path, reading: None) -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 200  # the center square
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Image.fromarray(wide).save(tmp_path / "a" / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "b" / "tall.png")
    for side in (7, 20, 33):
        train = data.open(str(tmp_path), options=ReadOptions(resize=side, test_fraction=0.0)).train
        assert train.shape == (side, side, 3) and train.raw([0, 1]).shape == (2, side, side, 3)
        edge = (
            0 if side == 20 else max(3, side // 6)
        )  # side 20 only crops; else bicubic overshoots near the border
        assert (train.raw([0, 1])[:, edge : side - edge, edge : side - edge] == 200).all()
    checks = (
        np.indices((64, 64)).sum(0) % 2 * 255
    )  # without antialiasing this would come out black or white
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "a" / "checks.png")
    assert (
        abs(
            decode_file(tmp_path / "a" / "checks.png", ReadOptions(resize=8, gray=True)).astype(int)
            - 127
        ).max()
        <= 2
    )


# --- what is refused ---


def test_differing_sizes_name_two_files_and_the_way_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    Image.new("RGB", (7, 7)).save(tmp_path / "b" / "odd.png")
    with pytest.raises(
        DataError, match=r"a/0.png is 6x8 and .*b/odd.png is 7x7.*--resize"
    ) as error:
        data.open(str(tmp_path))
    in_one_line(error)


@pytest.mark.parametrize("resize", [None, 4])
def test_unreadable_files_are_counted_named_and_may_be_skipped(
    tmp_path: Path, reading: None, resize: int | None
) -> None:
    pixels = write_folder(tmp_path, {"a": 5, "b": 5})
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "3.png").write_bytes(b"")
    (tmp_path / "b" / "text.jpg").write_text("no image")
    Image.fromarray(pixels["a/0.png"]).resize((6, 8)).save(tmp_path / "b" / "cut.jpg")
    cut = (tmp_path / "b" / "cut.jpg").read_bytes()
    (tmp_path / "b" / "cut.jpg").write_bytes(cut[:-40])
    bad = ("a/1.png", "b/3.png", "b/cut.jpg", "b/text.jpg")
    for number, name in enumerate(("b/3.png", "b/text.jpg", "a/1.png", "b/cut.jpg")):
        with pytest.raises(
            DataError, match=rf"{name}: cannot be decoded .*--skip-unreadable"
        ) as error:  # two by their headers, two when they are read
            options = ReadOptions(test_fraction=0.0, resize=resize, skip_unreadable=bad[:0])
            splits = data.open(str(tmp_path), options=options)
            assert number >= 2
            splits.train.raw([splits.train.names.tolist().index(name)])
        in_one_line(error)
        if number < 2:
            (tmp_path / name).rename(tmp_path / f"kept{number}")
    for number, name in enumerate(("b/3.png", "b/text.jpg")):
        (tmp_path / f"kept{number}").rename(tmp_path / name)
    assert "4 cannot be decoded" in succeeds("data", "check", tmp_path, "--out", tmp_path / "list")
    for listed in (tmp_path / "list", bad):
        options = ReadOptions(skip_unreadable=listed, test_fraction=0.0, resize=resize)
        splits = data.open(str(tmp_path), options=options)
        assert splits.skipped == bad
        assert splits.train.labels.tolist() == [0] * 4 + [1] * 4
    if resize is None:
        kept = [path for path in sorted(pixels) if path not in splits.skipped]
        np.testing.assert_array_equal(
            splits.train.raw(np.arange(8)), np.stack([pixels[path] for path in kept])
        )
    sides = data.open(str(tmp_path), options=ReadOptions(skip_unreadable=bad, test_fraction=0.5))
    assert sides.test is not None and len(sides.train) + len(sides.test) == 8


def test_nothing_readable_and_one_class_left_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 1})
    (tmp_path / "b" / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match="one class"):
        data.open(str(tmp_path), options=replace(NO_TEST, skip_unreadable=("b/0.png",)))
    for k in range(3):
        (tmp_path / "a" / f"{k}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a/0.png: cannot be decoded"):
        data.open(str(tmp_path), options=NO_TEST)
    assert data.describe(str(tmp_path), options=NO_TEST).shape is None
    with pytest.raises(ArgumentError, match=r"none.png.*no image of this name"):
        data.open(str(tmp_path), options=replace(NO_TEST, skip_unreadable=("none.png",)))


def test_other_formats_and_bombs_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    Image.new("RGB", (6, 8)).save(tmp_path / "gif.gif")
    shutil.move(tmp_path / "gif.gif", tmp_path / "b" / "disguised.png")
    with pytest.raises(DataError, match=r"b/disguised.png: .*\(not an image"):
        data.open(str(tmp_path))
    (tmp_path / "b" / "disguised.png").unlink()
    with pytest.raises(
        DataError,
        match=r"a/0.png: 6 x 8 pixels, of more than 47; raise the limit by --max-pixels 48",
    ):
        data.open(str(tmp_path), options=ReadOptions(max_pixels=47))
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 20
    )  # another's limit is another's matter, and stays
    assert (
        len(data.open(str(tmp_path), options=ReadOptions(max_pixels=48, test_fraction=0.0)).train)
        == 4
    )
    assert Image.MAX_IMAGE_PIXELS == 20


def test_a_file_that_vanishes_later_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_records, "KEPT_BYTES", 0)
    write_folder(tmp_path, {"a": 2, "b": 2})
    train = data.open(str(tmp_path), options=NO_TEST).train
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: can no longer be read"):
        train.images([0, 1])


def build(root: Path, layout: str) -> Path:
    """Each layout is a way to get it wrong."""
    image = {"train": {"a": 2, "b": 2}}
    if layout == "empty":
        root.mkdir()
    elif layout == "stray":
        root.mkdir()
        Image.new("RGB", (2, 2)).save(root / "a.png")
    elif layout == "one class":
        write_folder(root, {"a": 2})
    elif layout == "one full class":
        write_folder(root, {"a": 2, "b": 0})
    elif layout == "empty class":
        write_folder(root, {"a": 2, "b": 2, "c": 0})
        (root / "c" / "x.gif").write_text("x")
    elif layout == "nested":
        write_folder(root, {"a": 2, "b/deeper": 2})
    elif layout == "no train":
        write_folder(root / "test", image["train"])
    elif layout == "file":
        root.write_text("x")
    elif layout != "missing":
        write_folder(root / "train", image["train"])
        write_folder(root / "test", {"c": 1, "a": 1} if layout == "new class" else {})
        (root / "test").mkdir(exist_ok=True)
        if layout == "class called train":
            write_folder(root, {"car": 1})
    return root


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("missing", "no such folder or file"),
        ("file", "this is a file"),
        ("empty", "no images found; expected one sub-folder per class"),
        ("stray", "directly in it"),
        ("one class", "only one class has images ('a')"),
        ("one full class", "only one class has images ('a')"),
        ("empty class", "found .gif instead"),
        ("nested", "this class folder has a folder 'deeper' in it"),
        ("no train", "has no train/"),
        (
            "class called train",
            "the folder 'train' is taken for the train split, not for a class, so 'car' beside it",
        ),
        ("new class", "class 'c' is in test/ but not in train/"),
        ("empty test", "test: no images found"),
    ],
)
def test_bad_folders_are_refused_in_one_line(tmp_path: Path, layout: str, says: str) -> None:
    root = build(tmp_path / "set", layout)
    for ask in (data.open, data.describe):
        with pytest.raises((DataError, ArgumentError)) as error:
            ask(str(root))
        assert says in in_one_line(error) and "set" in str(error.value)


@pytest.mark.parametrize("validation", [-0.1, 1.0, float("nan")])
def test_bad_shares_are_refused(tmp_path: Path, validation: float) -> None:
    with pytest.raises(ArgumentError, match="validation"):
        data.open("digits", validation=validation)


def test_names_do_not_depend_on_how_the_file_system_writes_accents(tmp_path: Path) -> None:
    from sfumato.data.formats.folder import stable
    from sfumato.data.name_column import NameColumn

    assert stable(NameColumn.of(["e\u0301/1.png"])) == NameColumn.of(["\u00e9/1.png"])
    images, _ = labeled_images(1, (2, 2, 3), 1)
    for name in ("a", "weird \n name\udcff"):
        (tmp_path / name).mkdir()
        Image.fromarray(images[0]).save(tmp_path / name / "0.png")
    splits = data.open(str(tmp_path), options=NO_TEST)
    assert len(splits.train) == 2 and splits.train.fingerprint(bytes.hex)
