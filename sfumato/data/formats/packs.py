"""A packed data set, as `sfumato data pack` writes it -> `Listing`.

    manifest.json                           what it is: classes, counts, shape, size and SHA-256 of each file
    SPLIT-00000-of-00012.arrayrecord        images: records of `tf.train.Example` that others can read, too
    SPLIT.index.safetensors                 labels, names, units and the SHA-256 of each image

An image is a feature `image/encoded`, beside `image/format`, `image/class/label`,
`image/class/text`, `image/filename` and perhaps `image/unit`. To open a pack, the manifest and the indexes
are read, and the sizes of the files compared. Each image is compared with its SHA-256 when it is
read, so the digests of the index stand for the images: a run fingerprints them without reading any.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from sfumato.core import files, typed_json
from sfumato.core.errors import ArgumentError, DataError, data_error
from sfumato.data.formats.array_records import ArrayRecords
from sfumato.data.formats.found import units_by_name
from sfumato.data.listing import ListedPart, Listing
from sfumato.data.name_column import NameColumn
from sfumato.data.split import ReadOptions

MANIFEST = "manifest.json"
VERSION = 1
IMAGE = "image/encoded"
PRIVATE = (
    "These are the private images, or smaller copies of them. Keep them where the images may be kept, and delete "
    "them when they have served."
)
AGAIN = "make it again with `sfumato data pack`"


@dataclass(frozen=True)
class PackedFile:
    """name, size in bytes and SHA-256 of a file; records that it holds."""

    file: str
    bytes: int
    sha256: str
    records: int


@dataclass(frozen=True)
class PackedPart:
    """One split."""

    shards: tuple[PackedFile, ...]
    index: PackedFile


@dataclass(frozen=True)
class Pack:
    """What manifest.json says. shape: of every image, where all have been brought to one; unit: the
    column or pattern by which its units were told."""

    sfumato_pack: int
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int] | None
    quality: int | None
    unit: str | None
    parts: dict[str, PackedPart]
    left_out: dict[str, int] = field(default_factory=dict)
    private: str = PRIVATE

    @property
    def counts(self) -> dict[str, int]:
        return {split: part.index.records for split, part in self.parts.items()}


def is_pack(path: Path) -> bool:
    try:
        return "sfumato_pack" in files.read_json(path / MANIFEST)
    except (OSError, ValueError, TypeError):
        return False


def read_pack(path: Path) -> Pack:
    """The manifest. Raises DataError where it is damaged, or a file is not of the size that it says."""
    with data_error(
        f"{path / MANIFEST}: is damaged", AGAIN, (OSError, ValueError, typed_json.Damaged)
    ):
        found = typed_json.convert(Pack, files.read_json(path / MANIFEST))
    if found.sfumato_pack != VERSION:
        raise DataError(
            f"{path / MANIFEST}: is of version {found.sfumato_pack} and this reads {VERSION}; {AGAIN}"
        )
    for part in found.parts.values():
        for each in (*part.shards, part.index):
            _check_size(path, each)
        if sum(each.records for each in part.shards) != part.index.records:
            raise DataError(f"{path / MANIFEST}: counts of records do not agree; {AGAIN}")
    if "train" not in found.parts or not set(found.parts) <= {"train", "validation", "test"}:
        raise DataError(
            f"{path / MANIFEST}: has no training split, or one of another name; {AGAIN}"
        )
    return found


def _check_size(path: Path, each: PackedFile) -> None:
    place = path / each.file
    size = place.stat().st_size if Path(each.file).name == each.file and place.is_file() else None
    if size != each.bytes or each.records < 0:
        held = "missing" if size is None else f"of {size:,} bytes"
        raise DataError(f"{place}: is {held}, not of {each.bytes:,} as the manifest says; {AGAIN}")


def list_pack(path: Path, options: ReadOptions) -> Listing:
    """Raises DataError, ArgumentError for a unit that the pack was not made with."""
    pack = read_pack(path)
    parts = {split: _part(path, pack, split, options) for split in pack.parts}
    return Listing(pack.name, str(path), pack.classes, parts, pack.left_out)


def _part(path: Path, pack: Pack, split: str, options: ReadOptions) -> ListedPart:
    part = pack.parts[split]
    index = read_index(path / part.index.file, part.index, len(pack.classes))
    shards = [path / each.file for each in part.shards]
    records = PackRecords(path, shards, [each.records for each in part.shards], index.digests)
    units = index.units
    if options.unit is None:
        units = None
    elif options.unit != pack.unit or units is None:
        if pack.unit is not None:
            raise ArgumentError(
                "unit",
                options.unit,
                f"{path} was packed with --unit {pack.unit!r}; give the same, or pack again",
            )
        units = units_by_name(index.names, options.unit, split, str(path))
    return ListedPart(records, index.labels, index.names, units)


@dataclass(frozen=True)
class PackIndex:
    """What is known of each record of a split beside its image."""

    labels: Int32[np.ndarray, " n"]
    names: NameColumn
    units: Sequence[str] | None
    digests: UInt8[np.ndarray, "n 32"]

    def content(self) -> bytes:
        """The bytes of its file."""
        from safetensors.numpy import save

        words = {"names": list(self.names)} | (
            {} if self.units is None else {"units": list(self.units)}
        )
        arrays: dict[str, np.ndarray] = {"labels": self.labels, "digests": self.digests}
        for name, column in words.items():
            encoded = [word.encode("utf-8", "surrogateescape") for word in column]
            arrays[name] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"{name}.ends"] = np.cumsum([len(word) for word in encoded], dtype=np.int64)
        return save(arrays)


def read_index(path: Path, told: PackedFile, classes: int) -> PackIndex:
    """Raises DataError where it is not as the manifest tells."""
    from safetensors.numpy import load

    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != told.sha256:
        raise DataError(f"{path}: has another SHA-256 than the manifest says; {AGAIN}")
    with data_error(f"{path}: is damaged", AGAIN):  # safetensors has its own errors
        found, n = load(content), told.records
        labels, digests = found["labels"], found["digests"]
        good = labels.shape == (n,) and digests.shape == (n, 32) and digests.dtype == np.uint8
        if (
            not good
            or not n
            or labels.dtype != np.int32
            or not 0 <= labels.min() <= labels.max() < classes
        ):
            raise ValueError("its labels and digests do not fit the manifest")
        return PackIndex(labels, _words(found, "names", n), _units(found, n), digests)


def _units(found: dict[str, np.ndarray], n: int) -> list[str] | None:
    return list(_words(found, "units", n)) if "units" in found else None


def _words(found: dict[str, np.ndarray], name: str, n: int) -> NameColumn:
    text, ends = found[name], found[f"{name}.ends"]
    starts = np.concatenate([[0], ends[:-1]])
    if ends.shape != (n,) or (ends < starts).any() or (n and ends[-1] != text.size):
        raise ValueError(f"its {name} do not fit the manifest")
    return NameColumn(text.tobytes(), starts.astype(np.int64), (ends - starts).astype(np.int32))


class PackRecords(ArrayRecords):
    """table: the SHA-256 of each image."""

    def __init__(
        self,
        root: Path,
        paths: Sequence[Path],
        counts: Sequence[int],
        table: UInt8[np.ndarray, "n 32"],
    ):
        super().__init__(paths, counts, IMAGE)
        self.root, self.table = root.absolute(), table

    def read(self, k: int) -> bytes:
        content = ArrayRecords.read(self, k)
        if hashlib.sha256(content).digest() != self.digest(k):
            raise DataError(f"is another image than the one that was packed; {AGAIN}")
        return content

    def digest(self, k: int) -> bytes:
        return self.table[k].tobytes()

    def stamp(self) -> bytes:
        """The manifest names the SHA-256 of everything."""
        return hashlib.sha256((self.root / MANIFEST).read_bytes()).digest()


def written(pack: Pack) -> dict[str, Any]:
    """The manifest as JSON."""
    return asdict(pack)
