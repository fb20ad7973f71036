"""`sfumato tune`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sfumato.cli.row_source import RowSource, methods_of
from sfumato.plan.config import Log, PromiseConfig, RowMapConfig, SplitConfig, UnitConfig


@dataclass(frozen=True)
class Tune:
    """The best of several linear heads with random settings; the price of choosing is in epsilon."""

    out: Path
    """Run directory to create, like that of `sfumato fit`, with the settings chosen in tune.json.
    """
    source: tyro.conf.OmitArgPrefixes[RowSource] = field(default_factory=RowSource)
    rows: tyro.conf.OmitArgPrefixes[RowMapConfig] = field(default_factory=RowMapConfig)
    split: tyro.conf.OmitArgPrefixes[SplitConfig] = field(
        default_factory=lambda: SplitConfig(validation=0.1)
    )
    promise: tyro.conf.OmitArgPrefixes[PromiseConfig] = field(default_factory=PromiseConfig)
    units: tyro.conf.OmitArgPrefixes[UnitConfig] = field(default_factory=UnitConfig)
    method: str = "fc,ls"
    """Comma-separated, of those listed above."""
    epsilon: float = 3.0
    """Of everything, the choice included."""
    delta: float | None = None
    """[the largest power of ten that is at most 1/(10 n) and 1e-5]"""
    fits: float = 10.0
    """Mean number of fits, which are compared on the held-out share (--validation); how many there
    were stays secret."""
    log: Log = "bar"

    def __call__(self) -> None:
        base = self.source.asked(
            self.rows, self.split, self.promise, self.units, epsilon=self.epsilon, delta=self.delta
        )
        from sfumato.runs import tuning

        methods = methods_of(self.method)
        print(tuning.tune(tuning.TuneConfig(base, methods, self.fits, self.out, self.log)))
