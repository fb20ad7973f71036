"""Units of several images in a run: what was asked for -> public facts, examples of the procedures,
words of the statement."""

from dataclasses import replace

import numpy as np

from sfumato.core.errors import ArgumentError
from sfumato.data.source import DataInfo, Source
from sfumato.data.units import Units
from sfumato.plan.config import UnitConfig
from sfumato.privacy.releases import Release


def named(info: DataInfo, config: UnitConfig) -> DataInfo:
    """The facts of a data set whose units were counted, with their noun and how many images of each
    are used."""
    if config.unit is None:
        return info
    return replace(info, unit=config.unit_name or "unit", images_per_unit=config.most)


def used(source: Source, config: UnitConfig) -> Source:
    """The training images without those that are beyond what is used of their unit: nobody looks at
    them from here on."""
    if config.unit is None:
        return source
    chosen = units_of(source, config.most)
    return source.subset(np.sort(chosen.images[chosen.present]), source.split)


def examples(source: Source, most: int | None, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, labels) of the examples that solvers on features see. rows: of the images. See
    `Units.mean_rows`."""
    if most is None:
        return rows, source.labels
    return units_of(source, most).mean_rows(rows, source.labels)


def units_of(source: Source, most: int) -> Units:
    """Raises ArgumentError for a source of which no units are known: its images would be clipped
    one by one."""
    if source.owners is None:
        raise ArgumentError(
            "units",
            None,
            f"{source.name} has no unit column: pass --unit to say which images belong together",
        )
    return Units.of(source.owners, most)


def reworded(releases: tuple[Release, ...], info: DataInfo) -> tuple[Release, ...]:
    """What was summed over are units."""
    if info.units is None:
        return releases
    return tuple(
        replace(each, what=each.what.replace("training images", f"training {info.unit}s"))
        for each in releases
    )


def not_covered(info: DataInfo) -> tuple[str, ...]:
    """Where the promise about a unit ends."""
    if info.images_per_unit is None:
        return ()
    unit, most = info.unit, info.images_per_unit
    return (
        f"Who belongs to which {unit}. That was taken from the data as given: images of one and the same {unit} under two "
        f"names are two {unit}s, and whoever is also to be seen in an image of another {unit} is not covered there.",
        f"Images of one {unit} beyond {most}. They are not used at all, so nothing of them is released and nothing is learned "
        f"from them.",
    )


def grouped(source: Source, most: int | None) -> Source:
    """For an estimate: images that are nobody's, `most` in each unit, the largest it may have."""
    return (
        source
        if most is None
        else replace(source, owners=np.array([str(k // most) for k in range(len(source))]))
    )
