"""`sfumato data pack`."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.core.checks import MAX_PIXELS
from sfumato.plan.config import ColumnsConfig, Log


@dataclass(frozen=True)
class PackImages:
    """Any images as records that are read at random, resized once. As private as the images."""

    data: tyro.conf.Positional[str]
    """A folder, a table, or any other files of images that `sfumato train` reads."""
    out: tyro.conf.Positional[Path]
    """Directory to create, or to continue if packing was stopped."""
    side: int | None = None
    """Shorter side in pixels; the center square is kept [bytes are copied as they are]."""
    quality: int = 95
    """Of the JPEGs that --side makes, 1 to 100."""
    gray: bool = False
    """With --side: one gray channel."""
    unit: str | None = None
    """Which images belong together, as for `sfumato train`."""
    skip_unreadable: Path | None = None
    """Leave out the images in this list, which `sfumato data check` writes."""
    max_pixels: int = MAX_PIXELS
    """Largest image that is decoded, width times height."""
    columns: tyro.conf.OmitArgPrefixes[ColumnsConfig] = field(default_factory=ColumnsConfig)
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.data import ReadOptions
        from sfumato.data.formats.packs import PRIVATE
        from sfumato.runs.packing import pack
        from sfumato.runs.progress import make_progress

        options = ReadOptions(
            gray=self.gray,
            skip_unreadable=self.skip_unreadable,
            unit=self.unit,
            max_pixels=self.max_pixels,
            **vars(self.columns),
        )
        place, out = Path(self.data).expanduser(), self.out.expanduser()
        with closing(make_progress(self.log)) as progress:
            found = pack(place, out, options, self.side, self.quality, progress)
        counts = ", ".join(f"{count:,} {split}" for split, count in found.counts.items())
        size = sum(each.bytes for part in found.parts.values() for each in part.shards)
        print(f"packed    {self.out}: {counts} images, {size / 1e6:,.1f} MB")
        print(f"private   {PRIVATE}")
