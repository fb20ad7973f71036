"""The errors a user can cause. Each message is one line: what was given, why it cannot be, the way out.

The command line prints the message and exits with code 2; from Python they are ordinary exceptions.
"""

from typing import Any


class SfumatoError(Exception):
    """Base of every error that the caller can mend."""


class ArgumentError(SfumatoError, ValueError):
    """An argument is outside what it may be."""

    def __init__(self, argument: str, value: Any, way_out: str):
        super().__init__(f"{argument}={value!r}: {way_out}")
        self.argument, self.value, self.way_out = argument, value, way_out


class DataError(SfumatoError, ValueError):
    """A data set is missing, unreadable or unusable."""


class BudgetError(SfumatoError):
    """A release would spend more than the ledger's epsilon_max."""


class LedgerError(SfumatoError):
    """A ledger is damaged, was edited, or belongs to something else."""


class RunError(SfumatoError):
    """A run directory is not what the command needs."""


class WeightsError(SfumatoError, ValueError):
    """A weights file is missing, damaged, unsafe, or does not fit the network."""
