"""Is a repeated release the same release? A replay guard knows, without keeping anything private.

A stopped run repeats releases, on purpose and unpaid; that is right only while the sums are equal
to the last bit, and an upgrade, another processor or one changed image could make them differ.
Another sum gets noise of its own (`noise/binding.py`), so its release is a second one, which nobody
has paid for. So the seal of every sum, a keyed hash, is written to the disk before noise is added,
and a repeated sum must have the same one.
"""

import os
from pathlib import Path

from sfumato.core.errors import LedgerError
from sfumato.core.files import append_json, parse_json, whole_lines


class ReplayGuard:
    """Seals of the sums measured so far, in an append-only file of JSON lines; without the key they
    tell nothing."""

    def __init__(self, path: Path):
        self.path = path
        self._seen: dict[str, str] = {}
        content = path.read_bytes() if path.exists() else b""
        lines, good = whole_lines(content)
        for line in lines:
            try:
                record = parse_json(line)
                self._seen[record["release"]] = record["sum"]
            except (ValueError, KeyError, TypeError):
                raise LedgerError(
                    f"{path}: damaged, so it cannot tell whether a repeated release is the same: restore it or "
                    "start a new run"
                ) from None
        if len(content) > good:  # a line torn by a crash belongs to a sum that got no noise
            os.truncate(path, good)
        elif content and not content.endswith(b"\n"):
            with open(path, "ab") as file:
                file.write(b"\n")

    def knows(self, release: str) -> bool:
        return release in self._seen

    def check(self, release: str, seal: str) -> None:
        """Remember the seal of a new release's sum; raise LedgerError if this release had another
        sum before."""
        if (before := self._seen.get(release)) is None:
            append_json(self.path, {"release": release, "sum": seal})
            self._seen[release] = seal
        elif before != seal:
            raise LedgerError(
                f"release {release!r}: repeating it gives another sum than before (another machine, other "
                "software or flags, or a copy of this run), which would be a second release for one payment: "
                "resume where it began, or start a new run"
            )
