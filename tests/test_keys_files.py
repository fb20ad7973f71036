"""Keys: secret, reproducible, independent per name. Files: whole or absent."""

import os
import stat

import numpy as np
import pytest
from chance import share_nothing
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core import files
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.files import read_json, write_atomic, write_json
from sfumato.core.keys import SecretKey, _derive, destroy, public_stream
from sfumato.core.trees import leaf_names

KEY = SecretKey.from_insecure_seed(1)
names = st.lists(st.one_of(st.text(max_size=6), st.integers(-3, 300)), max_size=4).map(tuple)


def draw(key, *name, size=4):
    return key.stream(*name).integers(2**63, size=size).tolist()


# -- streams


def test_a_stream_is_the_same_on_every_call_and_different_for_every_name_and_key():
    assert draw(KEY, "noise", 17, "w") == draw(KEY, "noise", 17, "w")
    other = SecretKey.from_insecure_seed(2)
    streams = [
        draw(k, *n)
        for k in (KEY, other)
        for n in (("a",), ("b",), ("a", 0), ("a", "0"), ("a", 1), ("0", "a"), ())
    ]
    assert len({tuple(s) for s in streams}) == len(streams)


def test_at_is_a_prefix_of_the_name():
    assert draw(KEY.at("a", 3), "b") == draw(KEY, "a", 3, "b") == draw(KEY.at("a").at(3), "b")
    assert KEY.at("x").insecure
    assert KEY.at("x").fingerprint == KEY.fingerprint


@settings(max_examples=300, deadline=None)
@given(names, names)
def test_different_names_never_derive_the_same_bytes(one, two):
    same_name = [(type(p), p) for p in one] == [(type(p), p) for p in two]
    assert (_derive(b"k" * 32, one, 16) == _derive(b"k" * 32, two, 16)) == same_name


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_where_a_name_is_cut_matters(text, i, j):
    i, j = min(i, len(text)), min(j, len(text))
    one, two = (text[:i], text[i:]), (text[:j], text[j:])
    assert (_derive(b"k" * 32, one, 16) == _derive(b"k" * 32, two, 16)) == (i == j)


def test_a_numpy_step_number_names_the_same_stream_as_a_python_one():
    assert draw(KEY, "sample", np.int64(3)) == draw(KEY, "sample", 3) != draw(KEY, "sample", "3")


def test_streams_are_uncorrelated():
    """False alarms: 1e-9."""
    assert share_nothing(np.stack([KEY.stream("s", i).standard_normal(4000) for i in range(20)]))


def test_public_and_secret_streams_differ_and_public_ones_depend_on_the_seed():
    one, two = public_stream(1, "a").integers(2**63), public_stream(2, "a").integers(2**63)
    assert len({int(one), int(two), draw(KEY, "a")[0]}) == 3
    assert public_stream(1, "a").integers(2**63) == one


def test_entropy_keys_are_256_bits_secure_and_all_different():
    keys = [SecretKey.from_entropy() for _ in range(50)]
    assert len({k._master for k in keys}) == 50
    assert all(len(k._master) == 32 and not k.insecure for k in keys)


def test_repr_and_fingerprint_hide_the_key():
    key = SecretKey.from_entropy()
    shown = repr(key) + str(key) + key.fingerprint
    assert all(key._master.hex()[i : i + 8] not in shown for i in range(0, 57))
    assert "insecure" in repr(KEY)
    assert "insecure" not in repr(key)


def test_a_mac_of_chosen_data_is_never_the_seed_of_a_stream():
    """Otherwise publishing the fingerprint of a data set could publish the key of a noise stream."""
    for name in [("fingerprint",), ("noise", "w")]:
        encoded = b"".join(b"s" + len(p).to_bytes(8, "big") + p.encode() for p in name)
        assert KEY.mac(encoded) != _derive(KEY._master, name, 16).hex()


# -- the key file


def test_the_key_file_is_owner_only_whatever_the_umask_and_never_overwritten(tmp_path):
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        KEY.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    with pytest.raises(FileExistsError):
        SecretKey.from_entropy().save(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("key", [KEY, SecretKey.from_entropy()])
def test_a_loaded_key_has_the_same_streams_and_marker(tmp_path, key):
    key.save(tmp_path / "key")
    loaded = SecretKey.load(tmp_path / "key")
    assert (loaded.fingerprint, loaded.insecure) == (key.fingerprint, key.insecure)
    assert draw(loaded, "noise", 1) == draw(key, "noise", 1)


def test_the_key_is_on_disk_before_save_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    KEY.save(tmp_path / "key")
    assert synced[0] == (tmp_path / "key").stat().st_size
    assert len(synced) == 2  # the file, then its directory


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret",
        b"secret zz",
        b"secret 00",
        b"hidden " + b"00" * 32,
        b"secret 00 00",
        b"\xff\xfe",
        b"\0" * 72,
    ],
)
def test_a_damaged_key_file_is_refused(tmp_path, content):
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(RunError, match="not a key file"):
        SecretKey.load(tmp_path / "key")


