"""`sfumato evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sfumato.cli.trust import Trust


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a finished run's model on test images."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    data: str | None = None
    """Other labeled images with the same classes, all of them (or their test part, if they have
    one) [the run's own]."""
    data_dir: Path | None = None
    """Where named data sets lie [as for the run]."""
    split: Literal["test", "validation"] = "test"
    """Of the run's own data set."""
    max_pixels: int | None = None
    """Largest image file that is decoded, width times height [the run's own limit]."""
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.runs import evaluating

        evaluating.evaluate(self.run, self.data, self.data_dir, self.split, self.max_pixels)
