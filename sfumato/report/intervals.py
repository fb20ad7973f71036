"""How sure an accuracy is: exact 95 % intervals for a proportion (Clopper & Pearson 1934)."""

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Score:
    """`right` of `n` images, as a proportion with its interval."""

    right: int
    n: int

    @property
    def value(self) -> float | None:
        return self.right / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Nothing seen (n = 0): anything is possible."""
        if not self.n:
            return 0.0, 1.0
        return _exact(self.right, self.n)


@lru_cache(maxsize=4096)
def _exact(right: int, n: int) -> tuple[float, float]:
    """It takes milliseconds, and a report asks for the interval of a class several times."""
    from scipy.stats import binomtest

    low, high = binomtest(right, n).proportion_ci(0.95, method="exact")
    return float(low), float(high)
