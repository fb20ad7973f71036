"""How many examples of a step are on the device at once: its physical batches.

Performance, never result, but for the last bits of a sum. So the number is part of no configuration; but
a run remembers which it used from which step on, and repeats a step after a crash with the same.

A batch of N examples takes ceil(N / s) physical batches of s, the last one padded. Each costs its s
examples, padding included, and `PART` more: to be launched, and to be added to the sum. N is random
where a sampler tosses coins; its law is known from a few batches that are drawn with a public key and
thrown away. On a CPU no more than `most` examples are taken, as more of them gain nothing there; on an
accelerator as many as fit. What fits is found by XLA's own analysis of compiled programs, of which none
is run.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from sfumato.core.checks import AUTO, whole
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.files import read_json, write_json
from sfumato.core.keys import SecretKey
from sfumato.sampling import Sampler

Asked = Literal["auto"] | int

PART = 4.0
"""What a physical batch costs beside its examples, in examples."""
HARDLY = 1.02
PROBES = (8, 32)
"""Sizes whose programs tell what others need: memory is nearly a line in the number of examples."""
DRAWN = 16
"""Batches that tell how large batches are."""
EXHAUSTED = "RESOURCE_EXHAUSTED"
"""How XLA's errors say that there was not enough memory."""

Needs = Callable[[int], float]
"""Examples at once -> bytes; infinity where not even compiling fits."""


def exhausted(error: Exception) -> bool:
    """Does the device say that there was not enough memory? XLA raises such errors under several
    names, by where they come to light."""
    return EXHAUSTED in str(error)


def batches(sampler: Sampler, devices: int = 1) -> list[int]:
    """The sizes of a few batches, of another key than the run's; of several devices, what falls to
    one of them."""
    key = SecretKey.from_insecure_seed(0)
    drawn = (len(sampler.indices(key, step)) for step in range(min(DRAWN, sampler.steps)))
    return [math.ceil(each / devices) for each in drawn]


def parts(sizes: Sequence[int], size: int) -> float:
    """How many physical batches of `size` a batch takes, on average."""
    return float(np.mean([math.ceil(each / size) for each in sizes]))


def evenly(sizes: Sequence[int], most: int) -> int:
    """The size, at most `most`, at which batches of these sizes cost least; the largest of those that
    cost hardly more."""
    tried = np.arange(1, max(1, min(most, max(sizes))) + 1)
    cost = sum(-(-each // tried) * (tried + PART) for each in sizes)
    return int(tried[cost <= HARDLY * np.min(cost)][-1])


def fitting(needs: Needs, free: float, sizes: Sequence[int], most: int | None) -> int:
    """The size to take in `free` bytes. most: None for as many as fit. Raises ArgumentError where not
    even one example does."""
    size = evenly(sizes, most or max(sizes))
    if most is None and size > PROBES[-1]:
        low, high = (needs(each) for each in PROBES)
        each = max((high - low) / (PROBES[1] - PROBES[0]), free / max(sizes) / PROBES[1])
        room = PROBES[0] if high == math.inf else PROBES[1] + (free - high) / each
        size = evenly(sizes, max(1, int(min(room, max(sizes)))))
    while (needed := needs(size)) > free:
        if size == 1:
            told = "more memory" if needed == math.inf else f"{needed / 1e9:.1f} GB"
            raise ArgumentError(
                "physical_batch_size",
                AUTO,
                f"one example alone needs {told}, of {free / 1e9:.1f} GB that may be used; take fewer views, smaller "
                "images, a smaller network, or jax.checkpoint",
            )
        shrunk = (
            min(size // 2, int(0.95 * size * free / needed)) if needed < math.inf else size // 2
        )
        size = evenly(sizes, max(1, min(size - 1, max(shrunk, 1))))
    return size


class PhysicalSizes:
    """Which size holds from which step on; in a file, where there is one."""

    def __init__(self, size: int | None = None):
        self._from: dict[int, int] = {} if size is None else {0: size}
        self._file: Path | None = None

    @property
    def known(self) -> bool:
        return bool(self._from)

    def at(self, step: int) -> int:
        """Of the last entry up to this step."""
        return self._from[max(each for each in self._from if each <= step)]

    def take(self, size: int, step: int = 0) -> None:
        """From this step on, and on the disk before a sum that was measured with it gets noise."""
        self._from = {each: own for each, own in self._from.items() if each < step} | {step: size}
        self._write()

    def remember(self, file: Path, writes: bool = True) -> None:
        """What a run that goes on used goes before what would be chosen now. writes: is it this
        process's to write? Raises RunError for a damaged file."""
        self._file = file if writes else None
        if file.exists():
            self._from = _read(file)
        elif self._from:
            self._write()

    @property
    def entries(self) -> list[dict[str, int]]:
        return [{"step": each, "physical_batch_size": own} for each, own in self._from.items()]

    def _write(self) -> None:
        if self._file is not None:
            write_json(self._file, {"sizes": self.entries})


def _read(file: Path) -> dict[int, int]:
    try:
        found = {
            whole("step", each["step"], at_least=0): whole("size", each["physical_batch_size"])
            for each in read_json(file)["sizes"]
        }
        if 0 not in found:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(
            f"{file}: damaged, so steps cannot be repeated as they were: restore it or start a new run"
        ) from None
    return found
