"""Shards of tar files, as webdataset writes them: `0001.jpg` and `0001.cls` (or `0001.json` with a
`label`) are one record. A tar of class folders, `cat/0001.jpg`, is read too.

One pass over the headers tells where each image lies, and reads what is small; then an image is
read from its place. Compressed tars cannot be read at random, and are refused.
"""

import io
import os
import tarfile
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.errors import DataError, data_error, said
from sfumato.core.files import parse_json
from sfumato.data.decode import SUFFIXES
from sfumato.data.formats.columns import USUAL, find
from sfumato.data.formats.folder import is_ignored
from sfumato.data.formats.found import (
    FOLDERS,
    Found,
    Naming,
    by_folders,
    listing_of,
    own_names,
    usual_split,
)
from sfumato.data.formats.shards import by_split, find_shards
from sfumato.data.formats.spans import SpanRecords
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions

LARGEST_FACT = 1 << 20
"""Bytes of a label or a header. More are no fact of one image."""
COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
Span = tuple[int, int]  # offset and length in the file
Members = dict[str, dict[str, Span]]  # key of a record -> ending -> where that member lies


def is_tar(path: Path) -> bool:
    return bool(find_shards(path, lambda name: name.lower().endswith((".tar", *COMPRESSED))))


def list_tar(path: Path, options: ReadOptions) -> Listing:
    """The records of a .tar or a folder of them. Raises DataError, ArgumentError."""
    shards = find_shards(path, lambda name: name.lower().endswith((".tar", *COMPRESSED)))
    parts = {split: _found(files, options) for split, files in by_split(path, shards).items()}
    label = find("label", parts["train"].columns, options.label, str(path))
    if label is None:
        label, parts = FOLDERS, by_folders(parts, str(path))
    split = usual_split(parts, options.split, str(path))
    return listing_of(path, parts, Naming(label, split), options)


def _found(paths: list[Path], options: ReadOptions) -> Found:
    """What the shards of one split hold."""
    wanted = {*USUAL["label"], *USUAL["split"], options.label, options.split, options.unit}
    columns: dict[str, list[Any]] = {}
    spans: list[Span] = []
    names: list[str] = []
    counts: list[int] = []
    for path in paths:
        before = len(spans)
        with _opened(path) as file:
            for key, members in _records(path, file).items():
                ending = _image(path, key, members, options.path)
                if ending is None:
                    continue
                spans.append(members.pop(ending))
                names.append(f"{key}.{ending}")
                for name, value in _facts(path, key, members, file, wanted).items():
                    column = columns.setdefault(name, [])
                    column += [None] * (len(spans) - 1 - len(column))
                    column.append(value)
        counts.append(len(spans) - before)
    if not spans:
        raise DataError(
            f"{paths[0]}: holds no images; expected members that end in {', '.join(SUFFIXES)}"
        )
    for column in columns.values():
        column += [None] * (len(spans) - len(column))
    records = SpanRecords(paths, counts, np.array(spans, np.int64))
    return Found(
        records,
        columns,
        names if own_names(names) else None,
        lambda k, name: f"{records.where(k)} ({names[k]}): {name!r}",
    )


def _opened(path: Path) -> "_Careful":
    try:
        return _Careful(io.FileIO(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


class _Careful(io.BufferedReader):
    """Reads no more than a header may hold: one that claims a name of gigabytes is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LARGEST_FACT:
            raise tarfile.ReadError("a header claims a name of more than 1 MiB")
        return super().read(size)


def _records(path: Path, file: _Careful) -> Members:
    """The plain files of a tar by record: all that are called alike up to the first dot. Raises
    DataError."""
    found: Members = {}
    try:
        for name, span in _members(file):
            folder, slash, base = name.rpartition("/")
            stem, _, ending = base.partition(".")
            members = found.setdefault(folder + slash + stem, {})
            if ending in members:
                raise tarfile.ReadError(f"it has two members {name!r}")
            members[ending] = span
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        why = f"cannot be read as tar ({said(error)})"
        if os.pread(file.fileno(), 2, 0) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5"):
            why = "is compressed and cannot be read at random"
        raise DataError(f"{path}: {why}; write it again as plain .tar") from None
    return found


def _members(file: _Careful) -> Iterator[tuple[str, Span]]:
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            name = member.name.removeprefix("./")
            if not member.isreg() or any(map(is_ignored, name.split("/"))):
                continue
            if member.issparse() or member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{name!r} has holes, or the file ends within it")
            yield name, (member.offset_data, member.size)


def _image(path: Path, key: str, members: dict[str, Span], asked: str | None) -> str | None:
    """The ending of a record's image; None where it has none. Raises DataError where it has two."""
    if asked is not None:
        return asked if asked in members else None
    images = [ending for ending in members if f".{ending.split('.')[-1].lower()}" in SUFFIXES]
    if len(images) > 1:
        raise DataError(
            f"{path}: record {key!r} has the images {', '.join(images)}; name one with --path {images[0]} (path=)"
        )
    return images[0] if images else None


def _facts(
    path: Path, key: str, members: dict[str, Span], file: _Careful, wanted: Container[str | None]
) -> dict[str, Any]:
    """The wanted facts beside a record's image: the words of small members by their endings, and the
    entries of its json. Raises DataError."""
    found: dict[str, Any] = {}
    for ending, (offset, length) in members.items():
        if length > LARGEST_FACT or (ending != "json" and ending not in wanted):
            continue
        content = os.pread(file.fileno(), length, offset)
        with data_error(f"{path}: {key}.{ending} cannot be read", "write it again", ValueError):
            told = parse_json(content) if ending == "json" else {ending: content.decode().strip()}
        plain = told if isinstance(told, dict) else {"label": told}
        found |= {
            name: value
            for name, value in plain.items()
            if name in wanted and not isinstance(value, dict | list)
        }
    return found
