"""How sure an accuracy is: exact 95 % intervals for a proportion (Clopper & Pearson 1934)."""

from dataclasses import dataclass


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
        from scipy.stats import binomtest

        low, high = binomtest(self.right, self.n).proportion_ci(0.95, method="exact")
        return float(low), float(high)
