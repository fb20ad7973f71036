"""Commands that train on images: train, resume, pretrain."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.cli.trust import Trust
from sfumato.core import plugins
from sfumato.core.errors import ArgumentError
from sfumato.plan.config import (
    DataConfig,
    Log,
    MethodConfig,
    PrivacyConfig,
    Published,
    RunConfig,
    TrainConfig,
    UnitConfig,
)


@dataclass(frozen=True)
class Train:
    """Train a private classifier: a run directory with model, ledger and report."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    privacy: tyro.conf.OmitArgPrefixes[PrivacyConfig]
    method: tyro.conf.OmitArgPrefixes[MethodConfig]
    run: tyro.conf.OmitArgPrefixes[RunConfig]
    units: tyro.conf.OmitArgPrefixes[UnitConfig]
    recipe: str | None = None
    """Settings of a published result, NAME or NAME:EPSILON of `sfumato recipes`; with --dry-run,
    what it costs at full size."""
    scale: float | None = None
    """With --recipe: share of its images, batch and steps."""
    device_memory: float = 80.0
    """For a recipe's --dry-run: GB."""
    device_flops: float = 1e14
    """For a recipe's --dry-run: floating-point operations per second, sustained."""
    no_estimate: bool = False
    """For --dry-run: print the plan at once, without timing a small copy of it."""

    def __call__(self) -> None:
        from sfumato.cli import commands

        plugins.allow(self.data.data, self.method.model)
        published = None
        if self.recipe is not None:
            published = Published(self.recipe, self.scale, self.device_memory, self.device_flops)
        elif self.scale is not None:
            raise ArgumentError("scale", self.scale, "is for a --recipe")
        config = TrainConfig(self.data, self.privacy, self.method, self.run, self.units)
        commands.train(config, published, timed=not self.no_estimate)


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped; its result is that of the uninterrupted run, bit for bit."""

    run: tyro.conf.Positional[Path]
    log: Log | None = None
    """bar, json or quiet [as the run was started]."""
    trust: Trust = ()
    """Code from outside that the run was begun with, package.module:function; without this flag it is
    not imported."""

    def __call__(self) -> None:
        from sfumato.cli import commands

        plugins.allow(*self.trust)
        commands.resume(self.run, self.log)


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
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    size: int | None = None
    """Side in pixels to which the network resizes its images [its own]."""
    seed: int = 0
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.runs import pretraining
        from sfumato.train.pretrain import PretrainSettings

        plugins.allow(self.data.data)
        settings = PretrainSettings(
            self.epochs, self.batch, self.learning_rate, self.momentum, self.weight_decay, self.seed
        )
        pretraining.pretrain(
            pretraining.PretrainConfig(
                self.data, self.model, self.out, settings, self.size, self.log
            )
        )
