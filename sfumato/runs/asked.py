"""What commands ask of this room, with the words of their flags; as light as the command line."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.plan.config import ColumnsConfig, DataConfig, Log
from sfumato.train.pretrain_settings import PretrainSettings


@dataclass(frozen=True)
class EvaluatedColumns(ColumnsConfig):
    """With --data, as for `sfumato train`."""

    split: str | None = None
    """Of the run's own data set: test or validation [test]. With --data: the column that says train,
    val or test [split, subset, ... where there is one]."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What `sfumato evaluate` is asked."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    data: str | None = None
    """Other labeled images with the same classes, all of them (or their test part, if they have
    one) [the run's own]."""
    data_dir: Path | None = None
    """Where named data sets lie [as for the run]."""
    columns: tyro.conf.OmitArgPrefixes[EvaluatedColumns] = field(default_factory=EvaluatedColumns)
    max_pixels: int | None = None
    """Largest image file that is decoded, width times height [the run's own limit]."""
    skip_unreadable: Path | None = None
    """Leave out the images in this list, which `sfumato data check` writes."""
    positive: str | None = None
    """Two classes: the one that is looked for, whose share found is the sensitivity [the second]."""
    group: str | None = None
    """Also for each group of images apart: the name of a column, of the table of images, an array of
    the .npz file or in --group-table."""
    group_table: Path | None = None
    """A table (.csv, .tsv, .jsonl, .parquet) with a column of files and the column that --group names."""
    calibrate: bool = False
    """Find a temperature, and for two classes a threshold, on these images (--split validation, or
    --data), and keep them beside the model in calibration.json, for `predict` too. No epsilon covers
    these two numbers."""


@dataclass(frozen=True)
class PretrainConfig:
    """What `sfumato pretrain` is asked."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """The .safetensors file to write."""
    model: str = "wrn-16-4"
    """A network: cnn | wrn-DEPTH-WIDTH | any of `sfumato models`."""
    settings: tyro.conf.OmitArgPrefixes[PretrainSettings] = field(default_factory=PretrainSettings)
    size: int | None = None
    """Side in pixels to which the network resizes its images [its own]."""
    log: Log = "bar"
