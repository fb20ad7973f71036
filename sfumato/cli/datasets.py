"""`sfumato data list` and `sfumato data info`. Nothing here imports JAX, which alone takes a second."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sfumato.core.checks import MAX_PIXELS
from sfumato.core.errors import DataError, on_one_line


@dataclass(frozen=True)
class List:
    """The named data sets."""

    def __call__(self) -> None:
        from sfumato import data

        for name in data.names():
            facts = data.published(name)
            height, width, colors = facts.shape
            counts = " + ".join(f"{count:,} {split}" for split, count in facts.counts.items())
            print(
                f"{name:<14} {height}x{width}x{colors}  {len(facts.classes):>3} classes  {counts:<28} {facts.title}"
            )


@dataclass(frozen=True)
class Info:
    """What is known of a data set without decoding an image."""

    data: tyro.conf.Positional[str]
    """A name (`sfumato data list`), a folder or a .npz file."""
    data_dir: Path | None = None
    """Where named data sets lie [$SFUMATO_DATA, or the user's cache]."""
    unit: str | None = None
    """Count units too: a regular expression on file names or a column, as for `sfumato train`."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""

    def __call__(self) -> None:
        """What is published (of a named data set) and what is on this machine."""
        from sfumato import data
        from sfumato.data.listing import left_out_words

        if self.data in data.names():
            facts = data.published(self.data)
            print(f"{facts.title}\n  address  {facts.address}\n  license  {facts.license}")
            for file in facts.files:
                print(f"  file     {file.name}  (md5 {file.md5})")
        try:
            options = data.ReadOptions(unit=self.unit, max_pixels=self.max_pixels)
            found = data.describe(
                self.data, data_dir=self.data_dir, options=options, download=False
            )
        except DataError as error:
            if self.data not in data.names():
                raise
            print(f"  here     no: {error}")
            return
        shape = "x".join(map(str, found.shape)) if found.shape else "unknown size"
        counts = ", ".join(f"{count:,} {split}" for split, count in found.counts.items())
        print(
            f"  here     {found.path}\n  images   {counts}; {shape}\n  classes  {', '.join(map(on_one_line, found.classes))}"
        )
        if found.left_out:
            print(f"  left out {left_out_words(found.left_out)}")
        if found.units is not None:
            print(f"  units    {found.units:,} train")


@dataclass(frozen=True)
class DataSets:
    """Named data sets: what there is, and what is on this machine."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Info, tyro.conf.subcommand("info")]
    ]

    def __call__(self) -> None:
        self.what()
