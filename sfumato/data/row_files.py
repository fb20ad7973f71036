"""Feature rows in one file of somebody's own (`rows.py` names the kinds) -> arrays by name, and the
rows and labels of each split among them."""

from pathlib import Path

import numpy as np

from sfumato.core.archive import GROWTH, most
from sfumato.core.errors import ArgumentError, DataError, data_error
from sfumato.data.array_names import KINDS, SPLITS, WANTED, Keys, find_keys, key_of
from sfumato.data.npz import encoded_arrays, members, read_member
from sfumato.data.row_store import Part, mapped

PLAIN_NAMES = ("X", "y")
ENDINGS = (".npy", ".npz", ".safetensors", ".parquet")


def read_arrays(
    path: Path, labeled: bool = True, apart: str | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a file by name. labeled: whether labels are needed. apart: a column of a table
    that is no feature."""
    if path.suffix == ".npy":
        return {"X": mapped(path), "y": mapped(path.with_suffix(".labels.npy"))}
    with data_error(f"{path}: cannot be read", "restore it or write it again"):
        if path.suffix == ".npz":
            names = [name.removesuffix(".npy") for name in members(path) if name.endswith(".npy")]
            return {name: read_member(path, name) for name in names}
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        return _parquet(path, labeled, apart)


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


def by_split(
    arrays: dict[str, np.ndarray], path: Path, findings: str | None
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The rows and encoded labels of each split, and the classes (`encoded_arrays`). Raises DataError."""
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