def test_a_missing_key_file_says_that_the_run_cannot_be_resumed(tmp_path):
    with pytest.raises(RunError, match="missing"):
        SecretKey.load(tmp_path / "key")


def test_destroy_overwrites_then_removes_and_may_be_repeated(tmp_path):
    path, twin = tmp_path / "key", tmp_path / "same blocks"
    KEY.save(path)
    os.link(path, twin)  # keeps the inode, so that we can look at what destroy left in it
    destroy(path)
    destroy(path)
    assert not path.exists()
    assert set(twin.read_bytes()) == {0}


def test_destroy_bears_that_another_process_is_quicker(tmp_path, monkeypatch):
    path, fsync = tmp_path / "key", os.fsync
    KEY.save(path)
    monkeypatch.setattr(os, "fsync", lambda handle: (path.unlink(missing_ok=True), fsync(handle)))
    destroy(path)
    assert not path.exists()


# -- files


def test_write_atomic_replaces_and_syncs_file_and_directory(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomic(path, "old")
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomic(path, b"new")
    assert path.read_text() == "new"
    assert calls == ["fsync", "replace", "fsync"]
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, broken):
    path = tmp_path / "f"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="power cut"):
        write_atomic(path, "new" * 1000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_write_atomic_gives_the_mode_asked_for(tmp_path):
    write_atomic(tmp_path / "f", "x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def flushed(monkeypatch):
    """What is flushed from here on, by inode."""
    seen, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (seen.append(os.fstat(handle).st_ino), fsync(handle))
    )
    return seen


def test_new_directories_are_entries_of_flushed_parents(tmp_path, monkeypatch):
    seen = flushed(monkeypatch)
    for _ in range(2):
        files.make_directory(tmp_path / "a" / "b" / "c")
    assert (
        set(seen)
        == {each.stat().st_ino for each in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")}
        and len(seen) == 3
    )


def test_an_appended_line_is_flushed_and_so_is_a_new_file_s_entry(tmp_path, monkeypatch):
    seen, path = flushed(monkeypatch), tmp_path / "lines"
    files.append_json(path, {"a": 1})
    assert seen == [path.stat().st_ino, tmp_path.stat().st_ino]
    files.append_json(path, {"a": 2})
    assert seen[2:] == [path.stat().st_ino]
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_a_half_written_line_is_taken_back(tmp_path, monkeypatch):
    path, write = tmp_path / "lines", os.write
    files.append_json(path, {"a": 1})

    def short(handle, line):
        monkeypatch.setattr(os, "write", fail)
        return write(handle, line[:3])

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space"):
        files.append_json(path, {"a": 2})
    assert path.read_text() == '{"a": 1}\n'


def test_what_a_killed_write_left_can_be_swept_away(tmp_path, monkeypatch):
    left, replace = [], os.replace
    monkeypatch.setattr(
        os, "replace", lambda aside, path: (left.append(aside), replace(aside, path))
    )
    write_atomic(tmp_path / "f", "new")
    (tmp_path / "f").rename(left[0])  # as if killed before the rename
    (tmp_path / "kept.tmp").touch()
    files.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["kept.tmp"]


def test_json_round_trips_and_refuses_nan(tmp_path):
    write_json(tmp_path / "f", {"a": [1, 0.1]})
    assert read_json(tmp_path / "f") == {"a": [1, 0.1]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "f", float("nan"))
    assert read_json(tmp_path / "f") == {"a": [1, 0.1]}
    files.remove_directory(tmp_path / "never was")


# -- leaf names: the noise streams are named by them


def test_leaf_names_tell_every_leaf_apart_or_refuse():
    assert leaf_names({"a": [1.0, 2.0], "b": {"c": 3.0}}) == ["a/0", "a/1", "b/c"]
    assert leaf_names(1.0) == ["value"]
    with pytest.raises(ArgumentError, match="a/b"):
        leaf_names({"a": {"b": 1.0}, "a/b": 2.0})
