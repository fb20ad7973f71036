"""Files that are either entirely there or not there at all, also after a power cut."""

import json
import os
import shutil
from pathlib import Path
from typing import Any


def sync_directory(path: Path) -> None:
    """Make the directory's entries (creations, renames) durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write beside `path`, flush to disk, rename over it: a reader sees the old file or the new one, never half of one."""
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON; NaN and infinity are refused, they are not JSON."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return parse_json(path.read_text())


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError for anything that is not JSON, also for brackets nested without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def remove_directory(path: Path) -> None:
    """Remove a directory tree that may be half removed already."""
    shutil.rmtree(path, ignore_errors=True)
