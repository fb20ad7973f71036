"""`sfumato resume`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.cli.trust import Trust
from sfumato.plan.config import LayoutConfig, Log, read_config


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped; its result is that of the uninterrupted run, bit for bit."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    log: Log | None = None
    """bar, json or quiet [as the run was started]."""
    layout: tyro.conf.OmitArgPrefixes[LayoutConfig] = field(default_factory=LayoutConfig)
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.cli import printing
        from sfumato.core.devices import writes
        from sfumato.runs import training

        directory = training.resume(self.run, self.log, self.layout)
        log = self.log or read_config(directory.file("config.json")).run.log
        if writes():
            printing.print_result(directory, log)
