"""`sfumato pretrain`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.plan.config import DataConfig, Log


@dataclass(frozen=True)
class Pretrain:
    """Train a network on PUBLIC images, without any privacy, and write weights that `sfumato train
    --weights` takes."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """The .safetensors file to write."""
    model: str = "wrn-16-4"
    """A network: cnn | wrn-DEPTH-WIDTH | any of `sfumato models`."""
    epochs: int = 30
    """Passes over the images."""
    batch: int = 128
    """Images in a step."""
    learning_rate: float = 0.1
    """At its largest."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    size: int | None = None
    """Side in pixels to which the network resizes its images [its own]."""
    seed: int = 0
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.runs import pretraining
        from sfumato.train.public_training import PretrainSettings

        settings = PretrainSettings(
            self.epochs, self.batch, self.learning_rate, self.momentum, self.weight_decay, self.seed
        )
        pretraining.pretrain(
            pretraining.PretrainConfig(
                self.data, self.model, self.out, settings, self.size, self.log
            )
        )
