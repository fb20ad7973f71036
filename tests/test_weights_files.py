"""Weight files are read exactly, and what is damaged or hostile is refused: in one line, in bounded
memory, unrun."""

import hashlib
import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch_files import (
    ORDERED_DICT,
    dictionary,
    name,
    number,
    row,
    storage,
    tensor,
    text,
    write_torch,
)

from sfumato.core.errors import WeightsError
from sfumato.weights import read
from sfumato.weights.raw import SUFFIXES

SIX = np.arange(6, dtype=np.float32)
MEMORY = 64 << 20


def refused(path: Path) -> str:
    """The message of a refusal that took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as error:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = str(error.value)
    assert str(path) in said and "\n" not in said and len(said) < 500
    assert peak < MEMORY, f"{peak:,} bytes"
    return said


# -- what is read


def test_safetensors_in_every_precision(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays = {
        "full": SIX.reshape(2, 3),
        "half": SIX.astype(np.float16),
        "brain": SIX.astype(jnp.bfloat16),
        "double": SIX.astype(np.float64),
        "count": np.array(7),
    }
    save_file(arrays, path, metadata={"who": "me"})
    raw = read(path)
    for key, array in arrays.items():
        np.testing.assert_array_equal(raw.arrays[key], array.astype(raw.arrays[key].dtype))
    assert {key: array.dtype.name for key, array in raw.arrays.items()} == {
        "full": "float32",
        "half": "float32",
        "brain": "float32",
        "double": "float64",
        "count": "int64",
    }
    assert raw.metadata == {"who": "me"}
    assert raw.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save) -> None:  # type: ignore[no-untyped-def]
    arrays = {
        "a/b": SIX.reshape(2, 3),
        "columns": np.asfortranarray(SIX.reshape(3, 2)),
        "brain": SIX.astype(jnp.bfloat16),
        "one": np.float32(3),
        "none": np.zeros((0, 4), np.float32),
    }
    save(tmp_path / "a.npz", **arrays)
    found = read(tmp_path / "a.npz").arrays
    assert set(found) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], np.asarray(array, np.float32))


def test_torch_views_of_one_storage(tmp_path: Path) -> None:
    held = storage(6)
    body = dictionary(
        {
            "whole": tensor(held, (2, 3), (3, 1)),
            "turned": tensor(held, (3, 2), (1, 3)),
            "part": tensor(held, (2,), (2,), offset=1),
            "one": tensor(held, (), (), offset=5),
            "none": tensor(held, (0, 9), (9, 1)),
        }
    )
    found = read(write_torch(tmp_path / "a.pth", body, {"0": SIX.tobytes()})).arrays
    np.testing.assert_array_equal(found["whole"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(found["turned"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(found["part"], [1, 3])
    assert found["one"] == 5 and found["none"].shape == (0, 9)


@pytest.mark.parametrize(
    "kind, dtype",
    [
        ("HalfStorage", np.float16),
        ("BFloat16Storage", jnp.bfloat16),
        ("DoubleStorage", np.float64),
        ("LongStorage", np.int64),
        ("ByteStorage", np.uint8),
    ],
)
def test_torch_precisions(tmp_path: Path, kind: str, dtype: type) -> None:
    content = SIX.astype(dtype)
    body = dictionary({"a": tensor(storage(6, kind), (6,), (1,))})
    found = read(write_torch(tmp_path / "a.pt", body, {"0": content.tobytes()})).arrays["a"]
    np.testing.assert_array_equal(found, SIX)
    assert found.dtype == (np.float32 if np.dtype(dtype).itemsize == 2 else dtype)


def test_torch_wrappers_and_prefixes_are_taken_off(tmp_path: Path) -> None:
    plain = tensor(storage(6), (6,), (1,))
    parameter = (
        name("torch._utils", "_rebuild_parameter") + row(plain, b"\x88", ORDERED_DICT) + b"R"
    )
    state = ORDERED_DICT + b"(" + text("module.a") + plain + text("module.b") + parameter + b"u"
    state += dictionary({"_metadata": ORDERED_DICT}) + b"b"  # attributes, as a state dict has them
    body = dictionary(
        {
            "epoch": number(3),
            "state_dict": dictionary({"model": state}),
            "optimizer": dictionary({}),
        }
    )
    assert set(read(write_torch(tmp_path / "a.bin", body, {"0": SIX.tobytes()})).arrays) == {
        "a",
        "b",
    }


def test_an_optimizer_beside_the_state_dict_is_not_read(tmp_path: Path) -> None:
    body = dictionary(
        {
            "model": dictionary({"a": tensor(storage(6), (6,), (1,))}),
            "optimizer": dictionary({"a": tensor(storage(10**12, key="1"), (10**12,), (1,))}),
        }
    )
    assert set(read(write_torch(tmp_path / "a.pth", body, {"0": SIX.tobytes()})).arrays) == {"a"}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_torch_itself_writes(tmp_path: Path, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2).bfloat16()
    )
    state = layers.state_dict()
    state["turned"] = layers[0].weight.detach()[:, 1].permute(2, 1, 0)
    state["parameter"] = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    optimizer = torch.optim.Adam(layers.parameters()).state_dict()
    torch.save(
        {"epoch": 3, "model": state, "optimizer": optimizer},
        tmp_path / "a.pth",
        pickle_protocol=protocol,
    )
    found = read(tmp_path / "a.pth").arrays
    assert set(found) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(
            found[key], value.detach().to(torch.float64).numpy(), strict=False
        )


def test_what_torch_wrote_before_1_6(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = layers.state_dict() | {"turned": layers[0].weight.detach()[:, 1].permute(2, 1, 0)}
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"epoch": 3, "model": state}, tmp_path / "a.pth", **old)
    found = read(tmp_path / "a.pth").arrays
    assert set(found) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(found[key], value.numpy())
    torch.save(layers, tmp_path / "b.pth", **old)
    assert "torch.nn.modules" in refused(tmp_path / "b.pth")


def test_a_pickled_network_of_torch_is_code(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    assert "torch.nn.modules.linear.Linear" in refused(tmp_path / "a.pth")


# -- what is refused


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for body in (
        name("os", "system") + row(text(f"touch {ran}")) + b"R",
        text("os") + text("system") + b"\x93" + row(text(f"touch {ran}")) + b"R",
        dictionary({"state_dict": name("builtins", "eval") + row(text("1")) + b"R"}),
    ):
        said = refused(write_torch(tmp_path / "a.pth", body))
        assert "a pickle with code" in said and "safetensors" in said
    (tmp_path / "b.bin").write_bytes(pickle.dumps({"a": SIX}))
    assert "bare pickle" in refused(tmp_path / "b.bin")
    assert not ran.exists()


HUGE = 10**15
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
HOSTILE = {
    "beyond its storage": tensor(storage(6), (7,), (1,)),
    "beyond by its offset": tensor(storage(6), (6,), (1,), offset=1),
    "beyond by its stride": tensor(storage(6), (2,), (6,)),
    "negative stride": tensor(storage(6), (2,), (-1,), offset=3),
    "negative offset": tensor(storage(6), (2,), (1,), offset=-1),
    "negative size": tensor(storage(6), (-2,), (1,)),
    "one number, repeated": tensor(storage(6), (HUGE,), (0,)),
    "sizes beyond 64 bits": tensor(storage(6), (1 << 63, 1 << 63), (0, 0)),
    "a storage that claims more than it has": tensor(storage(HUGE), (HUGE,), (1,)),
    "a storage that is not there": tensor(storage(6, key="7"), (6,), (1,)),
    "a storage outside": tensor(storage(6, key="../data.pkl"), (6,), (1,)),
    "more strides than sizes": tensor(storage(6), (2,), (1, 1)),
    "sizes that are text": REBUILD
    + row(storage(6), number(0), row(text("6")), row(number(1)))
    + b"R",
    "too few arguments": REBUILD + row(storage(6)) + b"R",
    "no storage": tensor(number(6), (6,), (1,)),
    "an unknown type of number": tensor(storage(6, "QInt8Storage"), (6,), (1,)),
    "attributes of a tensor": tensor(storage(6), (6,), (1,)) + dictionary({}) + b"b",
    "a call of text": text("print") + row() + b"R",
}


@pytest.mark.parametrize("problem", HOSTILE)
def test_hostile_tensors_are_refused(tmp_path: Path, problem: str) -> None:
    refused(
        write_torch(tmp_path / "a.pth", dictionary({"a": HOSTILE[problem]}), {"0": SIX.tobytes()})
    )


LOOP = b"}q\x00" + text("state_dict") + b"h\x00s"
TALL = b")" + b"\x85" * 30_000  # a tuple in a tuple in a tuple ...
WIDE = b")q\x00" + b"".join(
    b"h\x00h\x00\x86q\x00" for _ in range(100)
)  # whose hash takes 2 to the 100 steps
BOMBS = {
    "itself": LOOP,
    "deep": TALL,
    "a deep key": b"}" + TALL + b"Ns",
    "a key without end": b"}" + WIDE + b"Ns",
    "bytes that are not there": b"\x8e" + (1 << 62).to_bytes(8, "little"),
    "text that is not there": b"\x8d" + (1 << 62).to_bytes(8, "little"),
    "a frame that is not there": b"\x95" + (1 << 62).to_bytes(8, "little") + b"}",
    "a long number": b"\x8b" + (1 << 30).to_bytes(4, "little") + b"1",
    "nothing on the stack": b"u",
    "no mark": b"}t",
    "a memo that was never made": b"h\x07",
    "tensors outside a dictionary": tensor(storage(6), (6,), (1,)),
    "an instance": b"(" + name("os", "system").replace(b"c", b"i", 1),
}


@pytest.mark.parametrize("problem", BOMBS)
def test_hostile_pickles_are_refused(tmp_path: Path, problem: str) -> None:
    refused(write_torch(tmp_path / "a.pth", BOMBS[problem], {"0": SIX.tobytes()}))


def test_a_memo_takes_no_more_memory_than_its_entries(tmp_path: Path) -> None:
    body = b"}r\xff\xff\xff\xff0" + dictionary({"a": tensor(storage(6), (6,), (1,))})
    assert "POP" in refused(write_torch(tmp_path / "a.pth", body, {"0": SIX.tobytes()}))
    body = dictionary({"a": tensor(storage(6), (6,), (1,)) + b"r\xff\xff\xff\xff"})
    assert set(read(write_torch(tmp_path / "b.pth", body, {"0": SIX.tobytes()})).arrays) == {"a"}


def test_many_views_of_a_half_storage_do_not_multiply_it(tmp_path: Path) -> None:
    """Each would become an array of its own in float32."""
    views = {str(i): tensor(b"h\x07", (100_000,), (1,)) for i in range(500)}
    body = dictionary(
        {"a": tensor(storage(100_000, "HalfStorage") + b"q\x07", (100_000,), (1,)), **views}
    )
    assert "claim" in refused(write_torch(tmp_path / "a.pth", body, {"0": bytes(200_000)}))


def bomb(claimed: int | None = None) -> bytes:
    """A zip archive of 100 kB that unpacks to 100 MB, and perhaps claims less."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w") as file,
    ):
        for _ in range(100):
            file.write(bytes(1 << 20))
    content = bytearray(buffer.getvalue())
    if claimed is not None:
        at = content.rindex(b"PK\x01\x02")
        content[at + 24 : at + 28] = claimed.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
