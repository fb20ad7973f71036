"""What `sfumato sweep` and `sfumato tune` fit heads on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from sfumato.core.errors import ArgumentError
from sfumato.plan.config import (
    ColumnsConfig,
    DataConfig,
    MethodConfig,
    PrivacyConfig,
    PromiseConfig,
    ReadingConfig,
    SplitConfig,
    TrainConfig,
    UnitConfig,
)


@dataclass(frozen=True)
class RowSource:
    """Rows to fit heads on: given ones, or those of a data set under fixed features."""

    features: Path | None = None
    """Rows as for `sfumato fit`; or else give --data."""
    data: str | None = None
    data_dir: Path | None = None
    model: str = "auto"
    """With --data: fixed features, as for `sfumato train --method fc` [by color or gray; with
    --weights their network]."""
    weights: str | None = None
    """With --data: public weights, a file or a name."""
    size: int | None = None
    """With --weights: side in pixels to which the network resizes its images [as the weights say].
    """
    columns: tyro.conf.OmitArgPrefixes[ColumnsConfig] = field(default_factory=ColumnsConfig)
    reading: tyro.conf.OmitArgPrefixes[ReadingConfig] = field(default_factory=ReadingConfig)

    def asked(
        self,
        settings: Any,
        split: SplitConfig,
        promise: PromiseConfig,
        units: UnitConfig,
        **budget: Any,
    ) -> TrainConfig:
        """As for `sfumato train`, whose method and, perhaps, epsilon are left open. settings: a
        section of MethodConfig. Raises ArgumentError."""
        if (self.features is None) == (self.data is None):
            raise ArgumentError("features", self.features, "give either --features or --data")
        network: dict[str, Any] = {"model": "rows"}
        if self.features is None:
            network = {"model": self.model, "weights": self.weights, "size": self.size}
        config = TrainConfig(
            DataConfig(
                data=str(self.features or self.data),
                data_dir=self.data_dir,
                **vars(self.columns),
                **vars(self.reading),
                **vars(split),
            ),
            PrivacyConfig(**budget, **vars(promise)),
            MethodConfig(method="fc", **network, **vars(settings)),
            units=units,
        )
        config.units.check()
        return config


def methods_of(text: str) -> tuple[str, ...]:
    """ "ls,fc" -> ("ls", "fc")."""
    return tuple(text.split(","))
