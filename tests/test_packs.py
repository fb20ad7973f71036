"""`sfumato data pack`: the same images, resumed shard by shard, checked whenever they are read."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_writers import Item, as_csv, as_folder, items
from hostile_helpers import refused
from run_helpers import succeeds

from sfumato import data
from sfumato.data import ReadOptions
from sfumato.data.formats.packs import MANIFEST, PackRecords, read_pack
from sfumato.runs import packing
from sfumato.runs.packing import pack
from sfumato.runs.progress import Quiet
from sfumato.runs.unpacking import unpack

pytest.importorskip("array_record")
NO_TEST = ReadOptions(test_fraction=0.0)


@pytest.fixture
def given() -> list[Item]:
    return items(24, 9)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards of a few images."""
    monkeypatch.setattr(packing, "SHARD", 7)


def test_images_are_brought_to_one_size_once(
    tmp_path: Path, given: list[Item], small: None
) -> None:
    folder, out = as_folder(tmp_path / "birds", given), tmp_path / "pack"
    told = succeeds("data", "pack", folder, out, "--side", 8, "--log", "quiet")
    assert "24 train, 9 test images" in told and "private" in told
    assert stat.S_IMODE(out.stat().st_mode) == 0o700 and not list(out.glob(".*"))
    found = read_pack(out)
    assert found.shape == (8, 8, 3) and found.counts == {"train": 24, "test": 9}
    assert [each.records for each in found.parts["train"].shards] == [7, 7, 7, 3]
    assert "24 train, 9 test; 8x8x3" in succeeds("data", "info", out)
    packed, resized = data.open(out).train, data.open(folder, options=ReadOptions(resize=8)).train
    assert list(packed.names) == list(resized.names) and (packed.labels == resized.labels).all()
    at = np.arange(24)
    error = np.abs(packed.raw(at).astype(float) - resized.raw(at))
    assert error.mean() < 12, "noise at quality 95, but the same images"


def test_a_run_knows_a_pack_without_reading_an_image(
    tmp_path: Path, given: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = as_csv(tmp_path / "birds", given)
    pack(table, tmp_path / "pack", ReadOptions(unit="patient"))
    options = ReadOptions(test_fraction=0.0, unit="patient")
    mine, theirs = data.open(tmp_path / "pack", options=options), data.open(table, options=options)
    mac = bytes.hex
    expected = theirs.train.fingerprint(mac)
    monkeypatch.setattr(PackRecords, "read", lambda self, k: pytest.fail("an image was read"))
    assert mine.train.fingerprint(mac) == expected, "the encoded bytes, and the units, are the same"
    assert "packed with --unit 'patient'" in refused(
        lambda: data.open(tmp_path / "pack", options=ReadOptions(unit="doctor"))
    )


class Stops(Quiet):
    """Power fails after so many images."""

    def __init__(self, after: int):
        self.after = after

    def advance(self, done: int, **facts: Any) -> None:
        if done == self.after:
            raise KeyboardInterrupt


def test_packing_goes_on_where_it_stopped(tmp_path: Path, given: list[Item], small: None) -> None:
    folder = as_folder(tmp_path / "birds", given)
    pack(folder, tmp_path / "once", NO_TEST, 8)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path / "twice", NO_TEST, 8, progress=Stops(17))
    there = {path.name: path.stat().st_ino for path in (tmp_path / "twice").glob("*.arrayrecord")}
    assert len(there) == 2 and not (tmp_path / "twice" / MANIFEST).exists()
    assert "begun with" in refused(lambda: pack(folder, tmp_path / "twice", NO_TEST, 9))
    pack(folder, tmp_path / "twice", NO_TEST, 8)
    assert {name: (tmp_path / "twice" / name).stat().st_ino for name in there} == there
    once, twice = ((tmp_path / name / MANIFEST).read_text() for name in ("once", "twice"))
    assert once == twice and not (tmp_path / "twice" / packing.PROGRESS).exists()
    assert "exists already" in refused(lambda: pack(folder, tmp_path / "twice", NO_TEST, 8))


