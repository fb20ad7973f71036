"""Checkpoints while a run goes on: the state is copied between two steps, and a thread writes the copy
during the next ones.

How often. Where nobody says, as often as costs a fiftieth of the time: after a save that took c seconds, copy and
writing, the next one is due 50 c seconds later (`SHARE`), and `LEAST` seconds later at the earliest. A crash loses the
steps since the last one; they are repeated to the same bits and not paid again.

A checkpoint tells how far the ledger had come when the state was copied. Payments that come while it is written are
later ones, and a longer ledger is what resuming expects (`checkpoint.py`).
"""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from sfumato.train import checkpoint

SHARE = 0.02
"""Of a run's time for checkpoints, at most."""

LEAST = 10.0
"""Seconds between two of them."""


class Saver:
    """Within `with`, at whose end everything is written. seconds: between two checkpoints; None: by
    their cost.

    An error of the writing thread is raised by the next `save`, or at the end, unless the run ended with
    an error of its own.
    """

    def __init__(self, directory: Path, seconds: float | None):
        self._directory, self._seconds = directory, seconds
        self._last, self._cost = time.monotonic(), 0.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def interval(self) -> float:
        """Seconds from the last checkpoint to the next."""
        return max(LEAST, self._cost / SHARE) if self._seconds is None else self._seconds

    @property
    def due(self) -> bool:
        return time.monotonic() - self._last > self.interval

    def save(self, state: PyTree, facts: dict[str, Any]) -> None:
        """Copy the state and begin to write it. Waits for the one before."""
        self.wait()
        self._last = time.monotonic()
        # Copies: what comes next may write into the state's own arrays.
        copy = jax.tree.map(np.array, state)
        self._thread = threading.Thread(target=self._write, args=(copy, dict(facts)))
        self._thread.start()

    def wait(self) -> None:
        """Until all is written. Raises what writing it raised."""
        self._join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, state: PyTree, facts: dict[str, Any]) -> None:
        try:
            checkpoint.save(self._directory, state, facts)
        except BaseException as error:
            self._error = error
        self._cost = time.monotonic() - self._last

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
        else:
            self._join()
