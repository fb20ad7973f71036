"""A table of image files -> its columns: CSV, TSV, JSONL (one JSON object a line) and Parquet.

Messages count rows as a spreadsheet does: the head of a CSV is row 1. Python's own readers of CSV
and JSON take a million rows in a few seconds, need nothing installed and leave `007` what it is;
Parquet needs pyarrow.
"""

import csv
import io
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError, data_error, said
from sfumato.core.files import parse_json
from sfumato.data.formats.parquet_files import schema, words

LINES, COMMAS, PARQUET = (".jsonl", ".ndjson"), (".csv", ".tsv"), (".parquet",)
ENDINGS = (*COMMAS, *LINES, *PARQUET)


@dataclass(frozen=True)
class Table:
    """columns: name -> an entry for each row, words or plain values of JSON. numbers: what each row
    is called in messages."""

    path: Path
    columns: dict[str, list[Any]]
    numbers: Sequence[int]

    def entry(self, k: int, column: str) -> str:
        """How a message calls an entry."""
        return f"{self.path}: row {self.numbers[k]}, column {column!r}"


def head(path: Path) -> list[str]:
    """The names of its columns. Raises DataError."""
    if path.suffix.lower() in PARQUET:
        return list(schema(path).names)
    return _text(path, None)[0]


def read_table(path: Path, wanted: Sequence[str]) -> Table:
    """These columns. Raises DataError."""
    if path.suffix.lower() in PARQUET:
        columns = words(path, wanted)
        return Table(path, columns, range(1, 1 + len(next(iter(columns.values())))))
    _, columns, numbers = _text(path, wanted)
    return Table(path, columns, numbers)


Found = tuple[list[str], dict[str, list[Any]], Sequence[int]]


def _text(path: Path, wanted: Sequence[str] | None) -> Found:
    """Names of all columns, the wanted ones, numbers of the rows; wanted=None: of the head alone."""
    read = _lines if path.suffix.lower() in LINES else _commas
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read(path, file, wanted)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({said(error)}); write it again") from None


def _commas(path: Path, file: io.TextIOBase, wanted: Sequence[str] | None) -> Found:
    first = file.readline(csv.field_size_limit())
    between = "\t" if path.suffix.lower() == ".tsv" else max(",;", key=first.count)
    names = [name.strip() for name in next(csv.reader([first], delimiter=between), [])]
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), "")
        raise DataError(
            f"{path}: its first row {f'names the column {twice!r} twice' if names else 'is empty'}; it must name "
            "every column once"
        )
    numbers, places = array("q"), [(name, names.index(name)) for name in wanted or ()]
    columns: dict[str, list[Any]] = {name: [] for name, _ in places}
    if wanted is None:
        return names, columns, numbers
    for number, row in enumerate(csv.reader(file, delimiter=between), 2):
        if not any(row):
            continue
        if len(row) != len(names):
            raise DataError(
                f"{path}: row {number} has {len(row)} entries, and there are {len(names)} columns; put entries that "
                f"hold {between!r} into quotes"
            )
        numbers.append(number)
        for name, place in places:
            columns[name].append(row[place].strip())
    return names, columns, numbers


def _lines(path: Path, file: io.TextIOBase, wanted: Sequence[str] | None) -> Found:
    numbers = array("q")
    columns: dict[str, list[Any]] = {name: [] for name in wanted or ()}
    names: list[str] = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        with data_error(f"{path}: row {number} is no JSON", "mend it", ValueError):
            row = parse_json(line)
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is no JSON object; give one a line")
        names = names or list(row)
        if wanted is None:
            break
        numbers.append(number)
        for name, values in columns.items():
            values.append(row.get(name))
    return names, columns, numbers
