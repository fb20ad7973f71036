"""The same images in every format, written the way others write them."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.data.formats.examples import serialize
from sfumato.data.formats.tfrecord import frame

CLASSES = ("cat", "dog", "owl")


@dataclass(frozen=True)
class Item:
    """One image: where it would lie in a folder, `train/cat/7.jpg`, and who it is of."""

    split: str
    label: str
    name: str
    content: bytes
    unit: str

    @property
    def code(self) -> int:
        return CLASSES.index(self.label)


def items(train: int = 160, test: int = 40, size: tuple[int, int] = (9, 12)) -> list[Item]:
    """JPEGs that differ in all pixels; the units are of one split each."""
    stream, found = np.random.default_rng(0), []
    for split, n in (("train", train), ("test", test)):
        for k in range(n):
            content = io.BytesIO()
            pixels = stream.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(content, "JPEG")
            label = CLASSES[k % 3]
            name = f"{split}/{label}/{k:03}.jpg"
            found.append(Item(split, label, name, content.getvalue(), f"{split}{k // 5}"))
    return found


def as_folder(place: Path, given: list[Item]) -> Path:
    for item in given:
        (place / item.name).parent.mkdir(parents=True, exist_ok=True)
        (place / item.name).write_bytes(item.content)
    return place


def rows(given: list[Item]) -> list[dict[str, str]]:
    return [
        {"file_name": item.name, "label": item.label, "split": item.split, "patient": item.unit}
        for item in given
    ]


def as_csv(place: Path, given: list[Item], name: str = "images.csv", between: str = ",") -> Path:
    as_folder(place, given)
    with (place / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows(given)[0]), delimiter=between)
        writer.writeheader()
        writer.writerows(rows(given))
    return place / name


def as_jsonl(place: Path, given: list[Item], name: str = "images.jsonl") -> Path:
    as_folder(place, given)
    (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows(given)))
    return place / name


def as_table_parquet(place: Path, given: list[Item]) -> Path:
    import pyarrow
    from pyarrow import parquet

    as_folder(place, given)
    parquet.write_table(pyarrow.Table.from_pylist(rows(given)), place / "images.parquet")
    return place / "images.parquet"


def as_imagefolder(place: Path, given: list[Item]) -> Path:
    as_csv(place, given, "metadata.csv")
    return place


def by_split(given: list[Item]) -> dict[str, list[Item]]:
    return {split: [item for item in given if item.split == split] for split in ("train", "test")}


def as_tar(place: Path, given: list[Item], told: str = "cls") -> Path:
    place.mkdir(exist_ok=True)
    for split, mine in by_split(given).items():
        for shard, some in enumerate((mine[::2], mine[1::2])):
            with tarfile.open(place / f"{split}-{shard:06}.tar", "w") as archive:
                for item in some:
                    key = item.name.removesuffix(".jpg")
                    facts = {"label": item.label, "patient": item.unit, "caption": [1, 2]}
                    beside = item.label if told == "cls" else json.dumps(facts)
                    members = {"jpg": item.content} | ({told: beside.encode()} if told else {})
                    for ending, content in members.items():
                        member = tarfile.TarInfo(f"{key}.{ending}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
    return place


def hugging_face(given: list[Item]):  # type: ignore[no-untyped-def]
    """As an Arrow table with the metadata of `datasets`."""
    import pyarrow

    features = {
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "image": {"_type": "Image"},
    }
    table = pyarrow.table(
        {
            "image": [{"bytes": item.content, "path": item.name} for item in given],
            "label": [item.code for item in given],
            "patient": [item.unit for item in given],
        }
    )
    told = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": told})


def as_parquet(place: Path, given: list[Item]) -> Path:
    from pyarrow import parquet

    (place / "data").mkdir(parents=True, exist_ok=True)
    for split, mine in by_split(given).items():
        for shard, some in enumerate((mine[::2], mine[1::2])):
            path = place / "data" / f"{split}-{shard:05}-of-00002.parquet"
            parquet.write_table(hugging_face(some), path, row_group_size=30)
    return place


def as_saved(place: Path, given: list[Item]) -> Path:
    import pyarrow

    (place / "train").mkdir(parents=True, exist_ok=True)
    (place / "test").mkdir(exist_ok=True)
    (place / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    for split, mine in by_split(given).items():
        name, table = "data-00000-of-00001.arrow", hugging_face(mine)
        with pyarrow.ipc.new_stream(str(place / split / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
        state = {"_data_files": [{"filename": name}]}
        (place / split / "state.json").write_text(json.dumps(state))
    return place


def example(item: Item) -> bytes:
    return serialize(
        {
            "image/encoded": item.content,
            "image/class/label": item.code,
            "image/class/text": item.label.encode(),
            "image/filename": item.name.encode(),
            "image/format": b"JPEG",
            "patient": item.unit.encode(),
        }
    )


def as_tfrecord(place: Path, given: list[Item]) -> Path:
    place.mkdir(exist_ok=True)
    for split, mine in by_split(given).items():
        for shard, some in enumerate((mine[::2], mine[1::2])):
            path = place / f"birds-{split}.tfrecord-{shard:05}-of-00002"
            path.write_bytes(b"".join(frame(example(item)) for item in some))
    return place


def as_array_record(place: Path, given: list[Item]) -> Path:
    from array_record.python.array_record_module import ArrayRecordWriter

    place.mkdir(exist_ok=True)
    for split, mine in by_split(given).items():
        writer = ArrayRecordWriter(str(place / f"{split}.array_record"), "group_size:7")
        for item in mine:
            writer.write(example(item))
        writer.close()
    return place


def as_pack(place: Path, given: list[Item]) -> Path:
    """Of JPEGs as they are."""
    from sfumato.data import ReadOptions
    from sfumato.runs.packing import pack

    table = as_csv(place, given)
    pack(table, place.with_name("packed"), ReadOptions(unit="patient"))
    return place.with_name("packed")


@dataclass(frozen=True)
class Writer:
    """needs: what must be installed. has_units: whether the format holds who an image is of."""

    write: Callable[[Path, list[Item]], Path]
    needs: str = "PIL"
    has_units: bool = True
    options: dict[str, str] = field(default_factory=dict)


WRITERS = {
    "folder": Writer(as_folder, has_units=False),
    "csv": Writer(as_csv),
    "csv with semicolons": Writer(lambda place, given: as_csv(place, given, between=";")),
    "tsv": Writer(lambda place, given: as_csv(place, given, "images.tsv", "\t")),
    "jsonl": Writer(as_jsonl),
    "parquet table": Writer(as_table_parquet, "pyarrow"),
    "imagefolder": Writer(as_imagefolder),
    "webdataset": Writer(as_tar, has_units=False),
    "webdataset with json": Writer(lambda place, given: as_tar(place, given, "json")),
    "tar of class folders": Writer(lambda place, given: as_tar(place, given, ""), has_units=False),
    "parquet": Writer(as_parquet, "pyarrow"),
    "datasets.save_to_disk": Writer(as_saved, "pyarrow"),
    "tfrecord": Writer(as_tfrecord),
    "pack": Writer(as_pack, "array_record"),
    "array_record": Writer(as_array_record, "array_record"),
}
