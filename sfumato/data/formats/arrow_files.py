"""Arrow files, as `datasets.save_to_disk` writes them and `datasets` keeps what it has fetched ->
`Listing`. They are mapped, so an image is read from its place.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError, data_error
from sfumato.core.files import read_json
from sfumato.data.formats.found import listing_of
from sfumato.data.formats.parquet_files import leaf, pyarrow
from sfumato.data.formats.parquet_images import found_in
from sfumato.data.formats.spans import ColumnRecords
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions, split_of

ONE, SEVERAL = "state.json", "dataset_dict.json"
HUB = "hf:"
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)


def is_saved(path: Path) -> bool:
    return (path / SEVERAL).is_file() or (
        (path / ONE).is_file() and bool(list(path.glob("*.arrow")))
    )


def list_saved(path: Path, options: ReadOptions) -> Listing:
    """A directory of `datasets.save_to_disk`. Raises DataError, ArgumentError."""
    if not (path / SEVERAL).is_file():
        return _listing(path, {"train": _files(path)}, options, path.resolve().name)
    with data_error(f"{path / SEVERAL}: cannot be read", "save it again", _DAMAGED):
        names = [str(name) for name in read_json(path / SEVERAL)["splits"]]
    files = {split: _files(path / name) for split, name in _splits(str(path), names).items()}
    return _listing(path, files, options, path.resolve().name)


def is_hub(path: Path) -> bool:
    return str(path).startswith(HUB)


def list_hub(path: Path, options: ReadOptions) -> Listing:
    """`hf:owner/name` or `hf:owner/name:configuration`, fetched and kept by `datasets`. Raises
    DataError, ArgumentError."""
    place = str(path)
    try:
        import datasets
    except ImportError:
        raise DataError(f"{place}: needs datasets; pip install 'sfumato[hf]'") from None
    name, _, configuration = place.removeprefix(HUB).partition(":")
    with data_error(
        f"{place}: cannot be fetched", "see whether the name, the network and your access are right"
    ):  # of the network, of the hub, of what lies there
        found = datasets.load_dataset(name, configuration or None)
        files = {
            split: [Path(file["filename"]) for file in each.cache_files]
            for split, each in found.items()
        }
    shards = {split: files[own] for split, own in _splits(place, list(files)).items()}
    return _listing(path, shards, options, name.rpartition("/")[2])


def _splits(place: str, names: Sequence[str]) -> dict[str, str]:
    """Split -> what the data set calls it. Raises DataError for a name that is none."""
    found: dict[str, str] = {}
    for name in names:
        split = split_of(name)
        if split is None or split in found or "/" in name:
            raise DataError(
                f"{place}: its split {name!r} is none of train, validation and test, or one of them twice; save it "
                "without that split"
            )
        found[split] = name
    if "train" not in found:
        raise DataError(f"{place}: has no training split (found {', '.join(names) or 'none'})")
    return found


def _files(folder: Path) -> list[Path]:
    """The files of a split in their order. Raises DataError."""
    with data_error(f"{folder / ONE}: cannot be read", "save it again", _DAMAGED):
        state = read_json(folder / ONE)
        names = [str(each["filename"]) for each in state["_data_files"]]
        chosen = state.get("_indices_data_files")
    if chosen or not names or any(Path(name).name != name for name in names):
        raise DataError(f"{folder}: was saved by an old version of datasets; save it again")
    return [folder / name for name in names]


def _listing(path: Path, shards: dict[str, list[Path]], options: ReadOptions, name: str) -> Listing:
    if not shards["train"]:
        raise DataError(f"{path}: has no files; save it to disk, and give that directory")
    known = mapped(shards["train"][0]).schema
    naming, parts = found_in(path, known, shards, options, _columns, ArrowRecords)
    return listing_of(path, parts, naming, options, name)


def mapped(path: Path) -> Any:
    """The table in a file, of which nothing is read yet. Raises DataError."""
    arrow = pyarrow(path)
    with _read_as_arrow(path), arrow.memory_map(str(path)) as file:
        table = arrow.ipc.open_stream(file).read_all()
        table.validate()
        return table


def _read_as_arrow(path: Path) -> AbstractContextManager[None]:
    """What is wrong with a file is a DataError."""
    kinds = (pyarrow(path).ArrowException, OSError, KeyError, ValueError)
    return data_error(f"{path}: cannot be read as Arrow", "save it again", kinds)


def _columns(
    paths: Sequence[Path], wanted: Sequence[str]
) -> tuple[dict[str, list[Any]], list[int]]:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    counts = []
    for path in paths:
        with _read_as_arrow(path):
            table = mapped(path)
            for name, values in columns.items():
                for chunk in _chunks(table, name):
                    values += chunk.to_pylist()
        counts.append(table.num_rows)
    return columns, counts


class ArrowRecords(ColumnRecords):
    """Rows of mapped files."""

    def _begin(self) -> None:
        self._mapped: dict[int, Any] = {}

    def read(self, k: int) -> bytes:
        file, row = self.place(k)
        if file not in self._mapped:
            path = self.paths[file]
            with _read_as_arrow(path):
                chunks = _chunks(mapped(path), self.column)
            self._mapped[file] = pyarrow(path).chunked_array(chunks)
        value = self._mapped[file][row].as_py()
        if not value:
            raise DataError("has no bytes; save the data set with its images in it")
        return value


def _chunks(table: Any, column: str) -> list[Any]:
    """What lies at the path of a column. Raises ValueError for offsets that lead astray."""
    chunks = [leaf(chunk, column) for chunk in table.column(column.split(".")[0]).chunks]
    for chunk in chunks:
        chunk.validate(full=True)
    return chunks
