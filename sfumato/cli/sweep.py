"""`sfumato sweep`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.cli.row_source import RowSource, methods_of
from sfumato.core.errors import ArgumentError
from sfumato.plan.config import Log, PromiseConfig, SettingsConfig, SplitConfig, UnitConfig


@dataclass(frozen=True)
class Sweep:
    """Linear heads at several epsilons: the privacy-utility curve as PNG, table and JSON, with the
    line without privacy."""

    out: Path
    """Directory to create."""
    source: tyro.conf.OmitArgPrefixes[RowSource] = field(default_factory=RowSource)
    settings: tyro.conf.OmitArgPrefixes[SettingsConfig] = field(default_factory=SettingsConfig)
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(default_factory=SplitConfig)
    promise: tyro.conf.OmitArgPrefixes[PromiseConfig] = field(default_factory=PromiseConfig)
    units: tyro.conf.OmitArgPrefixes[UnitConfig] = field(default_factory=UnitConfig)
    epsilon: str = "0.1,1,3,8"
    """Comma-separated."""
    method: str = "ls,fc,newton,sgd"
    """Comma-separated, of those listed above; flags must be of all of them."""
    delta: float | None = None
    """[the largest power of ten that is at most 1/(10 n) and 1e-5]"""
    repeats: int = 1
    """Fits of every point; each spends its own epsilon."""
    log: Log = "bar"

    def __call__(self) -> None:
        base = self.source.asked(
            self.settings, self.split, self.promise, self.units, delta=self.delta
        )
        from sfumato.runs import sweeping as curves

        print(
            curves.sweep(
                curves.SweepConfig(
                    base,
                    _numbers("epsilon", self.epsilon),
                    methods_of(self.method),
                    self.out,
                    self.repeats,
                    self.log,
                )
            )
        )
        print(f"\ncurve     {self.out / 'sweep.png'}\npage      {self.out / 'sweep.html'}")


def _numbers(argument: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            argument, text, "give numbers with commas between them, such as 0.1,1,8"
        ) from None
