"""What a run says while it works: bars for people, JSON lines for programs, or nothing."""

import json
import math
import sys
import time
from typing import Any, Protocol, runtime_checkable

from sfumato.core import typed_json
from sfumato.privacy import accountants
from sfumato.privacy.events import Event, Tally
from sfumato.privacy.neighbors import Relation
from sfumato.privacy.not_private import MARK


@runtime_checkable
class Progress(Protocol):
    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        """A new stage of `total` units (images or steps), of which `done` are done."""

    def advance(self, done: int, **facts: Any) -> None:
        """`done` units of the stage are done by now; facts such as images (seen in all) and
        epsilon."""

    def say(self, text: str, **facts: Any) -> None:
        """Something worth knowing, in words and as facts."""

    def close(self) -> None: ...


class Quiet:
    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None: ...
    def advance(self, done: int, **facts: Any) -> None: ...
    def say(self, text: str, **facts: Any) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """One object per line on standard output; at most five `progress` lines a second."""

    def __init__(self) -> None:
        self._stage, self._total, self._unit = "", 0, ""
        self._last = self._began = 0.0

    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self._stage, self._total, self._unit, self._began, self._last = (
            stage,
            total,
            unit,
            time.monotonic(),
            0.0,
        )
        self._write({"event": "stage", "stage": stage, "total": total, "unit": unit})

    def advance(self, done: int, **facts: Any) -> None:
        now = time.monotonic()
        if now - self._last > 0.2 or done == self._total:
            self._last = now
            self._write(
                {
                    "event": "progress",
                    "stage": self._stage,
                    "done": done,
                    "total": self._total,
                    "unit": self._unit,
                    "seconds": round(now - self._began, 3),
                    **facts,
                }
            )

    def say(self, text: str, **facts: Any) -> None:
        self._write({"event": "message", "text": text, **facts})

    def close(self) -> None: ...

    def _write(self, record: dict[str, Any]) -> None:
        print(json.dumps(typed_json.plain(record)), flush=True)


class Bars:
    """A bar per stage on standard error: images per second, epsilon so far, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description:<13}"),
            BarColumn(12),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=Console(file=sys.stderr),
        )
        self._task: Any = None
        self._began, self._before, self._unit = 0.0, 0, ""

    def begin(self, stage: str, total: int, unit: str, done: int = 0) -> None:
        self._bars.start()  # not before: an error may come first, and its message is one line
        self._task = self._bars.add_task(stage, total=total, completed=done, unit=unit, note="")
        self._began, self._unit = time.monotonic(), unit

    def advance(self, done: int, **facts: Any) -> None:
        images = facts.get("images", done if self._unit == "images" else 0)
        rate = images / max(time.monotonic() - self._began, 1e-3)
        notes = [f"{rate:,.0f} images/s"] if images else []
        if "epsilon" in facts:
            spent = facts["epsilon"]
            notes.append(MARK if spent == math.inf else f"ε ≤ {spent:.3f}")
        self._bars.update(self._task, completed=done, note=" · ".join(notes))

    def say(self, text: str, **facts: Any) -> None:
        self._bars.console.print(text, highlight=False)

    def close(self) -> None:
        if self._task is not None:
            self._bars.stop()


def make_progress(kind: str) -> Progress:
    kinds: dict[str, type[Progress]] = {"bar": Bars, "json": JsonLines, "quiet": Quiet}
    return kinds[kind]()


class EpsilonMeter:
    """epsilon after so many steps of a run, from above and cheaply enough to show at every step.

    PLDs take up to a second, so a subsampled run is accounted at fifty points and each step shows
    the next point's value.
    """

    POINTS = 50

    def __init__(self, events: list[Event], delta: float, relation: Relation):
        self._events, self._delta, self._relation = events, delta, relation
        self._stride = 1 if len(events) <= self.POINTS else -(-len(events) // self.POINTS)
        self._known: dict[int, float] = {0: 0.0}

    def after(self, steps: int) -> float:
        at = min(-(-steps // self._stride) * self._stride, len(self._events))
        if at not in self._known:
            counts: dict[Event, int] = {}
            for event in self._events[:at]:
                counts[event] = counts.get(event, 0) + 1
            self._known[at] = accountants.epsilon(
                counts, self._delta, _interval(counts), self._relation
            )
        return self._known[at]


def _interval(counts: Tally) -> float:
    """Wide privacy-loss buckets while running; the final statement uses the ledger and narrow ones."""
    return 1e-3 if sum(counts.values()) > 1 else accountants.PLD_INTERVAL
