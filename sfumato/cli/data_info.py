"""`sfumato data info`. It does not import JAX, which alone takes a second."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.core.checks import MAX_PIXELS
from sfumato.plan.config import ColumnsConfig


@dataclass(frozen=True)
class Info:
    """What is known of a data set without decoding an image."""

    data: tyro.conf.Positional[str]
    """A name (`sfumato data list`), a folder, a file, or anything else `sfumato train` reads."""
    data_dir: Path | None = None
    """Where named data sets lie [$SFUMATO_DATA, or the user's cache]."""
    unit: str | None = None
    """Count units too: a regular expression on file names or a column, as for `sfumato train`."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""
    columns: tyro.conf.OmitArgPrefixes[ColumnsConfig] = field(default_factory=ColumnsConfig)

    def __call__(self) -> None:
        """What is published (for a named data set) and what is on this machine."""
        from sfumato import data
        from sfumato.core.errors import DataError, on_one_line
        from sfumato.data.listing import left_out_words

        name = self.data
        if name in data.names():
            facts = data.published(name)
            print(f"{facts.title}\n  address  {facts.address}\n  license  {facts.license}")
            for file in facts.files:
                print(f"  file     {file.name}  (md5 {file.md5})")
        try:
            options = data.ReadOptions(
                unit=self.unit, max_pixels=self.max_pixels, **vars(self.columns)
            )
            found = data.describe(name, data_dir=self.data_dir, options=options, download=False)
        except DataError as error:
            if name not in data.names():
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
