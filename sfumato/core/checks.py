"""Argument checks that say what was given and what to give instead."""

import math
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

from sfumato.core.errors import ArgumentError, DataError

MAX_PIXELS = 178_956_970
"""Of an image file, as many as Pillow decodes: a small one can claim to be huge."""


LARGEST = 2**63 - 1
"""Of whole numbers: what a word of 64 bits holds, in which they are counted with."""


def pixel_count(height: int, width: int, most: int) -> None:
    """Raise DataError for an image of more than `most` pixels."""
    if width * height > most:
        raise DataError(
            f"{width:,} x {height:,} pixels, of more than {most:,}; raise the limit by --max-pixels "
            f"{width * height} (max_pixels=), or store it smaller"
        )


def positive(name: str, value: float) -> float:
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not 0 < number < math.inf:
        raise ArgumentError(name, value, "give a finite number greater than 0")
    return number


def positive_or_infinite(name: str, value: float) -> float:
    return math.inf if value == math.inf else positive(name, value)


def noisy(name: str, value: float) -> float:
    """A noise multiplier; who asks for none is told how to get that."""
    if value == 0:
        raise ArgumentError(
            name,
            value,
            "is no noise; a run without noise and privacy is asked for by --epsilon inf, in Python sf.calibrate(method, "
            "math.inf)",
        )
    return positive(name, value)


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
    if value > LARGEST:
        raise ArgumentError(name, value, f"give a whole number of at most {LARGEST}")
    return int(value)


AUTO: Literal["auto"] = "auto"


def whole_or_auto(name: str, value: Any) -> int | Literal["auto"]:
    if isinstance(value, str) and value != AUTO:
        raise ArgumentError(name, value, f"give a whole number of at least 1, or {AUTO}")
    return AUTO if isinstance(value, str) else whole(name, value)


def choice(name: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        raise ArgumentError(name, value, f"choose one of {', '.join(options)}")
    return value


def new_file(name: str, path: Path) -> None:
    """Raise ArgumentError where something is already, or where no file can be."""
    if path.exists():
        raise ArgumentError(name, str(path), "exists already; choose another name, or remove it")
    in_folder(name, path)


def in_folder(name: str, path: Path) -> None:
    """Raise ArgumentError where the folder of a file is missing."""
    if not path.absolute().parent.is_dir():
        raise ArgumentError(name, str(path), "there is no such folder; make it first")


LARGEST_DELTA = 1e-5
"""Of what is chosen where nobody says anything."""


def default_delta(n: int) -> float:
    """The largest power of ten that is at most 1 / (10 n) and at most 1e-5, for n >= 1 examples.

    A mechanism that publishes each example with probability delta is (0, delta)-DP: n delta
    examples, on average.
    """
    exponent = 1 + len(str(whole("n", n) - 1))  # 10^-k <= 1 / (10 n) exactly when 10^(k-1) >= n
    return min(LARGEST_DELTA, float(f"1e-{exponent}"))


def large_delta(delta: float, n: int) -> str:
    """A warning where n delta > 0.1; otherwise nothing."""
    if n * delta <= 0.1 * (1 + 1e-9):
        return ""
    return (
        f"delta={delta:g}: a method may publish {n * delta:.2g} of the n={n} examples outright and keep this promise; "
        f"give {default_delta(n):g} or less"
    )


def privacy_target(
    epsilon: float, delta: float | None, n: int, infinite: bool = False
) -> tuple[float, float]:
    """Check (epsilon, delta) against a data set of n examples; delta=None takes `default_delta(n)`.
    infinite: an epsilon that promises nothing is allowed."""
    (positive_or_infinite if infinite else positive)("epsilon", epsilon)
    if delta is None:
        delta = default_delta(n)
    if not (isinstance(delta, Real) and 0 < delta < 1 / n):
        raise ArgumentError(
            "delta",
            delta,
            f"give a number between 0 and 1/n = {1 / n:.3g}, such as {default_delta(n):g}",
        )
    return float(epsilon), float(delta)
