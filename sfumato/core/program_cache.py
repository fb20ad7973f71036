"""Compiled programs, kept in the user's cache between commands: a network compiles for minutes.

A program holds instructions of the processor and the version of the compiler that it was made with, so
each kind has a directory of its own below `sfumato/xla`, and what was not used for longest leaves when
all of them together are too large. Nothing is kept from private data: images, rows, labels and secret
draws are arguments of our programs, never constants in them (`tests/test_program_cache.py` looks for
private numbers in the files).

Off with SFUMATO_NO_CACHE=1. With JAX_COMPILATION_CACHE_DIR set, JAX uses that directory, and nothing in
it is deleted. This module imports neither JAX nor NumPy, as JAX reads the environment when it is first imported.
"""

import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

from sfumato.core.machine import instructions

DIRECTORY_VARIABLE, OFF_VARIABLE = "JAX_COMPILATION_CACHE_DIR", "SFUMATO_NO_CACHE"
MOST_BYTES = 2**31


def user_cache(name: str) -> Path:
    """sfumato/NAME in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has a relative path ignored.
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "sfumato" / name


def directory(root: Path) -> Path:
    """For programs of this kind of processor and version of the compiler."""
    facts = "\n".join([version("jax"), version("jaxlib"), instructions()])
    return root / hashlib.sha256(facts.encode()).hexdigest()[:16]


def prune(root: Path, most_bytes: int) -> None:
    """Delete the programs that were not used for longest until `most_bytes` are left, of all kinds
    of processors together.

    Before a command, so that only what one adds is ever above the bound. Several may do so at once: one
    that misses a program compiles it. JAX's own bound reads the whole directory, under a lock, for
    every program that it adds, which for thousands takes longer than to compile. The system notes when
    a file was read, once a day at least (`relatime`); where it does not, the oldest go first.
    """
    found = []
    for path in root.rglob("*-cache"):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size


def arrange() -> None:
    """Set what JAX reads, unless the user has, or wants no cache, or JAX has read it already. A home
    that cannot be written has none."""
    if OFF_VARIABLE in os.environ or DIRECTORY_VARIABLE in os.environ or "jax" in sys.modules:
        return
    root = user_cache("xla")
    own = directory(root)
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        prune(root, MOST_BYTES)
    except OSError:
        return
    os.environ[DIRECTORY_VARIABLE] = str(own)
