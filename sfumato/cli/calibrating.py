"""`sfumato calibrate`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Calibrate:
    """The noise multiplier that DP-SGD with Poisson sampling needs for a privacy budget."""

    epsilon: float
    """The privacy budget of all steps."""
    n: int
    """Training examples."""
    batch: int
    """Expected batch size."""
    steps: int
    """Number of steps."""
    delta: float | None = None
    """[the largest power of ten that is at most 1/(10 n) and 1e-5]"""

    def __call__(self) -> None:
        from sfumato.cli import accounting

        print(accounting.calibrate(self.epsilon, self.delta, self.n, self.batch, self.steps))
