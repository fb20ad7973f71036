"""How sure an accuracy is: exact 95 % intervals for a proportion (Clopper & Pearson 1934)."""

from dataclasses import dataclass


def clopper_pearson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval that covers the true proportion with probability at least `level`, whatever that
    proportion is.

    The lower end is the p at which `right` or more successes in n have probability (1 - level) / 2,
    the upper end the p at which `right` or fewer have; both are quantiles of Beta laws. Nothing
    seen (n = 0): anything is possible.
    """
    if not 0 <= right <= n or not 0 < level < 1:
        raise ValueError(
            f"clopper_pearson({right}, {n}, {level}): needs 0 <= right <= n and 0 < level < 1"
        )
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, n - right + 1))
    high = 1.0 if right == n else float(beta.ppf(1 - tail, right + 1, n - right))
    return low, high


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
        return clopper_pearson(self.right, self.n)
