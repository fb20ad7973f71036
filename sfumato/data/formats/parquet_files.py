"""Parquet files through pyarrow (the extra `sfumato[records]`): their columns, and which of them hold
images. Hugging Face writes images as `image: {bytes, path}`, and the names of classes into the
schema's metadata.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfumato.core.archive import GROWTH, most
from sfumato.core.errors import DataError, data_error
from sfumato.core.files import parse_json

AT_ONCE = 256  # rows that are read at once: of a value that is repeated, so many copies are made


def pyarrow(path: Path) -> Any:
    """The library. Raises DataError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{path}: reading Parquet and Arrow needs pyarrow; pip install 'sfumato[records]'"
        ) from None
    return pyarrow


def opened(path: Path) -> Any:
    """A file's `ParquetFile`. Raises DataError."""
    arrow = pyarrow(path)
    with data_error(
        f"{path}: cannot be read as Parquet",
        "fetch it again",
        (arrow.ArrowException, OSError, ValueError),
    ):
        return arrow.parquet.ParquetFile(path)


def schema(path: Path) -> Any:
    """The columns that it says it has. Raises DataError."""
    with opened(path) as file:
        return file.schema_arrow


def words(path: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of plain values, None where there is none; a name with a dot lies in a struct. Equal
    values are one object, so that a few bytes cannot become many. Raises DataError."""
    arrow, found = pyarrow(path), {name: list[Any]() for name in wanted}
    with opened(path) as file:
        rows, known = file.metadata.num_rows, dict[Any, Any]()
        if rows * len(wanted) * 8 > most(path):
            raise DataError(
                f"{path}: {rows} rows are more than {GROWTH} times its size can hold; write it again"
            )
        kinds = (arrow.ArrowException, OSError, ValueError, KeyError, TypeError)
        with data_error(
            f"{path}: {', '.join(wanted)} cannot be read", "give columns of words or numbers", kinds
        ):
            for batch in file.iter_batches(AT_ONCE, columns=list(wanted)):
                for name, values in found.items():
                    each = leaf(batch.column(name.split(".")[0]), name).to_pylist()
                    values += [known.setdefault(value, value) for value in each]
    return found


def class_names(found: Any, label: str) -> list[str] | None:
    """The names of the classes that Hugging Face's metadata of a schema give a column."""
    try:
        told = parse_json((found.metadata or {}).get(b"huggingface", b"{}"))
        names = told["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    ok = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if ok and names and len(set(names)) == len(names) else None


def bytes_of(found: Any, column: str) -> str | None:
    """Where a column of a schema has its bytes, `image.bytes` or `image`; None if it has none."""
    kind = str(found.field(column).type)
    if kind in ("binary", "large_binary"):
        return column
    return f"{column}.bytes" if "bytes" in _inside(found, column) else None


def path_of(found: Any, column: str) -> str | None:
    """Where it has the names beside them, `image.path`."""
    return f"{column}.path" if "path" in _inside(found, column) else None


def image_columns(found: Any) -> list[str]:
    """The columns of a schema that hold bytes."""
    return [name for name in found.names if bytes_of(found, name) is not None]


def _inside(found: Any, column: str) -> list[str]:
    kind = found.field(column).type
    return [kind.field(k).name for k in range(kind.num_fields)] if hasattr(kind, "fields") else []


def holds_images(path: Path) -> bool:
    return bool(image_columns(schema(path)))


def leaf(column: Any, path: str) -> Any:
    """Of a column `image` what lies at a path in it, `image.bytes`."""
    inner = path.split(".")[1:]
    return column.field(inner[0]) if inner else column
