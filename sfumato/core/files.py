"""Files that are either entirely there or not there at all, also after a power cut.

What a power cut leaves of a file is what was flushed (fsync) of it, and of a directory the entries
it had when it was flushed itself. So bytes are flushed before the rename that shows them, and the
directory after it; a new directory is an entry of its parent. All of it passes through `os` (but for
the flush of macOS, `core/machine.py`), where tests count the calls and strike at each (`tests/faults.py`).
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from sfumato.core.machine import flush, take_room


def sync_directory(path: Path) -> None:
    """Make the directory's entries (creations, renames) durable."""
    _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        flush(handle)
    finally:
        os.close(handle)


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Make a directory, and those above it, for good; it may be there already. mode: its own,
    within the umask."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode, parents=True, exist_ok=True)
    for each in missing:
        sync_directory(each.parent)


def write_all(handle: int, data: bytes) -> None:
    """`os.write` may take a part at a time; on a disk that fills up it takes one and then raises."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def append(handle: int, line: bytes) -> None:
    """Append a line to an open file (O_APPEND) and flush it. Raises OSError; what was half written
    is taken back first."""
    size = os.fstat(handle).st_size
    try:
        write_all(handle, line)
        flush(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise


def append_json(path: Path, record: Any) -> None:
    """Append a line of JSON to a file, which is made if there is none, and flush both it and its
    entry."""
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        append(handle, json.dumps(record).encode() + b"\n")
    finally:
        os.close(handle)
    if new:
        sync_directory(path.parent)


def write_atomic(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write beside `path`, flush to disk, rename over it: a reader sees the old file or the new
    one, never half of one."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_durably(aside, data, mode, os.O_TRUNC)
        _rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _rename(aside: Path, path: Path) -> None:
    os.replace(aside, path)
    sync_directory(path.parent)


def write_new(path: Path, content: str, mode: int) -> None:
    """Write a file that must not be there yet, and flush it and its entry. Raises FileExistsError."""
    _write_durably(path, content.encode(), mode, os.O_EXCL)
    sync_directory(path.parent)


def _write_durably(path: Path, data: bytes, mode: int, how: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how, mode)
    try:
        write_all(handle, data)
        flush(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write `value` atomically as indented JSON; NaN and infinity are refused, they are not JSON."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n", mode)


def read_json(path: Path) -> Any:
    return parse_json(path.read_text())


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError for anything that is not JSON, also for brackets nested without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def whole_lines(content: bytes) -> tuple[list[bytes], int]:
    """The lines of a file of JSON objects, and how many bytes they are: all but a last one that a
    crash has torn. A last line that lacks nothing but its newline is whole: an editor or a shell
    took it.
    """
    complete, _, last = content.rpartition(b"\n")
    lines = complete.split(b"\n") if complete else []
    if is_torn(last):
        return lines, len(content) - len(last)
    return [*lines, last], len(content)


def is_torn(line: bytes) -> bool:
    """Whether this may be the beginning of a JSON object that was not written to its end: no whole
    object begins here."""
    try:
        json.JSONDecoder().raw_decode(line.decode("latin-1"))
    except (ValueError, RecursionError):
        return True
    return False


def reserve(path: Path) -> None:
    """Take the whole file's room on the disk now: a disk that is full under a memory map kills the
    process. Raises OSError."""
    with open(path, "r+b") as file:
        take_room(file.fileno())


def private(path: Path) -> None:
    """An empty file that only its owner can read, if there is none."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def show(aside: Path, path: Path) -> None:
    """Flush a file that was written beside `path`, and rename it over that, for good."""
    _flush(aside)
    _rename(aside, path)


def remove_leftovers(directory: Path) -> None:
    """Remove what `write_atomic` left in a directory when it was killed."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_directory(path: Path) -> None:
    """Remove a directory tree that may be half removed already."""
    shutil.rmtree(path, ignore_errors=True)
