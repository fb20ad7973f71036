"""Every reader of a format, on files of that format that were spoiled at random, and on those that
claim more than they hold."""

import gzip
import io
import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from data_helpers import cifar_files, idx_bytes, tar_gz, write_files, write_idx
from hostile_helpers import refused, spoiled, within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pace import paced
from safetensors.numpy import save_file

from sfumato import data
from sfumato.core.errors import SfumatoError
from sfumato.data import ReadOptions
from sfumato.data.row_store import FORMAT, MANIFEST, digest

SOME_FILES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def named(name: str) -> Callable[[Path], object]:
    return lambda place: data.open(name, data_dir=place, download=False).train.images(np.arange(2))


def rows(file: str) -> Callable[[Path], object]:
    return lambda place: data.open_rows(place / file, 0.0, ReadOptions()).train.images(np.arange(2))


@dataclass(frozen=True)
class Reader:
    """Whole files of a format, written into a directory, and how they are read."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]


MATRIX = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
LABELS = np.arange(30) % 3
IMAGES = {
    "x_train": np.arange(30 * 48, dtype=np.uint32).astype(np.uint8).reshape(30, 4, 4, 3),
    "y_train": LABELS,
}


def write_store(place: Path) -> None:
    np.save(place / "train.features.npy", MATRIX)
    np.save(place / "train.labels.npy", LABELS.astype(np.int32))
    (place / MANIFEST).write_text(
        json.dumps(
            {
                "format": FORMAT,
                "private": "yes",
                "name": "a",
                "model": "m",
                "map_hash": "0",
                "preprocessing": {},
                "unit": "image",
                "classes": ["a", "b", "c"],
                "features": 4,
                "dtype": "float32",
                "counts": {"train": 30},
                "digests": {"train": digest(MATRIX, LABELS.astype(np.int32))},
            }
        )
    )


def write_parquet(place: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.table({f"f{k}": MATRIX[:, k] for k in range(4)} | {"label": LABELS}),
        place / "a.parquet",
    )


def write_archive(place: Path) -> None:
    content = tar_gz("cifar-10-batches-bin", cifar_files("cifar10"))
    (place / "cifar-10-binary.tar.gz").write_bytes(content)


READERS = {
    "idx": Reader(lambda place: write_idx(place, ending=""), named("mnist")),
    "idx.gz": Reader(write_idx, named("mnist")),
    "cifar binary": Reader(
        lambda place: write_files(place, cifar_files("cifar10")), named("cifar10")
    ),
    "cifar binary archive": Reader(write_archive, named("cifar10")),
    "npz": Reader(
        lambda place: np.savez(place / "a.npz", **IMAGES),
        lambda place: data.open(place / "a.npz").train.labels,
    ),
    "npz, compressed": Reader(
        lambda place: np.savez_compressed(place / "a.npz", **IMAGES),
        lambda place: data.open(place / "a.npz").train.labels,
    ),
    "rows npz": Reader(lambda place: np.savez(place / "a.npz", X=MATRIX, y=LABELS), rows("a.npz")),
    "rows npy": Reader(
        lambda place: (np.save(place / "a.npy", MATRIX), np.save(place / "a.labels.npy", LABELS)),
        rows("a.npy"),
    ),
    "rows safetensors": Reader(
        lambda place: save_file({"X": MATRIX, "y": LABELS}, place / "a.safetensors"),
        rows("a.safetensors"),
    ),
    "rows parquet": Reader(write_parquet, rows("a.parquet")),
    "feature store": Reader(write_store, rows("")),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A directory of undamaged files of a kind, which are read without complaint."""
    made: dict[str, Path] = {}

    def place(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole")
            READERS[kind].write(made[kind])
            READERS[kind].read(made[kind])
        return made[kind]

    return place


@pytest.mark.parametrize("kind", READERS)
@SOME_FILES
@given(seed=st.integers(0, 2**32 - 1))
def test_spoiled_files_are_read_or_refused_in_one_line(
    whole: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int
) -> None:
    stream, place = np.random.default_rng(seed), tmp_path_factory.mktemp("spoiled")
    shutil.copytree(whole(kind), place, dirs_exist_ok=True)
    file = stream.choice(sorted(place.iterdir()))  # type: ignore[arg-type]
    content = file.read_bytes()
    if file.name.endswith(".gz") and stream.integers(
        2
    ):  # below the compression, or its checksum would see everything
        file.write_bytes(gzip.compress(spoiled(gzip.decompress(content), stream)))
    else:
        file.write_bytes(spoiled(content, stream))
    try:
        READERS[kind].read(place)
    except SfumatoError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        shutil.rmtree(place)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
)
PARTS = st.dictionaries(
    st.sampled_from(["train", "test", "../train"]), st.integers(-1, 40), max_size=2
)


@SOME_FILES
@given(
    name=st.sampled_from(
        [
            "format",
            "classes",
            "features",
            "dtype",
            "counts",
            "digests",
            "unit",
            "preprocessing",
            "name",
        ]
    ),
    value=JSON | PARTS,
)
def test_a_manifest_with_any_value_in_any_place_is_read_or_refused(
    whole: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, name: str, value: object
) -> None:
    place = tmp_path_factory.mktemp("manifest")
    shutil.copytree(whole("feature store"), place, dirs_exist_ok=True)
    facts = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps({**facts, name: value}))
    try:
        READERS["feature store"].read(place)
    except SfumatoError as error:
        assert "\n" not in str(error)
    finally:
        shutil.rmtree(place)


