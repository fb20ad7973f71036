"""Shards of tar files, as webdataset writes them: `0001.jpg` and `0001.cls` (or `0001.json` with a
`label`) are one record. A tar of class folders, `cat/0001.jpg`, is read too.

One pass over the headers tells where each image lies; then it is read from there. Compressed tars
cannot be read at random, and are refused.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sfumato.core.errors import DataError, said
from sfumato.core.files import parse_json
from sfumato.data.columns import USUAL, find
from sfumato.data.decode import SUFFIXES
from sfumato.data.listing import is_ignored

ENDINGS = (".tar",)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
LARGEST_LABEL = 1 << 20
Place = tuple[int, int]  # offset and length in the file


@dataclass(frozen=True)
class Sample:
    """What one record of a shard has: its members by their endings."""

    key: str
    members: dict[str, Place]


def samples(path: Path) -> list[Sample]:
    """The records of a shard, in order. Raises DataError where it is no tar, or where a record comes
    twice."""
    found: dict[str, dict[str, Place]] = {}
    for name, place in _members(path):
        folder, _, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        members = found.setdefault(key, {})
        if ending.lower() in members:
            raise DataError(
                f"{path}: holds two members {name!r}; write every key once (or remove what was appended)"
            )
        members[ending.lower()] = place
    return [Sample(key, members) for key, members in found.items()]


def _members(path: Path) -> Iterator[tuple[str, Place]]:
    """The plain files of a tar. Raises DataError."""
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=_Careful(raw), mode="r:") as archive:
            size = os.fstat(raw.fileno()).st_size
            while (member := archive.next()) is not None:
                archive.members.clear()  # it would keep all of them
                name = str(PurePosixPath(member.name))
                if not member.isreg() or any(map(is_ignored, name.split("/"))):
                    continue
                if member.issparse():
                    raise tarfile.ReadError(f"{name!r} is stored with holes")
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"ends in the middle of {name!r}")
                yield name, (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, OverflowError, UnicodeError) as error:
        way_out = "write it again as plain .tar"
        if path.open("rb").read(4)[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5"):
            raise DataError(f"{path}: is compressed and cannot be read at random; {way_out}") from None
        raise DataError(f"{path}: cannot be read as tar ({said(error)}); {way_out}") from None


class _Careful(io.BufferedReader):
    """A header may claim a name of gigabytes; no honest one is longer than this."""

    def __init__(self, raw: Any):
        super().__init__(raw.detach() if hasattr(raw, "detach") else raw, 1 << 16)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > LARGEST_LABEL:
            raise tarfile.ReadError("a header claims a name of more than 1 MiB")
        return super().read(size)


def image_ending(found: list[Sample], asked: str | None, where: str) -> str | None:
    """The ending that every record's image has, where it is one and the same; None where each record
    has one image of an ending of its own. Raises DataError where a record has two.
    """
    if asked is not None:
        return asked.removeprefix(".").lower()
    for sample in found:
        images = [ending for ending in sample.members if f".{ending.split('.')[-1]}" in SUFFIXES]
        if len(images) > 1:
            raise DataError(
                f"{where}: record {sample.key!r} has the images {', '.join(images)}; name one with --path {images[0]} (path=)"
            )
    return None


def image_of(sample: Sample, ending: str | None) -> tuple[str, Place] | None:
    """Ending and place of the record's image."""
    if ending is not None:
        return (ending, sample.members[ending]) if ending in sample.members else None
    return next(
        (
            (each, place)
            for each, place in sample.members.items()
            if f".{each.split('.')[-1]}" in SUFFIXES
        ),
        None,
    )


def facts_of(path: Path, sample: Sample, handle: int) -> dict[str, Any]:
    """What stands beside a record's image: the words of its small members by their endings, and the
    entries of its json. Raises DataError."""
    found: dict[str, Any] = {}
    for ending, (offset, length) in sample.members.items():
        if ending in ("cls", "txt", "json", *USUAL["label"]) and length <= LARGEST_LABEL:
            content = os.pread(handle, length, offset)
            try:
                if ending == "json":
                    told = parse_json(content)
                    found |= told if isinstance(told, dict) else {"label": told}
                else:
                    found[ending] = content.decode().strip()
            except ValueError as error:
                raise DataError(
                    f"{path}: {sample.key}.{ending} cannot be read ({said(error)}); write it again"
                ) from None
    return found


def label_column(facts: dict[str, Any], asked: str | None, where: str) -> str | None:
    """Which of the facts is the label; None where the folder is."""
    return find("label", facts, asked, where)
