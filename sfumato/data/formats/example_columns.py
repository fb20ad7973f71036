"""What files of `tf.train.Example` have beside their images: labels, names of classes, names of files,
as TensorFlow Datasets and the scripts for ImageNet write them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError, data_error
from sfumato.data.formats import examples
from sfumato.data.formats.columns import find, named_classes, need
from sfumato.data.formats.found import Found, Naming, listing_of, own_names, usual_split
from sfumato.data.listing import Listing
from sfumato.data.records import Records
from sfumato.data.split import ReadOptions


@dataclass(frozen=True)
class Keys:
    """Which feature is what."""

    image: str
    label: str
    text: str | None
    name: str | None
    split: str | None
    unit: str | None

    @classmethod
    def of(cls, where: str, features: dict[str, examples.Values], options: ReadOptions) -> "Keys":
        """From one record that has them all. Raises DataError, ArgumentError."""
        spans = [
            name for name, values in features.items() if values and isinstance(values[0], tuple)
        ]
        return cls(
            need("image", spans, options.path, where),
            need("label", features, options.label, where),
            find("text", spans, None, where),
            find("name", spans, None, where),
            find("split", features, options.split, where),
            options.unit if options.unit in features else None,
        )

    @property
    def columns(self) -> list[str]:
        wanted = (self.label, self.text, self.name, self.split, self.unit)
        return [each for each in dict.fromkeys(wanted) if each is not None]


class Columns:
    """Is told record after record of a split."""

    def __init__(self, path: Path, options: ReadOptions, keys: Keys | None = None):
        self.path, self.options, self.keys = path, options, keys
        self.columns: dict[str, list[Any]] = {}

    def add(
        self, where: str, buffer: Any, start: int = 0, stop: int | None = None
    ) -> tuple[int, int]:
        """Offset and length of the record's image. Raises DataError, ArgumentError."""
        with data_error(
            f"{where}: cannot be read as tf.train.Example", "write it again", ValueError
        ):
            features = examples.parse(buffer, start, stop)
        keys = self.keys = self.keys or Keys.of(where, features, self.options)
        for name in keys.columns:
            self.columns.setdefault(name, []).append(_one(buffer, features.get(name, [])))
        image = features.get(keys.image, [])
        if len(image) != 1 or not isinstance(image[0], tuple):
            raise DataError(
                f"{where}: has no bytes in {keys.image!r}; write it again, or remove it"
            )
        first, last = image[0]
        return first, last - first

    def found(self, records: Records) -> Found:
        names = self.columns.get(self.keys.name or "") if self.keys else None
        return Found(
            records,
            self.columns,
            names if own_names(names) else None,
            lambda k, name: f"{records.where(k)}: {name!r}",
        )


def listing_of_examples(
    path: Path, parts: dict[str, Found], keys: Keys | None, options: ReadOptions
) -> Listing:
    """Raises DataError, ArgumentError."""
    if keys is None or not all(len(part.records) for part in parts.values()):
        raise DataError(f"{path}: has no records in the {_empty(parts)} split")
    split = usual_split(parts, options.split, str(path))
    naming = Naming(keys.label, split, _classes(path, parts, keys))
    return listing_of(path, parts, naming, options, name=path.stem if path.is_file() else "")


def _empty(parts: dict[str, Found]) -> str:
    return next((split for split, part in parts.items() if not len(part.records)), "train")


def _classes(path: Path, parts: dict[str, Found], keys: Keys) -> list[str] | None:
    """Names of the classes: from the file that TensorFlow Datasets puts beside its shards, or from
    records that have both number and name."""
    labels = [label for part in parts.values() for label in part.columns[keys.label]]
    beside = (path if path.is_dir() else path.parent) / f"{keys.label}.labels.txt"
    if beside.is_file():
        with data_error(f"{beside}: cannot be read", kinds=(OSError, ValueError)):
            return beside.read_text("utf-8").splitlines()
    if keys.text in (None, keys.label):
        return None
    texts = [text for part in parts.values() for text in part.columns[keys.text or ""]]
    return named_classes(labels, texts) if all(texts) else None


def _one(buffer: Any, values: examples.Values) -> Any:
    """The first of a feature's values: a number, or words; None where there is none."""
    if not values:
        return None
    value = values[0]
    if isinstance(value, tuple):
        return bytes(buffer[slice(*value)]).decode("utf-8", "surrogateescape")
    return value