# -- what claims more than it holds: refused within memory and time


def npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    header = (
        f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117)
        + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


Content = tuple[bytes, int]
"""What a file begins with, and how many zeros follow; they are never in memory together."""


def written(file: IO[bytes], content: Content) -> None:
    begins, zeros = content
    file.write(begins)
    for start in range(0, zeros, 2**20):
        file.write(bytes(min(2**20, zeros - start)))


def npz_of(
    members: dict[str, Content], compression: int = zipfile.ZIP_STORED
) -> Callable[[Path], object]:
    def write(place: Path) -> None:
        with zipfile.ZipFile(place / "a.npz", "w", compression, compresslevel=1) as archive:
            for name, content in members.items():
                with archive.open(f"{name}.npy", "w") as file:
                    written(file, content)

    return write


def gz_of(name: str, content: Content) -> Callable[[Path], object]:
    def write(place: Path) -> None:
        write_idx(place)
        with gzip.open(place / name, "wb", compresslevel=1) as file:
            written(file, content)

    return write


def tar_of(*contents: tuple[str, int]) -> Callable[[Path], object]:
    def write(place: Path) -> None:
        with tarfile.open(place / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as archive:
            for name, size in contents:
                member = tarfile.TarInfo(name)
                member.size = size
                archive.addfile(member, io.BytesIO(bytes(size)))

    return write


MANY = 400 * 2**20
FOLDER = "cifar-10-batches-bin"
NPZ, MNIST, CIFAR = (
    "data.open(sys.argv[1] + '/a.npz')",
    "data.open('mnist', data_dir=Path(sys.argv[1]), download=False)",
    ("data.open('cifar10', data_dir=Path(sys.argv[1]), download=False)"),
)
ROWS = "data.open_rows(Path(sys.argv[1]) / 'a.npz', 0.0, ReadOptions())"
BOMBS = {
    "labels that announce a monster": (
        npz_of(
            {
                "x_train": (npy_header((10**12, 2, 2, 3)), 12),
                "y_train": (npy_header((10**12,), "<i8"), 8),
            }
        ),
        NPZ,
    ),
    "strings that announce a monster": (
        npz_of(
            {
                "x_train": (npy_header((2, 2, 2, 3)), 24),
                "y_train": (npy_header((2,), "<U400000000"), 8),
            }
        ),
        NPZ,
    ),
    "zeros without end in an npz": (
        npz_of(
            {
                "x_train": (npy_header((MANY // 48, 4, 4, 3)), MANY // 48 * 48),
                "y_train": (npy_header((MANY // 48,), "<i1"), MANY // 48),
            },
            zipfile.ZIP_DEFLATED,
        ),
        NPZ,
    ),
    "zeros without end in rows": (
        npz_of(
            {"X": (npy_header((MANY // 8, 2), "<f4"), MANY), "y": (b"", 0)}, zipfile.ZIP_DEFLATED
        ),
        ROWS,
    ),
    "a header of idx that lies": (
        gz_of(
            "train-images-idx3-ubyte.gz",
            (bytes((0, 0, 8, 3)) + struct.pack(">3I", 5 * 10**6, 28, 28), 0),
        ),
        MNIST,
    ),
    "zeros without end in idx": (
        gz_of(
            "train-images-idx3-ubyte.gz",
            (bytes((0, 0, 8, 3)) + struct.pack(">3I", 5 * 10**5, 28, 28), MANY),
        ),
        MNIST,
    ),
    "a batch of zeros without end": (tar_of((f"{FOLDER}/data_batch_1.bin", 3073 * 130_000)), CIFAR),
    "something else without end": (tar_of((f"{FOLDER}/readme.html", MANY)), CIFAR),
}


@pytest.mark.parametrize(
    "kind", paced(BOMBS, "zeros without end in idx", "something else without end")
)
def test_what_claims_more_than_it_holds_is_refused_within_memory_and_time(
    tmp_path: Path, kind: str
) -> None:
    write, code = BOMBS[kind]
    write(tmp_path)
    assert within(300, f"{code}; print('read')", tmp_path).startswith("refused:")


def test_rows_of_one_number_repeated_without_end_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    zeros = pyarrow.array(np.zeros(10**7, np.float32))
    parquet.write_table(
        pyarrow.table({"f0": zeros, "f1": zeros, "label": zeros.cast("int64")}),
        tmp_path / "a.parquet",
    )
    assert "times its size" in refused(lambda: rows("a.parquet")(tmp_path))


def test_controls_honest_files_of_the_same_kinds_are_read(tmp_path: Path) -> None:
    """Zeros compress well: images that are black but for a few, labels that are all alike."""
    images = np.zeros((4000, 28, 28), np.uint8)
    images[::7, 5:20, 5:20] = 200
    np.savez_compressed(tmp_path / "a.npz", x_train=images, y_train=np.arange(4000) // 2000)
    assert len(data.open(tmp_path / "a.npz", options=ReadOptions(test_fraction=0.0)).train) == 4000
    write_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes(np.arange(4000, dtype=np.uint8) // 16 % 10))
    )
    assert len(data.open("mnist", data_dir=tmp_path, download=False).train) == 4000
