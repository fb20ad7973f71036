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

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.archive import GROWTH, most
from sfumato.core.errors import ArgumentError, DataError, SfumatoError, said
from sfumato.core.files import read_json
from sfumato.core.tasks import task_of
from sfumato.data.array_names import KINDS, SPLITS, WANTED, Keys, find_keys, key_of
from sfumato.data.lazy import LazyDataset, LoadedDataset, positions
from sfumato.data.name_column import NameColumn
from sfumato.data.npz import encoded_arrays, members, read_member
from sfumato.data.row_shards import present
from sfumato.data.source import DataInfo, Source, Splits
from sfumato.data.split import ReadOptions
from sfumato.data.units import column

MANIFEST = "manifest.json"
FORMAT = 1
PLAIN_NAMES = ("X", "y")
ENDINGS = (".npy", ".npz", ".safetensors", ".parquet")

Part = tuple[np.ndarray, np.ndarray]
_KINDS = {
    "name": str,
    "model": str,
    "map_hash": str,
    "preprocessing": dict,
    "unit": str,
    "classes": list,
    "features": int,
    "dtype": str,
    "counts": dict,
    "digests": dict,
}


@dataclass(frozen=True)
class Store:
    """What manifest.json says: where the rows come from, and what must be in the files."""

    name: str
    model: str
    map_hash: str
    preprocessing: dict[str, Any]
    unit: str
    classes: tuple[str, ...]
    features: int
    dtype: str
    counts: dict[str, int]
    digests: dict[str, str]

    def files(self, directory: Path, split: str) -> tuple[Path, Path]:
        return directory / f"{split}.features.npy", directory / f"{split}.labels.npy"


def open_rows(path: Path, validation: float, options: ReadOptions) -> Splits:
    """The rows at `path`. Raises DataError where a file is missing, cut short or not what it should
    be."""
    return find_rows(path, options).open(validation, options)


def describe_rows(path: Path, validation: float, options: ReadOptions) -> DataInfo:
    """The public facts of what `open_rows` gives."""
    return find_rows(path, options).describe(validation, options)


def read_manifest(directory: Path) -> Store:
    try:
        facts = read_json(directory / MANIFEST)
        if facts.pop("format") != FORMAT:
            raise ValueError("another format")
        facts.pop("private")
        wrong = [name for name, kind in _KINDS.items() if not isinstance(facts[name], kind)]
        if wrong or "train" not in facts["counts"] or not set(facts["counts"]) <= set(SPLITS):
            raise ValueError(f"{wrong[0] if wrong else 'counts'} is not valid")
        _require_words_and_numbers(facts)
        return Store(**facts | {"classes": tuple(facts["classes"])})
    except FileNotFoundError:
        raise DataError(_unjoined(directory)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{directory / MANIFEST}: damaged ({error}); make the store again"
        ) from None


def _unjoined(directory: Path) -> str:
    """Why there is no manifest, and the way out."""
    if not (begun := present(directory)):
        return (
            f"{directory}: no feature store ({MANIFEST} is missing); `sfumato features` makes one"
        )
    absent = [each for each in begun[0].others() if not _complete(each.folder(directory))]
    named = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
    told = f"shares {named} are missing" if absent else "its shares are not joined yet"
    again = (absent or begun)[0]
    return f"{directory}: {told}; repeat the `sfumato features` command with --shard {again}"


def _complete(share: Path) -> bool:
    if not (share / MANIFEST).exists():
        return False
    store = read_manifest(share)
    return set(store.digests) == set(store.counts)


def _require_words_and_numbers(facts: dict[str, Any]) -> None:
    words = [*facts["classes"], *facts["digests"].values()]
    if not all(isinstance(each, str) for each in words) or not all(
        isinstance(n, int) for n in facts["counts"].values()
    ):
        raise ValueError("classes and digests must be text, counts whole numbers")


