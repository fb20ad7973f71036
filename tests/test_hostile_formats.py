"""Files of every format, spoiled at random or claiming more than they hold: read or refused, in one
line and within memory."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from format_writers import WRITERS, items
from hostile_helpers import spoiled, within
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato import data
from sfumato.core.errors import SfumatoError

SOME_FILES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
KINDS = [kind for kind in WRITERS if kind not in ("folder", "imagefolder")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A place with undamaged files of a format, and what lies there is opened by."""
    made: dict[str, tuple[Path, Path]] = {}

    def place(kind: str) -> tuple[Path, Path]:
        if kind not in made:
            pytest.importorskip(WRITERS[kind].needs)
            folder = tmp_path_factory.mktemp("whole")
            made[kind] = (
                folder,
                WRITERS[kind].write(folder / "birds", items(12, 6)).relative_to(folder),
            )
        return made[kind]

    return place


@pytest.mark.parametrize("kind", KINDS)
@SOME_FILES
@given(seed=st.integers(0, 2**32 - 1))
def test_spoiled_files_are_read_or_refused_in_one_line(
    whole: Callable[[str], tuple[Path, Path]],
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    seed: int,
) -> None:
    (folder, inner), stream = whole(kind), np.random.default_rng(seed)
    place = tmp_path_factory.mktemp("spoiled")
    shutil.copytree(folder, place, dirs_exist_ok=True)
    target = place / inner
    files = [target] if target.is_file() else sorted(p for p in target.rglob("*") if p.is_file())
    file = files[stream.integers(len(files))]
    file.write_bytes(spoiled(file.read_bytes(), stream))
    try:
        train = data.open(target).train
        train.raw(np.arange(min(4, len(train))))
    except SfumatoError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    finally:
        shutil.rmtree(place)


def huge_name(place: Path) -> Path:
    """A tar whose header announces a name of gigabytes, over a file that is a hole."""
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    with (place / "x.tar").open("wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(3 << 30)
    return place / "x.tar"


def huge_record(place: Path) -> Path:
    """A TFRecord whose length is that of a hole."""
    import struct

    from sfumato.data.formats.tfrecord import masked_crc

    head = struct.pack("<Q", 3 << 30)
    with (place / "x.tfrecord").open("wb") as file:
        file.write(head + struct.pack("<I", masked_crc(head)))
        file.truncate((3 << 30) + 16)
    return place / "x.tfrecord"


BOMBS = {"a name without end": huge_name, "a record without end": huge_record}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_claims_more_than_it_holds_is_refused_within_memory(tmp_path: Path, kind: str) -> None:
    path = BOMBS[kind](tmp_path)
    code = "data.open(sys.argv[1]); print('read')"
    room = 300 if kind == "a name without end" else 3500  # a file that is mapped takes addresses
    assert within(room, code, path).startswith("refused:")


@pytest.mark.slow
def test_an_image_that_parquet_repeats_without_end_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    n = 5000
    once = pyarrow.array([bytes(1 << 20)], pyarrow.binary())
    image = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(n, np.int32)), once)
    table = pyarrow.table({"image": image, "label": np.arange(n) % 2})
    parquet.write_table(table, tmp_path / "x.parquet", store_schema=False)
    with pytest.raises(SfumatoError, match="row_group_size=100"):
        from sfumato.data.formats.recognized import find_listing

        listing = find_listing(tmp_path / "x.parquet", data.ReadOptions())
        assert listing is not None
        listing.parts["train"].records.read(0)


def test_a_tar_that_ends_within_a_member_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for k in range(3):
            member = tarfile.TarInfo(f"{k}.jpg")
            member.size = 10
            archive.addfile(member, io.BytesIO(bytes(10)))
    whole = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[:520])
    with pytest.raises(SfumatoError, match=r"x\.tar: cannot be read as tar"):
        data.open(tmp_path / "x.tar")
