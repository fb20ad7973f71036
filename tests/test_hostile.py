"""Files made to hurt: whatever the bytes, a reader gives pixels or refuses in one line, soon and
within bounded memory."""

import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_helpers import cifar_files, tar_gz, write_folder
from hostile_helpers import EVERY_FILE, refused, spoiled, within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sfumato import data
from sfumato.core import typed_json
from sfumato.core.errors import ArgumentError, LedgerError, RunError, SfumatoError
from sfumato.data import ReadOptions
from sfumato.data.decode import decode_file, upright_size
from sfumato.plan.config import TrainConfig
from sfumato.privacy import events
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent
from sfumato.privacy.ledger import FILE_NAME, Ledger
from sfumato.runs.classifier import Classifier
from sfumato.train import checkpoint
from sfumato.train.replay_guard import ReplayGuard

ALL = ReadOptions(test_fraction=0.0)


# -- pictures


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def deep() -> bytes:
    """16 bits of gray."""
    pixels = np.random.default_rng(0).integers(0, 65536, (16, 12), np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP")}
PICTURES["PNG of 16 bits"] = deep()


@pytest.mark.parametrize("kind", PICTURES)
@EVERY_FILE
@given(seed=st.integers(0, 2**32 - 1))
def test_a_spoiled_picture_decodes_to_bounded_pixels_or_is_refused(
    tmp_path: Path, kind: str, seed: int
) -> None:
    """Bytes changed, cut out, repeated, appended: never a crash, never more pixels than a header of
    16 x 12 may grow to."""
    path = tmp_path / "spoiled.img"
    path.write_bytes(spoiled(PICTURES[kind], np.random.default_rng(seed)))
    try:
        size = upright_size(path.read_bytes())
        if size[0] * size[1] > 10**6:
            return  # a header may lie; what it may make us allocate is the next test's matter
        pixels = decode_file(path, ReadOptions())
    except Exception as error:  # `folder` turns any of them into a refusal that names the file
        assert not isinstance(error, (MemoryError, RecursionError))
        return
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def png_of_size(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG whose header announces a size and whose body is what it is."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_a_picture_that_announces_a_monster_is_refused_without_memory_for_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    write_folder(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "b" / "bomb.png").write_bytes(png_of_size(*size))
    said = within(
        300,
        "data.open(sys.argv[1], options=ReadOptions(test_fraction=0.0, resize=8)); print('read')",
        tmp_path,
    )
    assert said.startswith("refused:") and "bomb.png" in said


def test_a_compressed_text_in_a_picture_is_not_blown_up(tmp_path: Path) -> None:
    """A PNG may carry kilobytes that inflate to gigabytes of text."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("note", "x" * (80 * 2**20), zip=True)
    write_folder(tmp_path, {"a": 2, "b": 2})
    Image.new("RGB", (6, 8)).save(tmp_path / "b" / "text.png", pnginfo=info)
    assert (tmp_path / "b" / "text.png").stat().st_size < 2**20
    said = within(
        300,
        "data.open(sys.argv[1], options=ReadOptions(test_fraction=0.0)); print('read')",
        tmp_path,
    )
    assert said == "read" or "text.png" in said


def test_unusual_but_honest_pictures(tmp_path: Path) -> None:
    """CMYK, 16 bits, one bit, animated, another format's ending: read as a viewer would show them,
    or named."""
    red = Image.new("RGB", (6, 8), (255, 0, 0))
    red.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert (
        abs(decode_file(tmp_path / "cmyk.jpg", ReadOptions()).astype(int) - (255, 0, 0)).max() < 8
    )
    red.save(
        tmp_path / "moves.png", save_all=True, append_images=[Image.new("RGB", (6, 8), (0, 255, 0))]
    )
    red.save(
        tmp_path / "moves.webp",
        save_all=True,
        append_images=[Image.new("RGB", (6, 8), (0, 255, 0))],
        lossless=True,
    )
    for name in ("moves.png", "moves.webp"):
        assert (decode_file(tmp_path / name, ReadOptions()) == (255, 0, 0)).all(), "the first frame"
    (tmp_path / "png-called.jpg").write_bytes(PICTURES["PNG"])
    assert decode_file(tmp_path / "png-called.jpg", ReadOptions()).shape == (16, 12, 3)
    for kind in ("GIF", "PPM", "ICO"):
        buffer = io.BytesIO()
        red.save(buffer, kind)
        (tmp_path / "disguised.png").write_bytes(buffer.getvalue())
        with pytest.raises(OSError):
            decode_file(tmp_path / "disguised.png", ReadOptions())


# -- folders and archives


@pytest.mark.parametrize("what", ["fifo", "directory link", "dangling", "device"])
def test_what_is_no_file_neither_blocks_nor_is_read(tmp_path: Path, what: str) -> None:
    """A pipe without a writer would stop the run for ever, a device would never end."""
    write_folder(tmp_path, {"a": 3, "b": 3})
    odd = tmp_path / "b" / "odd.png"
    if what == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to(
            {
                "directory link": tmp_path / "a",
                "dangling": tmp_path / "nowhere",
                "device": "/dev/zero",
            }[what]
        )
    said = within(
        300,
        "print(len(data.open(sys.argv[1], options=ReadOptions(test_fraction=0.0)).train))",
        tmp_path,
    )
    assert "odd.png" in said and said.startswith("refused:")


def test_a_picture_may_be_a_link_to_a_file(tmp_path: Path) -> None:
    """Data sets are often built of links."""
    write_folder(tmp_path / "set", {"a": 3, "b": 3})
    picture = tmp_path / "set" / "a" / "0.png"
    picture.rename(tmp_path / "elsewhere.png")
    picture.symlink_to(tmp_path / "elsewhere.png")
    assert len(data.open(str(tmp_path / "set"), options=ALL).train) == 6


@pytest.mark.parametrize(
    "trick", ["parent", "absolute", "symbolic link", "hard link", "device", "twice"]
)
def test_an_archive_writes_nothing_and_reads_nothing_outside_itself(
    tmp_path: Path, trick: str
) -> None:
    files, place = cifar_files("cifar10"), tmp_path / "place"
    place.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            kinds = {
                "symbolic link": tarfile.SYMTYPE,
                "hard link": tarfile.LNKTYPE,
                "device": tarfile.CHRTYPE,
            }
            if name == "data_batch_2.bin":
                if trick == "parent":
                    member.name = f"../../{name}"
                elif trick == "absolute":
                    member.name = f"{tmp_path}/{name}"
                elif trick in kinds:
                    member.type = kinds[trick]
                    member.linkname, member.size = "/etc/passwd", 0
                elif trick == "twice":
                    archive.addfile(member, io.BytesIO(content))
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    (place / "cifar-10-binary.tar.gz").write_bytes(out.getvalue())
    before = sorted(path.name for path in tmp_path.rglob("*"))
    try:
        splits = data.open("cifar10", data_dir=place, download=False)
    except SfumatoError as error:
        assert "\n" not in str(error)
    else:
        assert len(splits.train) == 50, "the names of members are names, not places"
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_an_archive_of_endless_zeros_is_refused_within_memory(tmp_path: Path) -> None:
    files = cifar_files("cifar10") | {"data_batch_2.bin": bytes(400 * 2**20)}
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(tar_gz("cifar-10-batches-bin", files))
    said = within(
        300, "data.describe('cifar10', data_dir=Path(sys.argv[1])); print('read')", tmp_path
    )
    assert said.startswith("refused:"), said


@pytest.mark.parametrize("shape", [(10**6, 1000, 1000, 3), (2**40, 2**20, 1, 1), (-1, 8, 8, 1)])
def test_an_array_that_announces_a_monster_is_refused_without_memory_for_it(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    header = (
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr(
            "x_train.npy",
            b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100),
        )
        labels = io.BytesIO()
        np.save(labels, np.arange(5) % 2)
        archive.writestr("y_train.npy", labels.getvalue())
    said = within(300, "data.open(sys.argv[1]); print('read')", tmp_path / "x.npz")
    assert said.startswith("refused:") and "x_train" in said


# -- our own files, read back


FIELDS = [
    "kind",
    "rate",
    "event",
    "noise_multiplier",
    "mean",
    "n",
    "size",
    "cycle",
    "phase",
    "maximum",
    "x",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(
    ["gaussian", "poisson", "selected", "truncated-poisson", "cyclic-poisson", "fixed-size"]
)


@settings(max_examples=400, deadline=None)
@given(value=VALUES, kind=KINDS)
def test_an_event_is_read_as_it_was_written_or_refused(value, kind) -> None:
    """Never as nothing, never as another event than its text."""
    if isinstance(value, dict):
        value = {**value, "kind": kind}
    try:
        event = events.from_json(value)
    except (LedgerError, ArgumentError):
        return
    again = events.to_json(event)
    assert (
        events.from_json(again) == event
        and again["kind"] == value["kind"]
        and set(again) == set(value)
    )


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger.create(folder, delta=1e-5, epsilon_max=3.0) as book:
        for number, event in enumerate(
            (GaussianEvent(10.0), PoissonSampledEvent(0.1, GaussianEvent(9.0)))
        ):
            book.spend(event, f"r/{number}", "k")
    return (folder / FILE_NAME).read_bytes()


@EVERY_FILE
@given(junk=st.binary(max_size=200), keep=st.integers(0, 2000))
def test_no_bytes_make_a_ledger_that_counts_less(
    tmp_path: Path, ledger: bytes, junk: bytes, keep: int
) -> None:
    """A prefix of whole lines is what a crash may leave, the newline of the last may be missing;
    anything else is refused."""
    (tmp_path / FILE_NAME).write_bytes(ledger[:keep] + junk)
    try:
        book = Ledger.read(tmp_path)
    except (LedgerError, ArgumentError):
        return
    *whole, last = (ledger[:keep] + junk).split(b"\n")
    whole += [last] if last and last + b"\n" in ledger else []
    assert book.releases == len(whole) - 1 and all(line + b"\n" in ledger for line in whole)


NESTED = b"[" * 200_000


def test_endless_nesting_is_refused_by_every_reader_of_json(tmp_path: Path, ledger: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(ledger + NESTED + b"\n")
    assert "edited or damaged" in refused(lambda: Ledger.read(tmp_path))
    checkpoint.save(tmp_path / "c", {"a": np.zeros(3)}, {})
    (tmp_path / "c" / "facts.json").write_bytes(NESTED)
    refused(lambda: checkpoint.load(tmp_path / "c", {"a": np.zeros(3)}))
    (tmp_path / "sums").write_bytes(NESTED + b"\n")
    refused(lambda: ReplayGuard(tmp_path / "sums"))


@EVERY_FILE
@given(seed=st.integers(0, 2**32 - 1))
def test_a_spoiled_checkpoint_is_the_old_one_or_refused(tmp_path: Path, seed: int) -> None:
    state, stream = (
        {"a": np.arange(6.0, dtype=np.float32), "b": np.ones((2, 2), np.float32)},
        np.random.default_rng(seed),
    )
    checkpoint.save(tmp_path / "c", state, {"step": 3})
    file = tmp_path / "c" / stream.choice(["state.safetensors", "facts.json"])
    content = bytearray(file.read_bytes())
    for _ in range(stream.integers(1, 5)):
        at = int(stream.integers(0, len(content)))
        content[at : at + int(stream.integers(0, 3))] = stream.integers(
            0, 256, int(stream.integers(0, 9)), np.uint8
        ).tobytes()
    file.write_bytes(bytes(content))
    try:
        found = checkpoint.load(tmp_path / "c", state)
    except RunError as error:
        assert "\n" not in str(error)
        return
    assert found is not None
    assert all(np.array_equal(found[0][name], state[name]) for name in state), (
        "facts are guarded by the ledger's head"
    )


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_spoiled_model_is_loaded_or_refused(
    tmp_path: Path, finished: Path, name: str, seed: int
) -> None:
    for each in ("model.json", "model.safetensors"):
        shutil.copy(finished / each, tmp_path)
    (tmp_path / name).write_bytes(
        spoiled((finished / name).read_bytes(), np.random.default_rng(seed))
    )
    try:
        Classifier.load(tmp_path)
    except SfumatoError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [10**6, 10**6, 3]},
        {"shape": [8, 8]},
        {"shape": [8, 8, -1]},
        {"shape": "8x8"},
        {"classes": [1, 2, 3]},
        {"input": [1]},
        {"probe": {}},
        {"model": "cnn2"},
        {"head": "sphere"},
    ],
)
def test_a_model_that_says_impossible_things_is_refused(
    tmp_path: Path, finished: Path, changes: dict[str, object]
) -> None:
    shutil.copy(finished / "model.safetensors", tmp_path)
    (tmp_path / "model.json").write_text(
        json.dumps(json.loads((finished / "model.json").read_text()) | changes)
    )
    refused(lambda: Classifier.load(tmp_path))


NAMES = st.text(max_size=10) | st.sampled_from(["data", "epsilon", "steps", "out", "noise"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_a_configuration_is_read_or_refused(value) -> None:
    """Whatever is in the file: it is of the right types and names, or refused."""
    try:
        typed_json.convert(TrainConfig, json.loads(json.dumps(value)), closed=True).check()
    except (SfumatoError, typed_json.Damaged):
        return


def test_control_memory_is_bounded_here() -> None:
    with pytest.raises(AssertionError, match="MemoryError"):
        within(100, "numpy.ones(2**28); print('read')")
