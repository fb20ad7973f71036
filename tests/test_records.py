"""Encoded images at random: names in little memory, nothing decoded before it is read, what a resume
compares, what is said of an image that cannot be decoded."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import write_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from run_helpers import CLASSES, NETWORK, N, refused, sfumato, succeeds, train_arguments

from sfumato import data
from sfumato.core.errors import ArgumentError, DataError, RunError
from sfumato.core.keys import SecretKey
from sfumato.data import ReadOptions, from_records, records, unreadable, workers
from sfumato.data.copies import Copies, find_copies
from sfumato.data.decode import decode
from sfumato.data.name_column import NameColumn
from sfumato.data.records import FileRecords
from sfumato.privacy.ledger import Ledger
from sfumato.runs import session
from sfumato.runs.directory import RunDirectory

ALL = ReadOptions(test_fraction=0.0)
MAC = SecretKey.from_insecure_seed(1).mac

# -- names


@given(st.lists(st.text(max_size=8) | st.just("\udcff")), st.data())
def test_a_column_is_the_list_it_was_made_of(names: list[str], draw: st.DataObject) -> None:
    column = NameColumn.of(names)
    assert column == names and list(column) == names and column.tolist() == names
    at = draw.draw(st.lists(st.integers(-len(names), len(names) - 1))) if names else []
    mask = np.array([len(name) % 2 == 0 for name in names], bool)
    assert column[at] == [names[k] for k in at] == [column[k] for k in at]
    assert column[mask] == [name for name, here in zip(names, mask, strict=True) if here]
    assert column[1::2] == names[1::2]
    assert pickle.loads(pickle.dumps(column[at])) == column[at]


def test_names_as_imagenet_has_them_take_less_than_60_bytes_and_subsets_no_letters() -> None:
    column = NameColumn.of(f"n01440764/n01440764_{k}.JPEG" for k in range(1000))
    assert column.nbytes < 60 * len(column)
    part = column[np.arange(0, 1000, 7)]
    assert part._text is column._text and len(pickle.dumps(part)) < 60 * len(part) + 500


# -- threads


def test_work_is_spread_in_order_a_few_items_ahead_and_its_errors_come_in_their_turn() -> None:
    begun: list[int] = []

    def half(k: int) -> float:
        begun.append(k)
        return 1 / (k - 50) and k / 2

    found = []
    with pytest.raises(ZeroDivisionError):
        for value in workers.spread(half, range(10**9)):
            found.append(value)
            assert max(begun) <= len(found) + (workers.AHEAD + 1) * workers.processors()
    assert found == [k / 2 for k in range(50)]
    assert list(workers.spread(lambda k: sum(workers.spread(int, range(k))), range(9))) == [
        k * (k - 1) // 2 for k in range(9)
    ], "work that spreads work does not wait for itself"


def test_a_forked_process_has_threads_of_its_own() -> None:
    program = (
        "import os; from sfumato.data.workers import spread\n"
        "assert list(spread(abs, [-1])) == [1]\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(list(spread(abs, [-1, -2])) != [1, 2])\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# -- nothing is decoded before it is read


def counting(function: Callable[..., Any], counts: list[int]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        counts[0] += 1
        return function(*arguments)

    return counted


def hard_linked(root: Path, n: int) -> Path:
    """n images in two classes: 16 files under many names."""
    write_folder(root, {"a": 8, "b": 8})
    for k in range(8, n // 2):
        for name in "ab":
            os.link(root / name / f"{k % 8}.png", root / name / f"{k}.png")
    return root


def test_opening_decodes_nothing_reads_few_headers_and_takes_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: calls of functions. Twice the files are at most 2.3 times the calls."""
    decoded, read, calls = [0], [0], []
    monkeypatch.setattr(from_records, "decode", counting(decode, decoded))
    monkeypatch.setattr(records, "read_file", counting(records.read_file, read))
    for n in (600, 1200):
        root = hard_linked(tmp_path / str(n), n)
        called, read[0] = [0], 0
        sys.setprofile(lambda frame, event, argument: called.__setitem__(0, called[0] + 1))  # noqa: B023
        try:
            found = data.find(str(root), None, ReadOptions(test_fraction=0.3), download=False)
            info, splits = found.describe(0.2, ALL), found.open(0.2, ALL)
        finally:
            sys.setprofile(None)
        assert info.counts["train"] == len(splits.train) and len(found.names) == n
        assert read[0] <= from_records.HEADERS + 1 and decoded == [0]
        calls.append(called[0])
    assert calls[1] < 2.3 * calls[0]
    splits.train.fingerprint(MAC), find_copies(splits.train, splits.validation)
    assert decoded == [0] and splits.train.is_bytes
    for _ in range(3):
        splits.train.raw(np.arange(40))
    assert decoded == [40], "kept once decoded"