@pytest.mark.parametrize("claimed", [None, 1_000])
def test_zip_bombs_are_refused(tmp_path: Path, suffix: str, claimed: int | None) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bomb(claimed))
    refused(path)


def test_archives_with_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_torch(
        tmp_path / "a.pth", dictionary({"a": tensor(storage(6), (6,), (1,))}), {"0": SIX.tobytes()}
    )
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("archive/data/0", SIX.tobytes())
    assert "one name" in refused(path)


def npy(header: str, content: bytes = b"") -> bytes:
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(4)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1])),
        npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,)}", bytes(4)),
        npy("__import__('os')"),
        b"nothing",
    ],
)
def test_hostile_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    refused(tmp_path / "a.npz")


def whole(path: Path) -> bytes:
    """A good file of the kind that its name says."""
    if path.suffix == ".safetensors":
        save_file({"a": SIX}, path)
    elif path.suffix == ".npz":
        np.savez(path, a=SIX)
    else:
        write_torch(path, dictionary({"a": tensor(storage(6), (6,), (1,))}), {"0": SIX.tobytes()})
    return path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    content = whole(path)
    for length in {0, 1, 7, 8, 20, len(content) // 2, len(content) - 23, len(content) - 1}:
        path.write_bytes(content[:length])
        refused(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    content = whole(path)

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        st.lists(
            st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4
        )
    )
    def damaged(changes: list[tuple[int, int]]) -> None:
        spoiled = bytearray(content)
        for at, value in changes:
            spoiled[at] = value
        path.write_bytes(spoiled)
        try:
            found = read(path).arrays
        except WeightsError as error:
            assert "\n" not in str(error)
        else:
            assert sum(array.size for array in found.values()) <= 12

    damaged()


def test_a_file_that_is_not_the_pinned_one_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    digest = hashlib.sha256(whole(path)).hexdigest()
    assert read(path, digest).sha256 == digest
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(WeightsError, match="not " + digest):
        read(path, digest)


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "a.npz")
    (tmp_path / "a.h5").write_bytes(b"")
    assert ".safetensors" in refused(tmp_path / "a.h5")
    (tmp_path / "a.pth").mkdir()
    refused(tmp_path / "a.pth")
    save_file({}, tmp_path / "b.safetensors")
    assert "no arrays" in refused(tmp_path / "b.safetensors")
    save_file({"a": np.ones(2, jnp.float8_e4m3fn)}, tmp_path / "c.safetensors")
    assert "F8_E4M3" in refused(tmp_path / "c.safetensors")
    with zipfile.ZipFile(tmp_path / "d.pth", "w") as archive:
        archive.writestr("hello", "world")
    assert "data.pkl" in refused(tmp_path / "d.pth")
