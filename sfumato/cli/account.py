"""`sfumato account`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.cli.trust import Trust


@dataclass(frozen=True)
class Account:
    """The epsilon of a ledger (a file or a run directory), or of DP-SGD with the given numbers."""

    ledger: tyro.conf.Positional[Path | None] = None
    """A file or a run's directory; or else give the four numbers."""
    noise_multiplier: float | None = None
    """Standard deviation of the noise, in units of the clip norm."""
    n: int | None = None
    """Training examples."""
    batch: int | None = None
    """Expected batch size."""
    steps: int | None = None
    """Number of steps."""
    delta: float | None = None
    """[the ledger's own, or the largest power of ten that is at most 1/(10 n) and 1e-5]"""
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.cli import accounting

        if self.ledger is not None:
            print(accounting.of_ledger(self.ledger, self.delta))
        else:
            print(
                accounting.of_numbers(
                    self.noise_multiplier, self.delta, self.n, self.batch, self.steps
                )
            )