def read_features(path: Path, split: str = "train") -> np.ndarray:
    """The n x d matrix at `path` without labels, mapped where possible; `split` of it where it
    holds more than one.

    Raises DataError, as `open_rows` does.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        parts = _stored(path)[0]
        if split not in parts:
            raise DataError(f"{path}: this feature store has no {split} rows; give one that has")
        return parts[split][0]
    if path.suffix not in ENDINGS or not path.is_file():
        raise DataError(
            f"{str(path)!r}: holds no feature rows; give a feature store or a file that ends in {', '.join(ENDINGS)}"
        )
    arrays = {"X": _map(path)} if path.suffix == ".npy" else _read(path, labeled=False)
    names = (PLAIN_NAMES[0], *(key for kind in KINDS["x"] if (key := key_of(arrays, kind, split))))
    found = next((arrays[name] for name in names if name in arrays), None)
    if found is None or found.ndim != 2 or found.dtype.kind != "f" or 0 in found.shape:
        what = "nothing of these names" if found is None else f"{found.dtype} {found.shape}"
        raise DataError(
            f"{path}: {PLAIN_NAMES[0]} or x_{split} must be n rows of d floats each, not {what}"
        )
    return found


def npy(array: np.ndarray) -> bytes:
    """The content of a .npy file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def digest(rows: np.ndarray, labels: np.ndarray, names: np.ndarray | None = None) -> str:
    """SHA-256 of all labels and names and of at most 64 rows spread over the matrix: notices files
    that do not fit."""
    found = hashlib.sha256(labels.astype("<i4").tobytes())
    for k in sorted({int(at) for at in np.linspace(0, len(rows) - 1, 64)}) if len(rows) else []:
        found.update(np.ascontiguousarray(rows[k]).tobytes())
    if names is not None:
        found.update("\0".join(names.tolist()).encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def find_rows(path: Path, options: ReadOptions) -> LazyDataset:
    """The rows at `path`, not read yet."""
    path, unit, noun, arrays = Path(path).expanduser(), options.unit, "example", {}
    names: NameColumn | None = None
    if path.is_dir():
        parts, classes = _stored(path)
        names, noun = _names(path), read_manifest(path).unit
    elif path.suffix in ENDINGS and path.is_file():
        arrays = _read(path, apart=unit)
        parts, classes = _named(arrays, path, options.findings)
    else:
        raise DataError(
            f"features={str(path)!r}: give a feature store (`sfumato features` makes one) or a file that ends in "
            f"{', '.join(ENDINGS)}"
        )
    if options.findings is not None and task_of(parts["train"][1]).exclusive:
        raise ArgumentError("findings", options.findings, f"{path} has one class a row")
    train = parts["train"][0]

    def load() -> LoadedDataset:
        sources = {split: _source(part, path.stem, split, classes) for split, part in parts.items()}
        return LoadedDataset(
            sources["train"], sources.get("test"), validation=sources.get("validation")
        )

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
            split: np.asarray(_map(folder / name))
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


def _stored(directory: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    store = read_manifest(directory)
    missing = [split for split in store.counts if split not in store.digests]
    if missing:
        raise DataError(
            f"{directory}: the {missing[0]} rows are not complete; repeat the `sfumato features` command to "
            "finish them"
        )
    parts = {}
    for split, count in store.counts.items():
        rows_file, labels_file = store.files(directory, split)
        rows, labels = _map(rows_file), _map(labels_file)
        if (
            rows.shape != (count, store.features)
            or rows.dtype.name != store.dtype
            or labels.shape != (count,)
        ):
            raise DataError(
                f"{rows_file}: {rows.dtype} {rows.shape} is not the manifest's {store.dtype} "
                f"({count}, {store.features}); make the store again"
            )
        if labels.dtype.kind not in "iu" or not np.all(
            (labels >= 0) & (labels < len(store.classes))
        ):
            raise DataError(
                f"{labels_file}: holds labels other than 0 to {len(store.classes) - 1}; make the store again"
            )
        names = directory / f"{split}.names.npy"
        named = np.asarray(_map(names)) if names.is_file() else None
        if digest(rows, labels, named) != store.digests[split] or (
            named is not None and named.shape != (count,)
        ):
            raise DataError(
                f"{rows_file}: its content is not what the manifest was written for; make the store again"
            )
        parts[split] = (rows, np.asarray(labels))
    return parts, store.classes


def _names(directory: Path) -> NameColumn | None:
    """The names of the training rows' files; None in a store of examples that had none."""
    path = directory / "train.names.npy"
    return NameColumn.of(_map(path).tolist()) if path.is_file() else None


def _map(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; restore it or make it again") from None
    except Exception as error:  # the header is parsed as Python, which has its own
        raise DataError(
            f"{path}: cut short or damaged ({said(error)}); restore it or make it again"
        ) from None


def _read(path: Path, labeled: bool = True, apart: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by name. labeled: whether labels are needed. apart: a column of a table
    that is no feature."""
    if path.suffix == ".npy":
        return {"X": _map(path), "y": _map(path.with_suffix(".labels.npy"))}
    try:
        if path.suffix == ".npz":
            names = [name.removesuffix(".npy") for name in members(path) if name.endswith(".npy")]
            return {name: read_member(path, name) for name in names}
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        return _parquet(path, labeled, apart)
    except SfumatoError:
        raise
    except Exception as error:  # each library has its own
        raise DataError(
            f"{path}: cannot be read ({said(error)}); restore it or write it again"
        ) from None


def _parquet(path: Path, labeled: bool, apart: str | None) -> dict[str, np.ndarray]:
    try:
        from pyarrow import parquet, types
    except ImportError:
        raise DataError(
            f"{path}: reading parquet needs pyarrow (`pip install pyarrow`); or give the rows as .npy"
        ) from None
    found = parquet.ParquetFile(path).metadata
    if found.num_rows * found.num_columns * np.dtype(np.float32).itemsize > most(path):
        raise DataError(
            f"{path}: {found.num_rows} rows of {found.num_columns} columns are more than {GROWTH} times its size; "
            "give the rows as .npy"
        )
    table = parquet.read_table(path)
    if labeled and "label" not in table.column_names:
        raise DataError(
            f"{path}: has no column called label; rename the one that holds the classes"
        )
    if (
        apart is not None and apart not in table.column_names
    ):  # before other columns are taken for numbers
        raise ArgumentError(
            "unit", apart, f"there is no such column in {path}; name one with an entry for each row"
        )
    columns = [name for name in table.column_names if name not in ("label", apart)]
    for name in columns:
        kind = table.schema.field(name).type
        if not (
            types.is_integer(kind)
            or types.is_floating(kind)
            or types.is_boolean(kind)
            or types.is_decimal(kind)
        ):
            raise DataError(
                f"{path}: column {name!r} holds {kind}, but features must be numbers; remove it, or pass it as "
                f"--unit (unit={name!r}) if it says which rows belong together"
            )
    rows = np.column_stack([table[name].to_numpy().astype(np.float32) for name in columns])
    found = (
        {"X": rows}
        if apart is None
        else {"X": rows, apart: np.array(table[apart].to_pylist(), object)}
    )
    return found | {"y": np.asarray(table["label"].to_pylist())} if labeled else found


def _named(
    arrays: dict[str, np.ndarray], path: Path, findings: str | None
) -> tuple[dict[str, Part], tuple[str, ...]]:
    found = _keys(arrays, path)
    given = {split: (arrays[x], arrays[y]) for split, (x, y) in found.items()}
    width = given["train"][0].shape[-1] if given["train"][0].ndim else 0
    for split, (rows, labels) in given.items():
        if rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape or rows.shape[1] != width:
            raise DataError(
                f"{path}: {found[split][0]} is {rows.dtype} {rows.shape}; give n rows of {width or 'd'} floats "
                "each"
            )
        if labels.shape[:1] != (len(rows),):
            raise DataError(
                f"{path}: {found[split][1]} has shape {labels.shape}; give one label for each of {len(rows)} rows"
            )
    classes, numbers = encoded_arrays(
        {split: labels for split, (_, labels) in given.items()},
        str(path),
        {split: names[1] for split, names in found.items()},
        findings,
    )
    return {split: (rows, numbers[split]) for split, (rows, _) in given.items()}, classes


def _keys(arrays: dict[str, np.ndarray], path: Path) -> Keys:
    """Split -> the names of its rows and labels: X and y alone, or arrays named after splits."""
    named = [
        name
        for split in SPLITS
        for kinds in KINDS.values()
        for kind in kinds
        if (name := key_of(arrays, kind, split))
    ]
    if any(name in PLAIN_NAMES for name in arrays) or not named:
        missing = [name for name in PLAIN_NAMES if name not in arrays]
        if missing:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise DataError(f"{path}: has no {missing[0]} (found {found}); {WANTED}, or X and y")
        if named:
            raise DataError(
                f"{path}: {named[0]} would not be read beside X, y; {WANTED}, or X and y alone"
            )
        return {"train": PLAIN_NAMES}
    return find_keys(path, arrays, f"{WANTED}, or X and y")
