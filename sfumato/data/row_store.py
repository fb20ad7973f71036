"""A feature store: a directory with manifest.json and, of each split, SPLIT.features.npy and
SPLIT.labels.npy, perhaps SPLIT.names.npy, written by `sfumato features`, perhaps by several jobs."""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core import typed_json
from sfumato.core.errors import DataError, data_error, few
from sfumato.core.files import read_json
from sfumato.core.typed_json import Damaged
from sfumato.data.array_names import SPLITS
from sfumato.data.name_column import NameColumn
from sfumato.data.row_shards import present

MANIFEST = "manifest.json"
FORMAT = 1
Part = tuple[np.ndarray, np.ndarray]
"""Rows and labels."""


@dataclass(frozen=True)
class Store:
    """What manifest.json says: where the rows come from, and what must be in the files. images: of each
    split, a digest of all that is extracted (none in stores of earlier versions)."""

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
    images: dict[str, str] = field(default_factory=dict)

    def files(self, directory: Path, split: str) -> tuple[Path, Path]:
        return directory / f"{split}.features.npy", directory / f"{split}.labels.npy"


def read_manifest(directory: Path) -> Store:
    """Raises DataError."""
    try:
        facts = read_json(directory / MANIFEST)
        if facts.pop("format") != FORMAT:
            raise ValueError("another format")
        facts.pop("private")
        store: Store = typed_json.convert(Store, facts, closed=True)
        if "train" not in store.counts or not set(store.counts) <= set(SPLITS):
            raise ValueError("counts is not valid")
        return store
    except FileNotFoundError:
        raise DataError(_unjoined(directory)) from None
    except (Damaged, ValueError, KeyError, TypeError, AttributeError) as error:
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
    told = f"shares {few(absent)} are missing" if absent else "its shares are not joined yet"
    again = (absent or begun)[0]
    return f"{directory}: {told}; repeat the `sfumato features` command with --shard {again}"


def _complete(share: Path) -> bool:
    if not (share / MANIFEST).exists():
        return False
    store = read_manifest(share)
    return set(store.digests) == set(store.counts)


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


def read_store(directory: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The rows and labels of each split, mapped, and the classes. Raises DataError where a file is not
    what the manifest was written for."""
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
        rows, labels = mapped(rows_file), mapped(labels_file)
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
        named = np.asarray(mapped(names)) if names.is_file() else None
        if digest(rows, labels, named) != store.digests[split] or (
            named is not None and named.shape != (count,)
        ):
            raise DataError(
                f"{rows_file}: its content is not what the manifest was written for; make the store again"
            )
        parts[split] = (rows, np.asarray(labels))
    return parts, store.classes


def row_names(directory: Path) -> NameColumn | None:
    """The names of the training rows' files; None in a store of examples that had none."""
    path = directory / "train.names.npy"
    return NameColumn.of(mapped(path).tolist()) if path.is_file() else None


def mapped(path: Path) -> np.ndarray:
    """The array in a .npy file, in a memory map. Raises DataError."""
    if not path.exists():
        raise DataError(f"{path}: missing; restore it or make it again")
    # of any kind: the header is parsed as Python, which has its own errors
    with data_error(f"{path}: cut short or damaged", "restore it or make it again"):
        return np.load(path, mmap_mode="r", allow_pickle=False)
