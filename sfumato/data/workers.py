"""The threads of this process that read and decode: one pool, as wide as the processors it may use,
made at first use. (Decoders, digests and the disk let go of the interpreter's lock.)
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sfumato.core.machine import processors

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4
"""Items begun beyond the one that is waited for, by thread."""


class _Pool:
    """executor: None before the first use, and in a child after a fork, which has no threads."""

    def __init__(self) -> None:
        self.forget()
        self.inside = threading.local()

    def forget(self) -> None:
        self.executor: ThreadPoolExecutor | None = None
        self.lock = threading.Lock()

    def begin(self) -> ThreadPoolExecutor:
        with self.lock:
            if self.executor is None:
                self.executor = ThreadPoolExecutor(processors(), "sfumato", self._mark)
            return self.executor

    def _mark(self) -> None:
        self.inside.here = True


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)


def spread(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What `work` makes of each item, in their order. A few are worked on ahead, so any number of
    items takes bounded memory. What `work` raises is raised here, in the item's turn.

    Work that itself asks for this does its items one after the other: threads that wait for each
    other could wait for ever.
    """
    if getattr(_POOL.inside, "here", False):
        yield from map(work, items)
        return
    executor, waiting = _POOL.begin(), deque[Future[R]]()
    try:
        for item in items:
            waiting.append(executor.submit(work, item))
            if len(waiting) > AHEAD * processors():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