def test_a_run_decodes_one_image_for_its_shapes_before_the_first_step_is_paid(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {file.read_bytes() for file in folder.rglob("*.png")}
    paid: list[int] = []

    def watched(content: bytes, *others: Any) -> np.ndarray:
        run = tmp_path / "run"  # which is not there while it is found out whether a step fits
        if content in own:  # a thread may still be at images of the test before
            paid.append(Ledger.read(run).releases if run.exists() else 0)
        return decode(content, *others)

    monkeypatch.setattr(from_records, "decode", watched)
    succeeds(*train_arguments(folder, tmp_path / "run"))
    assert paid.count(0) <= 1 and len(paid) == 36, "each image of train/ and test/ once"


# -- pixels


def test_records_give_the_pixels_of_their_files_from_threads_and_copies(tmp_path: Path) -> None:
    pixels = write_folder(tmp_path, {"a": 30, "b": 30})
    train = data.open(str(tmp_path), options=ALL).train
    expected = np.stack([pixels[name] for name in train.names])
    part = train.subset(np.arange(59, -1, -2), "train")
    again = pickle.loads(pickle.dumps(part))
    at = np.array([5, 5, 0, 29])
    for source in (part, again):
        found = list(workers.spread(source.raw, [at] * 20))
        assert all(np.array_equal(each, expected[::-2][at]) for each in found)
        assert [source.records.read(k) for k in (0, 3)] == [
            (tmp_path / source.names[k]).read_bytes() for k in (0, 3)
        ]
        assert source.records.where(3) == str(tmp_path / source.names[3])
    assert again.fingerprint(MAC) == part.fingerprint(MAC) and again.stamp(MAC) == part.stamp(MAC)


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.mark.parametrize(("side", "scaled"), [(40, False), (39, True), (20, True), (9, True)])
def test_a_jpeg_made_smaller_is_decoded_smaller_and_looks_the_same(
    side: int, scaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 x 120 pixels. Scaling by 1/2, 1/4, 1/8 while decoding and exact decoding differ by little; where
    less than half is left, by nothing."""
    y, x = np.mgrid[:80, :120]
    content = jpeg(
        np.stack([2 * y, 2 * x, 128 + 60 * np.sin(x / 9) * np.cos(y / 7)], -1).astype(np.uint8)
    )
    drafted: list[tuple[int, int]] = []
    from PIL.JpegImagePlugin import JpegImageFile

    draft = JpegImageFile.draft

    def watched(self: Any, mode: Any, size: Any) -> Any:
        found = draft(self, mode, size)
        drafted.append(self.size)
        return found

    monkeypatch.setattr(JpegImageFile, "draft", watched)
    found = decode(content, ReadOptions(resize=side)).astype(int)
    assert (drafted[0] != (120, 80)) == (side <= 40) and min(drafted[0]) >= side
    with Image.open(io.BytesIO(content)) as image:
        small = image.resize((round(120 * side / 80), side), Image.Resampling.BICUBIC)
    left = (small.width - side) // 2
    exact = np.asarray(small.crop((left, 0, left + side, side))).astype(int)
    assert abs(found - exact).mean() < 2 and found.shape == (side, side, 3)


def test_copies_are_found_by_the_bytes_of_their_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"a": 3, "b": 3})
    write_folder(tmp_path / "test", {"a": 1, "b": 1})
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "train/b/9.png")
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "train/a/9.png")
    splits = data.open(str(tmp_path))
    # test/ is made like the first of train/
    assert find_copies(splits.train, splits.test) == Copies(two_classes=2, repeated=2, shown=2)


# -- what a resume compares


def test_the_fingerprint_is_of_bytes_and_the_stamp_of_their_places(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 5, "b": 5})

    def both() -> tuple[str, str | None]:
        train = data.open(str(tmp_path), options=ALL).train
        return train.fingerprint(MAC), train.stamp(MAC)

    first = both()
    assert both() == first
    file = tmp_path / "b" / "2.png"
    os.utime(file, ns=(0, 0))
    second = both()
    assert second[0] == first[0] and second[1] != first[1], "touched, not changed"
    content, times = bytearray(file.read_bytes()), file.stat().st_mtime_ns
    content[-20] ^= 1
    file.write_bytes(bytes(content))
    os.utime(file, ns=(times, times))  # who sets the time back cannot set the change's back
    third = both()
    assert third[0] != first[0] and third[1] != second[1]
    file.rename(tmp_path / "a" / "9.png")  # another label
    assert len({each[0] for each in (first, third, both())}) == 3


@pytest.mark.slow
def test_a_resume_reads_nothing_where_the_stamp_is_the_same_and_everything_else_where_not(
    interrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    began = json.loads((run / "work/began.json").read_text())
    directory, asked = RunDirectory(run), [0]
    decoder = began["environment"]["decoder"]

    def refuse(stamp: str, fingerprint: str) -> None:
        of = counting(lambda: fingerprint, asked)
        session.refuse_elsewhere(directory, session.Examples(of, stamp, decoder), "images")

    refuse(began["stamp"], "another")
    assert asked == [0]
    refuse("another", began["fingerprint"])
    assert asked == [1]
    with pytest.raises(RunError, match=r"images or secret\.key changed"):
        refuse("another", "another")
    monkeypatch.delattr(records.Records, "digests")
    assert "accuracy" in succeeds("resume", run)


def test_an_old_run_whose_decoder_was_another_is_refused_by_name(
    interrupted: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(interrupted, tmp_path / "run")
    began = json.loads((run / "work/began.json").read_text())
    began["environment"]["decoder"] = "Pillow 12.0.0, libjpeg-turbo 3.1.2"  # as before version 0.2
    del began["stamp"]
    (run / "work/began.json").write_text(json.dumps(began))
    says = ("decoder: it began with Pillow 12.0.0", "since Sfumato 0.2")
    refused(tmp_path, "resume", run, says=says)


def test_a_configuration_of_before_the_list_is_read_or_refused_by_its_version(
    tmp_path: Path,
) -> None:
    file = tmp_path / "asked.json"
    plan = ("train", "--config", file, "--data", "digits", "--dry-run", "--no-estimate")
    file.write_text('{"skip_unreadable": false}')
    assert "epsilon" in succeeds(*plan)
    file.write_text('{"skip_unreadable": true}')
    refused(tmp_path, *plan, says=("skip_unreadable=True", "before version 0.2", "data check"))


# -- images that cannot be decoded


@pytest.mark.slow
def test_an_image_cut_short_is_named_before_its_step_is_summed_and_nothing_is_paid_twice(
    folder: Path, tmp_path: Path
) -> None:
    photos, run, bad = shutil.copytree(folder, tmp_path / "d"), tmp_path / "run", tmp_path / "bad"
    file = photos / "train" / CLASSES[0] / "3.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])  # its header is whole
    command = ("train", "--data", photos, *NETWORK, "--steps", 2, "--batch", N, "--log", "quiet")
    for again in (sfumato(*command, "--out", run), sfumato("resume", run)):
        assert again.code == 2 and again.err.count("\n") == 1, again
        assert (
            f"{CLASSES[0]}/3.png: cannot be decoded" in again.err and "begin a new one" in again.err
        )
        assert Ledger.read(run).releases == 1 and not (run / "work/sums.jsonl").exists()
    assert "1 cannot be decoded" in succeeds("data", "check", photos, "--out", bad)
    plan = ("train", "--data", photos, *NETWORK, "--dry-run", "--no-estimate", "--log", "json")
    assert json.loads(succeeds(*plan, "--skip-unreadable", bad))["n"] == N - 1
    file.write_bytes(whole)
    assert "training images or secret.key changed" in sfumato("resume", run).err


def test_the_list_holds_any_name_and_says_why(tmp_path: Path) -> None:
    names = ["a/1.png", '"quoted"', "# no comment", "tab\there", "new\nline", "\udcff", "é", " "]
    text = unreadable.as_text((name, f"why\n{name}") for name in names)
    (tmp_path / "list").write_text(text, encoding="utf-8")
    assert list(unreadable.names_to_skip(tmp_path / "list")) == names
    assert len(text.splitlines()) == len(names) + 1
    for broken in ('"open', '["x"]'[1:] + '"', "\udcff"):
        (tmp_path / "list").write_bytes(b'"' + broken.encode("utf-8", "surrogateescape"))
        with pytest.raises(ArgumentError, match="cannot be read"):
            unreadable.names_to_skip(tmp_path / "list")
    with pytest.raises(ArgumentError, match="No such file"):
        unreadable.names_to_skip(tmp_path / "none")


def test_check_looks_at_every_image_and_writes_nothing_over(tmp_path: Path) -> None:
    write_folder(tmp_path / "d/train", {"a": 4, "b": 4})
    write_folder(tmp_path / "d/val", {"a": 2, "b": 2})
    (tmp_path / "d/val/b/1.png").write_bytes(b"no image")
    Image.new("RGB", (5, 5)).save(tmp_path / "d/train/a/5.png")
    told = succeeds("data", "check", tmp_path / "d", "--out", tmp_path / "l", "--log", "quiet")
    assert "13 images: 1 cannot be decoded" in told and "2 sizes, most often 6x8 (11)" in told
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o600
    assert "val/b/1.png\tnot an image of a known format\n" in (tmp_path / "l").read_text()
    check = ("data", "check", tmp_path / "d", "--resize", 4, "--out")
    lines = succeeds(*check, tmp_path / "m", "--log", "json").splitlines()
    assert json.loads(lines[-1])["unreadable"] == 1 and json.loads(lines[0])["event"] == "stage"
    refused(tmp_path, *check, tmp_path / "l", says=("exists already",))
    refused(tmp_path, *check, tmp_path / "none/l", says=("no such folder",))
    refused(
        tmp_path, "data", "check", "digits", "--out", tmp_path / "n", says=("no encoded images",)
    )


def test_a_size_that_differs_is_found_when_it_is_read(tmp_path: Path) -> None:
    root = hard_linked(tmp_path / "d", 300)
    (root / "a" / "133.png").unlink()
    Image.new("RGB", (5, 5)).save(root / "a" / "133.png")
    train = data.open(str(root), options=ALL).train
    with pytest.raises(DataError, match=r"a/133.png is 5x5; give one size with --resize"):
        train.raw(np.arange(len(train)))


# -- links


def test_links_are_followed_and_those_that_lead_back_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "store", {"one": 3})
    root = tmp_path / "set"
    write_folder(root, {"a": 3})
    (root / "b").symlink_to(tmp_path / "store" / "one")
    assert len(data.open(str(root), options=ALL).train) == 6
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    with pytest.raises(DataError, match=r"self.png"):
        data.open(str(root), options=ALL)
    (root / "a" / "self.png").unlink()
    for unit in (None, "folder"):
        (root / "c").symlink_to(root)
        with pytest.raises(DataError, match="folder") as error:
            data.open(str(root), options=ReadOptions(unit=unit))
        assert "\n" not in str(error.value)
        (root / "c").unlink()


def test_records_of_files_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    found = FileRecords(tmp_path, NameColumn.of(["x", "gone"]))
    assert found.read(0) == b"abc" and len(found.digest(0)) == 32
    with pytest.raises(DataError, match="gone: can no longer be read"):
        _ = found.digests
    with pytest.raises(DataError, match="gone: can no longer be read"):
        found.stamp()
