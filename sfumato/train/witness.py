"""Is a repeated release the same release? A witness knows, without keeping anything private.

The noise of a release is a function of the key and its name. Publishing it on two different sums would publish their
difference. A stopped run repeats releases, on purpose and unpaid; that is safe only while the sums are equal to the last
bit, and an upgrade, another processor or one changed image could make them differ. So the keyed hash of every sum is
written to the disk before noise is added, and a repeated sum must have the same one.
"""

import hashlib
import os
from pathlib import Path

import jax
import numpy as np

from sfumato.clip import BoundedSum
from sfumato.core.errors import LedgerError
from sfumato.core.files import append_json, parse_json
from sfumato.core.keys import SecretKey
from sfumato.core.trees import leaf_names


class Witness:
    """Keyed hashes of the sums measured so far, in an append-only file of JSON lines; without the key they tell nothing."""

    def __init__(self, path: Path, key: SecretKey):
        self._path, self._key = path, key
        self._seen: dict[str, str] = {}
        complete = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        for line in complete.splitlines():
            try:
                record = parse_json(line)
                self._seen[record["release"]] = record["sum"]
            except (ValueError, KeyError, TypeError):
                raise LedgerError(f"{path}: damaged, so it cannot tell whether a repeated release is the same: restore it or "
                                  "start a new run") from None
        if path.exists():  # a line torn by a crash belongs to a sum that got no noise
            os.truncate(path, len(complete) + 1 if complete else 0)

    def check(self, release: str, total: BoundedSum) -> None:
        """Remember the sum of a new release; raise LedgerError if this release had another sum before."""
        found = self._key.mac(_digest(total))
        if (before := self._seen.get(release)) is None:
            append_json(self._path, {"release": release, "sum": found})
            self._seen[release] = found
        elif before != found:
            raise LedgerError(f"release {release!r}: repeating it gives another sum than before, so its noise must not be used "
                              "again: resume with the same software on the same machine, or start a new run")


def _digest(total: BoundedSum) -> bytes:
    digest = hashlib.sha256()
    for name, leaf in zip(leaf_names(total.value), jax.tree.leaves(total.value), strict=True):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return digest.digest()
