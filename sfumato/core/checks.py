"""Argument checks that say what was given and what to give instead."""

import math
from numbers import Integral, Real

from sfumato.core.errors import ArgumentError


def positive(name: str, value: float) -> float:
    if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise ArgumentError(name, value, "give a finite number greater than 0")
    return float(value)


def probability(name: str, value: float) -> float:
    if not (isinstance(value, Real) and 0 < value <= 1):
        raise ArgumentError(name, value, "give a probability greater than 0 and at most 1")
    return float(value)


def fraction(name: str, value: float) -> float:
    if not (isinstance(value, Real) and 0 <= value < 1):
        raise ArgumentError(name, value, "give a fraction from 0 up to, but not including, 1")
    return float(value)


def whole(name: str, value: int, at_least: int = 1) -> int:
    if not (isinstance(value, Integral) and not isinstance(value, bool) and value >= at_least):
        raise ArgumentError(name, value, f"give a whole number of at least {at_least}")
    return int(value)


def choice(name: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        raise ArgumentError(name, value, f"choose one of {', '.join(options)}")
    return value


def default_delta(n: int) -> float:
    """The largest power of ten below 1/n, n >= 1 (so that no single example may simply be published)."""
    whole("n", n)
    exponent = -len(str(n))  # 10^-k < 1/n exactly when 10^k > n, and k = number of digits is the smallest such
    return float(f"1e{exponent}")


def privacy_target(epsilon: float, delta: float | None, n: int) -> tuple[float, float]:
    """Check (epsilon, delta) against a data set of n examples; delta=None takes `default_delta(n)`."""
    positive("epsilon", epsilon)
    if delta is None:
        delta = default_delta(n)
    if not (isinstance(delta, Real) and 0 < delta < 1 / n):
        raise ArgumentError("delta", delta, f"give a number between 0 and 1/n = {1 / n:.3g}, such as {default_delta(n):g}")
    return float(epsilon), float(delta)
