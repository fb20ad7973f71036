"""Examples that hold NaN or infinity: their owner hears of them before anything is paid.

They count as nothing in every sum, so a data set of little else would spend its epsilon on noise
alone. Every fit goes through the same door: where most examples are spoiled it is refused, where
some are it goes on and says how many. What is said, and whether there is a fit, depends on private
examples (docs/guarantee.md, "Sharp edges"). So the line is drawn at half of them, where hardly any
data set is one example away from it, and not at the first.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from sfumato.core.errors import DataError
from sfumato.data.source import CHUNK, Source, Splits, not_finite


@dataclass(frozen=True, eq=False)
class Spoiled:
    """which: of n examples, those that hold NaN or infinity. what: their noun, in the plural.
    column: a feature that is finite in no row, by its number or name; None where there is none.
    """

    which: Bool[np.ndarray, " n"]
    what: str
    column: int | str | None = None

    def __bool__(self) -> bool:
        return bool(self.which.any())

    @property
    def most(self) -> bool:
        return 2 * int(self.which.sum()) > len(self.which)

    def __str__(self) -> str:
        where = (
            f"the first at {int(self.which.argmax())}"
            if self.column is None
            else f"all of column {self.column!r}"
        )
        return f"{int(self.which.sum())} of {len(self.which)} {self.what} hold NaN or infinity, {where}"

    @property
    def warning(self) -> str:
        return f"{self}; they count as nothing"

    @property
    def way_out(self) -> str:
        fill = (
            "leave them out, or fill such places"
            if self.column is None
            else "leave the column out, or fill it"
        )
        return f"such {self.what} count as nothing, and the budget would buy nothing; {fill} with a public number"


def of_rows(
    matrix: Shaped[np.ndarray, "n d"],
    what: str = "rows",
    names: Shaped[np.ndarray, " d"] | None = None,
) -> Spoiled:
    """names: of the columns, for the message."""
    found = Spoiled(not_finite(matrix), what)
    if not found.most:
        return found
    column = _empty_column(matrix[k : k + CHUNK] for k in range(0, len(matrix), CHUNK))
    return replace(found, column=column if column is None or names is None else str(names[column]))


def of_source(source: Source, what: str = "") -> Spoiled:
    """Of a split; where units have several images, of units: one that is spoiled spoils the mean of
    its unit. Images of bytes, which cannot be spoiled, are not read. what: begins their noun.
    """
    parts = [slice(k, k + CHUNK) for k in range(0, len(source), CHUNK)]
    if source.is_bytes:
        return Spoiled(np.zeros(len(source), bool), f"{what}images")
    everybody, is_rows = np.arange(len(source)), source.shape[:2] == (1, 1)
    found = Spoiled(
        np.concatenate([not_finite(source.raw(everybody[part])) for part in parts]),
        f"{what}{'rows' if is_rows else 'images'}",
    )
    if source.owners is not None:
        names, owner = np.unique(source.owners, return_inverse=True)
        found = Spoiled(np.bincount(owner, found.which, len(names)) > 0, f"{what}units")
    if not (found.most and is_rows):
        return found
    return replace(
        found, column=_empty_column(source.raw(everybody[part])[:, 0, 0, :] for part in parts)
    )


def checked(splits: Splits, held_out: Source | None) -> tuple[str, ...]:
    """What their owner should know of the training examples, and of those that a model will be
    tried on.

    Raises DataError where most training examples are spoiled.
    """
    train = of_source(splits.train, "training ")
    if train.most:
        raise DataError(f"{splits.train.name}: {train}; {train.way_out}")
    shown = None if held_out is None else of_source(held_out, f"{held_out.split} ")
    return (
        *([train.warning] if train else []),
        *([f"{shown}; what is predicted for them means nothing"] if shown else []),
    )


def _empty_column(parts: Iterable[Shaped[np.ndarray, "b d"]]) -> int | None:
    """The first column without a finite number."""
    seen: Any = False
    for part in parts:
        seen = seen | np.isfinite(part).any(0)
    return None if np.all(seen) else int(np.argmin(seen))
