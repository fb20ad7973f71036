"""Feature stores that several jobs compute: which share of the rows is whose, and where it lies until
all are there.

    STORE/shard-2-of-8/     a store of its own: the rows of share 2, counted from 0

Shares are made of whole groups of images that are computed together, so no row depends on how many
jobs there are.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import ArgumentError

_TEXT = re.compile(r"(\d{1,6})/(\d{1,6})")
_FOLDER = re.compile(r"shard-(\d{1,6})-of-(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, from 0 on."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """ "2/8". Raises ArgumentError."""
        found = _TEXT.fullmatch(text)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 0 <= shard.index < shard.count:
            raise ArgumentError(
                "shard", text, "give I/N, I from 0 to N - 1: 0/8 to 7/8 are eight jobs"
            )
        return shard

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def folder(self, store: Path) -> Path:
        return store / f"shard-{self.index}-of-{self.count}"

    def others(self) -> "tuple[Shard, ...]":
        """All of them, this one included."""
        return tuple(Shard(index, self.count) for index in range(self.count))

    def part(self, n: int, group: int) -> range:
        """Which of n rows, in whole groups but for the last one."""
        groups = -(-n // group)
        first, last = (groups * k // self.count for k in (self.index, self.index + 1))
        return range(min(n, group * first), min(n, group * last))


def present(store: Path) -> list[Shard]:
    """The shares that were begun, in order."""
    found = [_FOLDER.fullmatch(each.name) for each in store.iterdir()] if store.is_dir() else []
    shards = [Shard(*map(int, match.groups())) for match in found if match]
    return sorted(shards, key=lambda shard: (shard.count, shard.index))
