"""Features of public examples: read, told apart by a hash, turned into the part of the row map that
costs no privacy."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from sfumato.core.errors import DataError, RunError
from sfumato.data.rows import read_features
from sfumato.features.heads import Sphere
from sfumato.plan.public_facts import PublicRows
from sfumato.solve.public_rows import check_public, directions, public_sphere


def describe_public(path: Path, d: int, n: int, mu: float, rooted: bool) -> PublicRows:
    """Read the file and decide how many directions n private rows and a budget of mu can carry.
    Raises DataError."""
    rows = read_features(path)
    if rows.shape[1] != d:
        raise DataError(
            f"public={str(path)!r}: rows of {rows.shape[1]} features; the private ones have {d}"
        )
    found = PublicRows(str(path), len(rows), _hash(rows), directions(n, mu))
    return PublicRows(found.path, found.count, found.sha256, _sphere(found, rooted).size - 1)


def check_overlap(public: PublicRows | None, private: np.ndarray) -> str:
    """As `check_public`."""
    return "" if public is None else check_public(read_features(Path(public.path)), private)


def sphere_for(public: PublicRows | None, d: int, rooted: bool) -> Sphere:
    """The row map before anything private is known. Raises RunError if the public rows are not
    those of the plan."""
    if public is None:
        return Sphere.plain(d, rooted)
    if _hash(read_features(Path(public.path))) != public.sha256:
        raise RunError(
            f"public={public.path!r}: its rows changed since the run was planned; restore the file or start a new "
            "run"
        )
    return _sphere(public, rooted)


@lru_cache(maxsize=8)
def _sphere(public: PublicRows, rooted: bool) -> Sphere:
    return public_sphere(read_features(Path(public.path)), public.directions, rooted)


def _hash(rows: np.ndarray, chunk: int = 4096) -> str:
    found = hashlib.sha256(f"{rows.dtype.str} {rows.shape}".encode())
    for start in range(0, len(rows), chunk):
        found.update(np.ascontiguousarray(rows[start : start + chunk]).tobytes())
    return found.hexdigest()
