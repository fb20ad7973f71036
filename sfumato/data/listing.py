"""What a reader of some format finds at a path, before any image is decoded: for each split the records,
their labels and names. All formats give this, and `from_records.py` makes a data set of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Int32

from sfumato.core.errors import ArgumentError
from sfumato.data.name_column import NameColumn
from sfumato.data.records import Records


@dataclass(frozen=True, eq=False)
class ListedPart:
    """One split. names: of each record, stable when others come or go. units: to which unit each
    belongs, where units were asked for and the format knows them ("" for a record of an evaluation
    part that is in none)."""

    records: Records
    labels: Int32[np.ndarray, "n ..."]
    names: NameColumn
    units: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, kept: Bool[np.ndarray, " n"]) -> "ListedPart":
        """The records of a mask."""
        units, chosen = self.units, np.flatnonzero(kept)
        return ListedPart(
            self.records.subset(chosen),
            self.labels[chosen],
            self.names[chosen],
            units if units is None else [units[k] for k in chosen.tolist()],
        )


@dataclass(frozen=True, eq=False)
class Listing:
    """name, place: what the data set is called, and where it lies. parts: "train", and "validation"
    and "test" where the data set has them. left_out: files that are not read, by their ending.
    skipped: names of the records that the user's list of unreadable ones has left out. named: whether
    names are the records' own, and not their positions.
    """

    name: str
    place: str
    classes: tuple[str, ...]
    parts: dict[str, ListedPart]
    left_out: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    named: bool = True

    def without(self, names: Sequence[str]) -> "Listing":
        """Without the records of these names, whatever their split. Raises ArgumentError where the data
        set has none of them."""
        gone, parts, skipped = set(names), {}, []
        for split, part in self.parts.items():
            kept = np.fromiter((name not in gone for name in part.names), bool, len(part))
            skipped += part.names[~kept].tolist()
            parts[split] = part if kept.all() else part.at(kept)
        if gone and not skipped:
            raise ArgumentError(
                "skip_unreadable",
                next(iter(names)),
                f"{self.place} has no image of this name, nor of the other {len(gone) - 1} in the list; give the "
                "list that `sfumato data check` wrote for this data set",
            )
        return replace(self, parts=parts, skipped=tuple(sorted(skipped)))


def left_out_words(left_out: dict[str, int]) -> str:
    """For people: "60 files that are not read: 40 .tif, 20 .gif"; empty if there are none."""
    total = sum(left_out.values())
    named = ", ".join(f"{count:,} {ending}" for ending, count in left_out.items())
    return (
        f"{total:,} {'file that is' if total == 1 else 'files that are'} not read: {named}"
        if total
        else ""
    )
