"""The errors a user can cause. Each message is one line: what was given, why it cannot be, the way
out.

The command line prints the message and exits with code 2; from Python they are ordinary exceptions.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_OBJECT = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")
Kinds = type[Exception] | tuple[type[Exception], ...]


def on_one_line(text: str) -> str:
    """The text with control characters, line ends and what is no character written as escapes: a
    name from the disk may hold any of them, and what is printed of it is one line and one column
    nevertheless.
    """
    hidden = ("Cc", "Cs", "Zl", "Zp")
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in hidden else c for c in text)


def said(error: Exception) -> str:
    """What another library's error says, on one line of at most 200 characters, without addresses in
    memory."""
    text = _OBJECT.sub("", str(error))
    return " ".join(text.split())[:200] or type(error).__name__


class SfumatoError(Exception):
    """Base of every error that the caller can mend."""

    def __str__(self) -> str:
        return on_one_line(super().__str__())


class ArgumentError(SfumatoError, ValueError):
    """An argument is outside what it may be."""

    def __init__(self, argument: str, value: Any, way_out: str):
        super().__init__(f"{argument}={value!r}: {way_out}")
        self.argument, self.value, self.way_out = argument, value, way_out


class DataError(SfumatoError, ValueError):
    """A data set is missing, unreadable or unusable."""


def few(things: Sequence[object], most: int = 5) -> str:
    """The first of them, and whether there are more."""
    return ", ".join(map(str, things[:most])) + (", ..." if len(things) > most else "")


@contextmanager
def data_error(told: str, way_out: str = "", kinds: Kinds = Exception) -> Iterator[None]:
    """What a library raises about data becomes a DataError, "`told` (what it says); `way_out`". Our own
    errors pass. kinds: of the library's errors."""
    try:
        yield
    except SfumatoError:
        raise
    except kinds as error:
        raise DataError(f"{told} ({said(error)}){way_out and f'; {way_out}'}") from None


class BudgetError(SfumatoError):
    """A release would spend more than the ledger's epsilon_max."""


class LedgerError(SfumatoError):
    """A ledger is damaged, was edited, or belongs to something else."""


class RunError(SfumatoError):
    """A run directory is not what the command needs."""


class WeightsError(SfumatoError, ValueError):
    """A weights file is missing, damaged, unsafe, or does not fit the network."""