def test_a_pack_that_was_changed_is_refused(tmp_path: Path, given: list[Item]) -> None:
    out = tmp_path / "pack"
    pack(as_folder(tmp_path / "birds", given), out, NO_TEST)
    shard, index = out / "train-00000-of-00001.arrayrecord", out / "train.index.safetensors"
    content = shard.read_bytes()
    at = content.index(given[3].content) + 200
    shard.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    said = refused(lambda: data.open(out).train.raw(np.arange(24)))
    assert f"{shard.name}: record" in said, said
    shard.write_bytes(content[:-1])
    assert "is of" in (said := refused(lambda: data.open(out))) and shard.name in said
    shard.write_bytes(content)
    index.write_bytes(index.read_bytes()[:-1] + b"\1")
    assert "SHA-256" in (said := refused(lambda: data.open(out))) and index.name in said


def test_an_image_in_the_place_of_another_is_noticed(tmp_path: Path, given: list[Item]) -> None:
    """The package's own checks would let it pass, and the fingerprint is that of the index."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    out = tmp_path / "pack"
    pack(as_folder(tmp_path / "birds", given), out, NO_TEST)
    shard = out / "train-00000-of-00001.arrayrecord"
    records = ArrayRecordReader(str(shard)).read_all()
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    for record in records[::-1]:
        writer.write(record)
    writer.close()
    facts = json.loads((out / MANIFEST).read_text())
    facts["parts"]["train"]["shards"][0]["bytes"] = shard.stat().st_size
    (out / MANIFEST).write_text(json.dumps(facts))
    said = refused(lambda: data.open(out).train.raw([0]))
    assert f"{shard.name}: record 0: " in said and "another image" in said


@pytest.mark.parametrize(
    "name, value",
    [
        ("sfumato_pack", 2),
        ("classes", "cat"),
        ("parts", {}),
        (
            "parts",
            {
                "train": {
                    "shards": [],
                    "index": {"file": "../x", "bytes": 1, "sha256": "", "records": 1},
                }
            },
        ),
        ("shape", [1, 2]),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    tmp_path: Path, given: list[Item], name: str, value: Any
) -> None:
    out = tmp_path / "pack"
    pack(as_folder(tmp_path / "birds", given), out, NO_TEST)
    facts = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({**facts, name: value}))
    assert MANIFEST in (said := refused(lambda: data.open(out))) or "../x" in said


def test_unpacked_is_what_was_packed(tmp_path: Path, given: list[Item]) -> None:
    folder = as_folder(tmp_path / "birds", given)
    pack(folder, tmp_path / "pack", NO_TEST)
    told = succeeds("data", "unpack", tmp_path / "pack", tmp_path / "again")
    assert "33 images" in told and stat.S_IMODE((tmp_path / "again").stat().st_mode) == 0o700
    files = [
        {path.relative_to(place): path.read_bytes() for path in place.rglob("*.jpg")}
        for place in (folder, tmp_path / "again")
    ]
    assert files[0] == files[1] and len(files[0]) == 33


def test_names_from_others_do_not_lead_out_of_the_folder(tmp_path: Path, given: list[Item]) -> None:
    hostile = [
        Item(
            item.split, ("../../up", "..", "a/b")[item.code], f"../../{k % 2}.jpg", item.content, ""
        )
        for k, item in enumerate(given)
    ]
    from format_writers import as_tfrecord

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("format_writers.CLASSES", ("../../up", "..", "a/b"))
        path = as_tfrecord(tmp_path / "records", hostile)
    assert unpack(path, tmp_path / "deep" / "er", NO_TEST) == 33
    files = list(tmp_path.rglob("*.jpg"))
    assert len(files) == 33
    assert all((tmp_path / "deep" / "er") in path.parents for path in files)


def test_wrong_arguments(
    tmp_path: Path, given: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = as_folder(tmp_path / "birds", given)
    for arguments, says in (((8, 101), "quality=101"), ((0, 95), "side=0")):
        assert says in refused(lambda: pack(folder, tmp_path / "p", NO_TEST, *arguments))  # noqa: B023
    assert "holds no encoded images" in refused(
        lambda: pack(tmp_path / "no", tmp_path / "p", NO_TEST)
    )
    import sys

    monkeypatch.setitem(sys.modules, "array_record.python", None)
    said = refused(lambda: pack(folder, tmp_path / "p", NO_TEST))
    assert "pip install 'sfumato[records]'" in said and not (tmp_path / "p").exists()
