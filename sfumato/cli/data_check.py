"""`sfumato data check`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.core.checks import MAX_PIXELS
from sfumato.plan.config import ColumnsConfig, Log


@dataclass(frozen=True)
class Check:
    """Decode every image, on all processors, and list those that cannot be: for --skip-unreadable."""

    data: tyro.conf.Positional[Path]
    """A folder, a table, or any other files of images that `sfumato train` reads."""
    out: Path
    """The list to write. It holds names of images, which may be private."""
    resize: int | None = None
    """As for `sfumato train`: images of any size are then fine."""
    unit: str | None = None
    """As for `sfumato train`: "folder" for class/PATIENT/*.jpg."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""
    columns: tyro.conf.OmitArgPrefixes[ColumnsConfig] = field(default_factory=ColumnsConfig)
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.data import ReadOptions
        from sfumato.runs.checking import check

        options = ReadOptions(
            resize=self.resize, unit=self.unit, max_pixels=self.max_pixels, **vars(self.columns)
        )
        print(check(self.data.expanduser(), options, self.out.expanduser(), self.log))
