"""Feature rows that lie in files -> `Splits`, each row an "image" of shape 1 x 1 x d, read through
a memory map where possible.

A feature store (a directory with manifest.json, written by `sfumato features`, perhaps by several jobs) or a matrix that a
user already has:

    NAME.npy           with NAME.labels.npy beside it            mapped
    NAME.npz           x_train, y_train (x_val, y_val, x_test, y_test; other spellings: `array_names.py`), or X, y     read whole
    NAME.safetensors   the same names                            read whole
    NAME.parquet       numeric columns, and one called label     read whole; needs pyarrow

Labels are whole numbers or strings; the classes are those that occur among the training labels,
sorted (`labels.py`).

Units of several rows: a column with an entry for each row, found by its name COLUMN. In a store it
is SPLIT.COLUMN.npy (`sfumato features --unit` writes SPLIT.units.npy), beside NAME.npy it is
NAME.COLUMN.npy; in the other files it is an array COLUMN_train (or just COLUMN) and perhaps
COLUMN_val, COLUMN_test, or a column.
"""

from pathlib import Path

import numpy as np

from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.tasks import task_of
from sfumato.data.array_names import KINDS, SPLITS, key_of
from sfumato.data.lazy import LazyDataset, positions
from sfumato.data.name_column import NameColumn
from sfumato.data.row_files import ENDINGS, PLAIN_NAMES, by_split, read_arrays
from sfumato.data.row_store import Part, mapped, read_manifest, read_store, row_names
from sfumato.data.source import DataInfo, Source, Splits
from sfumato.data.split import ReadOptions
from sfumato.data.units import column


def open_rows(path: Path, validation: float, options: ReadOptions) -> Splits:
    """The rows at `path`. Raises DataError where a file is missing, cut short or not what it should
    be."""
    return find_rows(path, options).open(validation, options)


def describe_rows(path: Path, validation: float, options: ReadOptions) -> DataInfo:
    """The public facts of what `open_rows` gives."""
    return find_rows(path, options).describe(validation, options)


def read_features(path: Path, split: str = "train") -> np.ndarray:
    """The n x d matrix at `path` without labels, mapped where possible; `split` of it where it
    holds more than one.

    Raises DataError, as `open_rows` does.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        parts = read_store(path)[0]
        if split not in parts:
            raise DataError(f"{path}: this feature store has no {split} rows; give one that has")
        return parts[split][0]
    if path.suffix not in ENDINGS or not path.is_file():
        raise DataError(
            f"{str(path)!r}: holds no feature rows; give a feature store or a file that ends in {', '.join(ENDINGS)}"
        )
    arrays = {"X": mapped(path)} if path.suffix == ".npy" else read_arrays(path, labeled=False)
    names = (PLAIN_NAMES[0], *(key for kind in KINDS["x"] if (key := key_of(arrays, kind, split))))
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None or found.ndim != 2 or found.dtype.kind != "f" or 0 in found.shape:
        what = "nothing of these names" if found is None else f"{found.dtype} {found.shape}"
        raise DataError(
            f"{path}: {PLAIN_NAMES[0]} or x_{split} must be n rows of d floats each, not {what}"
        )
    return found


def find_rows(path: Path, options: ReadOptions) -> LazyDataset:
    """The rows at `path`, not read yet."""
    path, unit, noun, arrays = Path(path).expanduser(), options.unit, "example", {}
    names: NameColumn | None = None
    if path.is_dir():
        parts, classes = read_store(path)
        names, noun = row_names(path), read_manifest(path).unit
    elif path.suffix in ENDINGS and path.is_file():
        arrays = read_arrays(path, apart=unit)
        parts, classes = by_split(arrays, path, options.findings)
    else:
        raise DataError(
            f"features={str(path)!r}: give a feature store (`sfumato features` makes one) or a file that ends in "
            f"{', '.join(ENDINGS)}"
        )
    if options.findings is not None and task_of(parts["train"][1]).exclusive:
        raise ArgumentError("findings", options.findings, f"{path} has one class a row")
    train = parts["train"][0]

    def load() -> Splits:
        sources = {split: _source(part, path.stem, split, classes) for split, part in parts.items()}
        return Splits(sources["train"], sources.get("validation"), sources.get("test"))

    sizes = {split: len(labels) for split, (_, labels) in parts.items()}
    columns = _columns(path, unit, arrays)
    return LazyDataset(
        path.stem,
        str(path),
        classes,
        (1, 1, train.shape[1]),
        names or positions(len(train)),
        sizes.get("test"),
        load,
        lambda name: {
            split: column(columns[split], n, f"{path}: {name} of {split}")
            for split, n in sizes.items()
            if split in columns
        },
        n_validation=sizes.get("validation"),
        named=names is not None,
        unit=noun,
        task=task_of(parts["train"][1]),
    )


def _columns(path: Path, unit: str | None, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unit of each row of the splits that say so. Raises ArgumentError where the training rows
    do not."""
    if unit is None:
        return {}
    if path.is_dir() or path.suffix == ".npy":
        names = (
            {split: f"{split}.{unit}.npy" for split in SPLITS}
            if path.is_dir()
            else {"train": f"{path.stem}.{unit}.npy"}
        )
        folder = path if path.is_dir() else path.parent
        found = {
            split: np.asarray(mapped(folder / name))
            for split, name in names.items()
            if (folder / name).is_file()
        }
        wanted = str(folder / names["train"])
    else:
        found = {"train": arrays[unit]} if unit in arrays else {}
        found |= {split: arrays[key] for split in SPLITS if (key := key_of(arrays, unit, split))}
        wanted = f"{unit}_train or {unit} in {path} (found {', '.join(sorted(arrays))})"
    if "train" not in found:
        raise ArgumentError(
            "unit", unit, f"there is no {wanted}; name a column with an entry for each row"
        )
    return found


def _source(part: Part, name: str, split: str, classes: tuple[str, ...]) -> Source:
    matrix, labels = part
    return Source(
        name,
        split,
        labels.astype(np.int32),
        classes,
        (1, 1, matrix.shape[1]),
        lambda at: np.asarray(matrix[at])[:, None, None, :],
        rows=matrix,
    )
