"""`sfumato predict`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.cli.trust import Trust
from sfumato.core.checks import MAX_PIXELS


@dataclass(frozen=True)
class Predict:
    """Classify image files or feature rows with a finished run's model (needs only its model.json
    and model.safetensors)."""

    run: tyro.conf.Positional[Path]
    """The run's directory, or a copy of these two files."""
    images: tyro.conf.Positional[list[Path]]
    """Image files, folders with images at any depth, tables of images (.npy, .npz); for a run of
    `sfumato fit`, feature rows (a store or a file, labels are not needed)."""
    json: bool = False
    """Print one JSON object per image or row, with all probabilities."""
    out: Path | None = None
    """Write a .csv table with all probabilities instead of printing."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.runs import predicting

        predicting.predict(self.run, self.images, self.json, self.out, self.max_pixels)
