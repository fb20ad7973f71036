"""Numbers as a reader should see them. What bounds a risk is rounded up, never down (past a slack
of 10⁻⁹)."""

import math
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal

NBSP = "\u00a0"
NEIGHBORS = {
    "add-or-remove-one": (
        "one {0} is in the training set or is not",
        "adding or removing one {0}",
        "add or remove one {0}",
    ),
    "zero-out": (
        "one {0}, its place kept, counts or counts as nothing",
        "making one {0} count as nothing",
        "zero out one {0}",
    ),
    "replace-one": (
        "one {0} of the training set is exchanged for any other",
        "replacing one {0}",
        "replace one {0}",
    ),
}
"""By relation of neighborhood: how neighboring training sets differ, what makes one the other, and
the same as an order."""
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def neighbors(relation: str, unit: str) -> tuple[str, str, str]:
    """`NEIGHBORS` for a unit; a relation of later versions goes by its name."""
    unknown = (
        f"they differ in one {{0}} ({relation})",
        f"one {{0}} ({relation})",
        f"{relation}: one {{0}}",
    )
    differ, change, order = (text.format(unit) for text in NEIGHBORS.get(relation, unknown))
    return differ, change, order


def _rounded(value: float, digits: int, up: bool) -> Decimal:
    """Rounding up forgives one part in 10⁹, so that 3.0000000000000004 is shown as 3 and not as
    3.001."""
    rounding = ROUND_CEILING if up else ROUND_HALF_EVEN
    exact = Decimal(repr(float(value))) * (1 - Decimal("1e-9") if up else 1)
    return Context(prec=digits, rounding=rounding).create_decimal(exact)


def number(value: float, digits: int = 4, up: bool = False) -> str:
    """2.9996 -> '3', 0.00123 -> '0.00123', 1234567.0 -> '1,235,000'; very small or large as a power
    of ten."""
    if value == math.inf:
        return "∞"
    shown = _rounded(value, digits, up)
    if shown != 0 and not -4 <= shown.adjusted() < 7:
        return power(value, up=up)
    text = f"{shown:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def power(value: float, up: bool = True) -> str:
    """1e-5 -> '10⁻⁵', 2.1e-4 -> '2.1 × 10⁻⁴', zero -> '0'. Two digits; for δ, rounded up."""
    if value == 0:
        return "0"
    shown = _rounded(value, 2, up)
    exponent = shown.adjusted()
    mantissa = f"{shown.scaleb(-exponent).normalize():f}"
    ten = "10" + str(exponent).translate(SUPERSCRIPT)
    return ten if mantissa == "1" else f"{mantissa}{NBSP}×{NBSP}{ten}"


def epsilon(value: float) -> str:
    return number(value, up=True)


def count(value: float) -> str:
    """60000 -> '60,000'; an expected count need not be whole."""
    return (
        f"{round(value):,}"
        if abs(value - round(value)) < 0.05 or value >= 1000
        else f"{value:,.1f}"
    )


def plural(value: int, noun: str) -> str:
    """plural(2, 'class') -> '2 classes'."""
    ending = "" if value == 1 else "es" if noun.endswith("s") else "s"
    return f"{value:,}{NBSP}{noun}{ending}"


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}{NBSP}%"


def risk(share: float) -> str:
    """A percentage that bounds a risk: at most four decimals, rounded up, never shown as 100 % when
    it is less."""
    for places in (1, 2, 3, 4):
        shown = (Decimal(repr(share)) * 100).quantize(
            Decimal(1).scaleb(-places), rounding=ROUND_CEILING
        )
        if shown < 100 or share >= 1:
            return f"{min(shown, Decimal(100)).normalize():f}{NBSP}%"
    return f"more than 99.9999{NBSP}%"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def size(n_bytes: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g}{NBSP}{unit}"
    return f"{n_bytes:.0f}{NBSP}bytes"
