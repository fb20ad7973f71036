"""`sfumato features --shard I/N`: N jobs compute one store, in any order, on machines that share
nothing but its directory.

Each writes a store of its own (`data/row_shards.py`). Whoever finds that all are complete joins them to the
store that one job would have written, byte by byte, and removes them. So a job may be repeated at
any time: it does what is missing. One joins at a time.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core import files, machine
from sfumato.core.errors import RunError
from sfumato.data.row_shards import Shard, present
from sfumato.data.row_store import MANIFEST, Store, digest, npy, read_manifest
from sfumato.data.source import Source
from sfumato.features.extraction import CHUNK

_OWN = ("counts", "digests")
"""Of a manifest: what differs between shares."""
_JOINING = ".joining"
_COPIED = 2**26
"""Bytes at once."""


def shares(sources: Mapping[str, Source], shard: Shard) -> dict[str, Source]:
    """The images of each split that are this job's."""
    return {
        split: source.subset(np.array(shard.part(len(source), CHUNK), np.int64), source.split)
        for split, source in sources.items()
    }


def planned(whole: Store, sources: Mapping[str, Source], shard: Shard) -> Store:
    """The manifest of a share. It names all that must be the same for every job: counts and images of
    the whole data set, beside the map and its weights."""
    counts = {split: len(shard.part(len(source), CHUNK)) for split, source in sources.items()}
    of = {"shards": shard.count, "counts": whole.counts}
    return replace(
        whole, counts=counts, digests={}, preprocessing=whole.preprocessing | {"share_of": of}
    )


def refuse_other_counts(out: Path, shard: Shard) -> None:
    """Raises RunError where the directory holds shares of another number of jobs."""
    for other in present(out):
        if other.count != shard.count:
            raise RunError(
                f"shard={str(shard)!r}: {out} holds share {other}; go on with {other.count} jobs, or choose another --out"
            )


def missing(out: Path, shard: Shard) -> list[Shard]:
    """The shares that are not complete. Raises RunError for one that was made of something else."""
    found: list[Shard] = []
    first: tuple[Shard, dict[str, Any]] | None = None
    for each in shard.others():
        if not (each.folder(out) / MANIFEST).exists():
            found.append(each)
            continue
        store = read_manifest(each.folder(out))
        if set(store.digests) != set(store.counts):
            found.append(each)
        facts = {name: value for name, value in asdict(store).items() if name not in _OWN}
        first = first or (each, facts)
        for name, value in facts.items():
            if value != first[1][name]:
                raise RunError(
                    f"{each.folder(out)}: {name} is not that of share {first[0]} (other data, weights or flags); "
                    "remove the one that is wrong and repeat its job"
                )
    return found


def join(
    out: Path, whole: Store, shard: Shard, save: Callable[[Path, Store], None]
) -> Store | None:
    """All shares as one store; None where another job is joining them. save: writes a manifest."""
    with (out / _JOINING).open("w") as lock:
        try:
            machine.lock(lock.fileno())
        except BlockingIOError:
            return None
        if (out / MANIFEST).exists():
            return read_manifest(out)
        found = _joined(out, whole, shard, save)
        (out / _JOINING).unlink()
        return found


def _joined(out: Path, whole: Store, shard: Shard, save: Callable[[Path, Store], None]) -> Store:
    files.remove_leftovers(out)
    parts = [each.folder(out) for each in shard.others()]
    for split, count in whole.counts.items():
        matrix = _joined_matrix(out, whole, split, parts)
        columns = {
            name: np.concatenate([np.load(part / f"{split}.{name}.npy") for part in parts])
            for name in ("labels", "units", "names")
            if (parts[-1] / f"{split}.{name}.npy").is_file()
        }
        for name, column in columns.items():
            files.write_atomic(out / f"{split}.{name}.npy", npy(column), mode=0o600)
        assert len(matrix) == count
        whole.digests[split] = digest(matrix, columns["labels"], columns.get("names"))
    save(out, whole)
    for part in parts:
        files.remove_directory(part)
    return whole


def _joined_matrix(out: Path, whole: Store, split: str, parts: list[Path]) -> np.ndarray:
    """SPLIT.features.npy, of those of the shares, a part at a time; it appears whole."""
    into, _ = whole.files(out, split)
    shape = (whole.counts[split], whole.features)
    aside = into.with_name(f".{into.name}.{os.getpid()}.tmp")
    files.private(aside)
    matrix = np.lib.format.open_memmap(aside, "w+", np.dtype(whole.dtype), shape)
    files.reserve(aside)
    step, done = max(1, _COPIED // (matrix.itemsize * whole.features)), 0
    for part in parts:
        own = np.load(whole.files(part, split)[0], mmap_mode="r")
        for start in range(0, len(own), step):
            rows = own[start : start + step]
            matrix[done : done + len(rows)] = rows
            done += len(rows)
    matrix.flush()
    files.show(aside, into)
    return np.load(into, mmap_mode="r")
