"""PyTorch's files from before version 1.6, pickles and numbers in a row, are read exactly, and what is
damaged or hostile in them is refused as in its zip archives."""

from pathlib import Path

import numpy as np
import pytest
from test_weights_files import BOMBS, HOSTILE, HUGE, SIX, refused
from torch_files import (
    LITTLE_ENDIAN,
    MAGIC,
    VERSION,
    dictionary,
    name,
    number,
    row,
    storage,
    tensor,
    text,
    write_in_a_row,
)

from sfumato.weights import read
from sfumato.weights.torch_files import _LARGEST_PICKLE

HELD = {"0": (6, SIX.tobytes())}
PLAIN = dictionary({"a": tensor(storage(6), (6,), (1,))})


def test_views_and_several_storages_in_the_order_of_their_keys(tmp_path: Path) -> None:
    """A storage named with None behind it, as PyTorch wrote them."""
    first = storage(6)[:-2] + b"NtQ"
    body = dictionary(
        {
            "turned": tensor(first, (3, 2), (1, 3)),
            "part": tensor(first, (2,), (2,), offset=1),
            "count": tensor(storage(1, "LongStorage", "7"), (), ()),
            "half": tensor(storage(6, "HalfStorage", "3"), (6,), (1,)),
        }
    )
    held = {
        "3": (6, SIX.astype(np.float16).tobytes()),
        "7": (1, (1 << 40).to_bytes(8, "little")),
        **HELD,
    }
    found = read(write_in_a_row(tmp_path / "a.pth", body, held)).arrays
    np.testing.assert_array_equal(found["turned"], SIX.reshape(2, 3).T)
    np.testing.assert_array_equal(found["part"], [1, 3])
    np.testing.assert_array_equal(found["half"], SIX)
    assert found["count"] == 1 << 40


def test_an_optimizer_beside_the_state_dict_is_passed_over(tmp_path: Path) -> None:
    body = dictionary(
        {
            "optimizer": dictionary({"a": tensor(storage(4, "DoubleStorage", "9"), (4,), (1,))}),
            "state_dict": PLAIN,
        }
    )
    path = write_in_a_row(tmp_path / "a.pth", body, {"9": (4, bytes(32)), **HELD})
    found = read(path).arrays
    assert set(found) == {"a"}
    np.testing.assert_array_equal(found["a"], SIX)


@pytest.mark.parametrize("problem", HOSTILE)
def test_hostile_tensors(tmp_path: Path, problem: str) -> None:
    refused(write_in_a_row(tmp_path / "a.pth", dictionary({"a": HOSTILE[problem]}), HELD))


@pytest.mark.parametrize("problem", BOMBS)
@pytest.mark.parametrize("place", ["system", "state dict", "keys"])
def test_hostile_pickles(tmp_path: Path, problem: str, place: str) -> None:
    bomb = BOMBS[problem]
    head = (MAGIC, VERSION, bomb if place == "system" else LITTLE_ENDIAN)
    body, keys = (bomb if place == "state dict" else PLAIN), (bomb if place == "keys" else None)
    refused(write_in_a_row(tmp_path / "a.pth", body, HELD, head, keys))


TWO_KINDS = dictionary(
    {"a": tensor(storage(6), (6,), (1,)), "b": tensor(storage(3, "DoubleStorage"), (3,), (1,))}
)
LYING = {
    "more numbers than the file has": (
        dictionary({"a": tensor(storage(HUGE), (6,), (1,))}),
        {"0": (HUGE, SIX.tobytes())},
        None,
    ),
    "another number than its tensors say": (PLAIN, {"0": (5, SIX.tobytes())}, None),
    "a negative number": (PLAIN, {"0": (-6, SIX.tobytes())}, None),
    "an end too early": (PLAIN, {"0": (6, SIX.tobytes()[:-1])}, None),
    "a key that no tensor has": (PLAIN, {**HELD, "1": (6, SIX.tobytes())}, None),
    "a key twice": (PLAIN, HELD, b"](" + text("0") + text("0") + b"e"),
    "no keys": (PLAIN, HELD, b"]"),
    "keys that are no list": (PLAIN, HELD, text("0")),
    "keys that are no text": (PLAIN, HELD, b"](" + b"]" + b"e"),
    "one storage of two kinds": (TWO_KINDS, HELD, None),
    "a view of a storage": (
        dictionary({"a": tensor(storage(6)[:-2] + row(text("v"), number(0)) + b"tQ", (6,), (1,))}),
        HELD,
        None,
    ),
}


@pytest.mark.parametrize("problem", LYING)
def test_sizes_and_keys_that_lie(tmp_path: Path, problem: str) -> None:
    body, held, keys = LYING[problem]
    refused(write_in_a_row(tmp_path / "a.pth", body, held, keys=keys))


def test_other_pickles_are_refused_with_a_way_out(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "a.pth"
    code = name("os", "system") + row(text(f"touch {ran}")) + b"R"
    for place, wanted in ((0, "a bare pickle"), (1, "os.system"), (2, "os.system")):
        head = [MAGIC, VERSION, LITTLE_ENDIAN]
        head[place] = code
        said = refused(write_in_a_row(path, PLAIN, HELD, tuple(head)))
        assert wanted in said and "safetensors" in said
    assert "asks for os.system" in refused(write_in_a_row(path, code, HELD)) and not ran.exists()
    newer = (MAGIC, number(1002), LITTLE_ENDIAN)
    assert "version 1002" in refused(write_in_a_row(path, PLAIN, HELD, newer))
    big = (MAGIC, VERSION, LITTLE_ENDIAN.replace(b"\x88", b"\x89"))
    assert "big-endian" in refused(write_in_a_row(path, PLAIN, HELD, big))
    long = dictionary({"a": b"X" + (5 << 20).to_bytes(4, "little") + bytes(5 << 20)})
    assert f"{_LARGEST_PICKLE:,}" in refused(write_in_a_row(path, long, HELD))


def test_views_do_not_multiply_what_the_file_has(tmp_path: Path) -> None:
    views = {str(i): tensor(b"h\x07", (100_000,), (1,)) for i in range(500)}
    held = tensor(storage(100_000, "HalfStorage") + b"q\x07", (100_000,), (1,))
    path = write_in_a_row(
        tmp_path / "a.pth", dictionary({"a": held, **views}), {"0": (100_000, bytes(200_000))}
    )
    assert "claim" in refused(path)


def test_cut_anywhere_it_is_refused(tmp_path: Path) -> None:
    path = write_in_a_row(tmp_path / "a.pth", PLAIN, HELD)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path)
