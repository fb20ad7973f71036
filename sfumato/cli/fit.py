"""`sfumato fit`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.cli.train import train
from sfumato.plan.config import (
    DataConfig,
    MethodConfig,
    PrivacyConfig,
    RunConfig,
    SettingsConfig,
    SplitConfig,
    TrainConfig,
    UnitConfig,
)
from sfumato.plan.methods import RowsMethodName


@dataclass(frozen=True)
class Fit:
    """Train a private linear classifier on rows of features: a run directory as `sfumato train`
    makes it."""

    features: Path
    """A feature store, or a .npy (with NAME.labels.npy beside it), .npz, .safetensors or .parquet
    file."""
    privacy: tyro.conf.OmitArgPrefixes[PrivacyConfig]
    run: tyro.conf.OmitArgPrefixes[RunConfig]
    units: tyro.conf.OmitArgPrefixes[UnitConfig]
    method: RowsMethodName = "auto"
    """The flags of each are listed above [fc, or sgd where there are many features]."""
    settings: tyro.conf.OmitArgPrefixes[SettingsConfig] = field(default_factory=SettingsConfig)
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)

    def __call__(self) -> None:
        method = MethodConfig(method=self.method, model="rows", **vars(self.settings))
        method.check()
        where = DataConfig(data=str(self.features), **vars(self.split))
        train(TrainConfig(where, self.privacy, method, self.run, self.units))
