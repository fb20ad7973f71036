"""`sfumato data unpack`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.plan.config import ColumnsConfig


@dataclass(frozen=True)
class UnpackImages:
    """Any images as a folder, OUT/train/CLASS/NAME.jpg, for programs that read folders."""

    data: tyro.conf.Positional[str]
    """A packed data set, or any other files of images that `sfumato train` reads."""
    out: tyro.conf.Positional[Path]
    """Directory to create."""
    unit: str | None = None
    """Put the images of each unit into a folder of their own, OUT/train/CLASS/UNIT/NAME.jpg."""
    columns: tyro.conf.OmitArgPrefixes[ColumnsConfig] = field(default_factory=ColumnsConfig)

    def __call__(self) -> None:
        from sfumato.data import ReadOptions
        from sfumato.data.formats.packs import PRIVATE
        from sfumato.runs.unpacking import unpack

        options = ReadOptions(unit=self.unit, **vars(self.columns))
        count = unpack(Path(self.data).expanduser(), self.out.expanduser(), options)
        print(f"unpacked  {self.out}: {count:,} images")
        print(f"private   {PRIVATE}")
