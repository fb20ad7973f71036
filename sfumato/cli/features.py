"""`sfumato features`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sfumato.plan.config import DataConfig, FeaturesConfig, Log


@dataclass(frozen=True)
class Features:
    """Compute fixed features of a data set once, into a directory that `sfumato fit` reads. As
    private as the images."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """Directory to create, or to continue if it was stopped."""
    model: str = "auto"
    """Fixed features, as for `sfumato train` [patches+scattering; with --weights the network they
    are for]."""
    weights: str | None = None
    """Public weights: a file or a name; the rows are what their network's head would see."""
    size: int | None = None
    """With --weights: side in pixels to which the network resizes its images [as the weights say].
    """
    dtype: Literal["float16", "float32"] = "float16"
    log: Log = "bar"
    unit: str | None = None
    """Which images belong together, as for `sfumato train`; `sfumato fit --unit units` then counts
    them as one."""

    def __call__(self) -> None:
        from sfumato.runs.store import PRIVATE, write_store

        store = write_store(
            FeaturesConfig(
                self.data,
                self.out,
                self.model,
                self.weights,
                self.size,
                self.dtype,
                self.log,
                self.unit,
            )
        )
        rows = ", ".join(f"{count:,} {split}" for split, count in store.counts.items())
        print(
            f"features  {self.out}: {rows} rows of {store.features:,} numbers ({store.dtype}), model {store.model}"
        )
        print(f"private   {PRIVATE}")
