"""Flags <-> sampler <-> plan.json: the one place where a run's sampler is chosen, written down and
read again."""

import math
from collections.abc import Callable
from typing import Any

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.plan.config import MethodConfig
from sfumato.privacy.relations import ADD_OR_REMOVE, Relation
from sfumato.sampling.samplers import (
    CyclicPoisson,
    FixedSize,
    FullBatch,
    Poisson,
    Sampler,
    TruncatedPoisson,
)

ROOM = 5.0
"""Standard deviations above its mean at which a batch is cut, where no `--truncate` says otherwise:
nobody notices."""

KINDS: dict[type, str] = {
    FullBatch: "full batch",
    Poisson: "Poisson",
    TruncatedPoisson: "truncated Poisson",
    CyclicPoisson: "cyclic Poisson",
    FixedSize: "fixed size",
}
"""The names of samplers in plan.json."""


def choose(config: MethodConfig, batch: int, steps: int, n: int, relation: Relation) -> Sampler:
    """The sampler that `--sampler`, `--truncate` and `--cycle` ask for: `batch` of n examples
    expected in each of `steps`.

    Raises ArgumentError where they contradict each other, the numbers or the relation of
    neighborhood.
    """
    if batch > n:
        raise ArgumentError(
            "batch", batch, f"there are only n={n} training examples; give at most that many"
        )
    for name, owner in (("truncate", "truncated"), ("cycle", "cyclic")):
        if (value := getattr(config, name)) is not None and config.sampler != owner:
            raise ArgumentError(
                name, value, f"is for --sampler {owner}; give that too, or leave it out"
            )
    match config.sampler:
        case "full" if batch < n:
            raise ArgumentError(
                "batch",
                batch,
                f"--sampler full takes all n={n} examples in every step; leave one of them out",
            )
        case "truncated":
            return _truncated(batch, steps, n, config.truncate)
        case "cyclic":
            return _cyclic(batch, steps, n, config.cycle)
        case "fixed" if relation == ADD_OR_REMOVE:
            raise ArgumentError(
                "sampler",
                "fixed",
                "batches of fixed size have no price where an example may be added or "
                "removed; give --relation zero-out or replace-one, or another --sampler",
            )
        case "fixed":
            return FixedSize(batch, steps, n)
    return FullBatch(steps, n) if batch == n else Poisson(batch / n, steps, n)


def _truncated(batch: int, steps: int, n: int, maximum: int | None) -> TruncatedPoisson:
    if batch == n:
        raise ArgumentError(
            "batch",
            batch,
            "--sampler truncated cuts random batches, and this one holds everybody; give a "
            "smaller --batch, or --sampler full",
        )
    if maximum is None:
        maximum = min(n, math.ceil(batch + ROOM * math.sqrt(batch * (1 - batch / n))))
    return TruncatedPoisson(batch / n, steps, n, whole("truncate", maximum))


def _cyclic(batch: int, steps: int, n: int, cycle: int | None) -> CyclicPoisson:
    if cycle is None:
        raise ArgumentError(
            "cycle", None, "--sampler cyclic needs a number of groups; give --cycle K"
        )
    if batch * cycle > n:
        raise ArgumentError(
            "cycle",
            cycle,
            f"a group of n / cycle = {n / cycle:.4g} examples has no batches of {batch}; give "
            f"at most {n // batch} groups, or a smaller --batch",
        )
    return CyclicPoisson(batch * cycle / n, steps, n, whole("cycle", cycle))


def to_json(sampler: Sampler) -> dict[str, Any]:
    """rate: with what probability an example takes part in a step in which it may."""
    shown = {
        "kind": KINDS[type(sampler)],
        "rate": _rate(sampler),
        "expected_batch_size": _expected(sampler),
    }
    own = {name: getattr(sampler, name) for name in ("maximum", "cycle") if hasattr(sampler, name)}
    return shown | own


def from_json(value: dict[str, Any], n: int, steps: int) -> Sampler:
    """The inverse of `to_json`, for a plan of n examples and so many steps. Raises KeyError for a
    kind of later versions."""
    rate = value["rate"]
    make: dict[str, Callable[[], Sampler]] = {
        "full batch": lambda: FullBatch(steps, n),
        "Poisson": lambda: Poisson(rate, steps, n),
        "truncated Poisson": lambda: TruncatedPoisson(rate, steps, n, value["maximum"]),
        "cyclic Poisson": lambda: CyclicPoisson(rate, steps, n, value["cycle"]),
        "fixed size": lambda: FixedSize(int(value["expected_batch_size"]), steps, n),
    }
    return make[value["kind"]]()


def describe(sampler: Sampler) -> str:
    """For the terminal, on one line."""
    told = (
        f"{KINDS[type(sampler)]}, q = {_rate(sampler):.6g}, expected batch {_expected(sampler):,}"
    )
    match sampler:
        case TruncatedPoisson(maximum=maximum):
            return f"{told}, at most {maximum:,}"
        case CyclicPoisson(cycle=cycle):
            return f"{told}, {cycle:,} groups in turn"
    return told


def _rate(sampler: Any) -> float:
    return 1.0 if isinstance(sampler, FullBatch) else float(sampler.rate)


def _expected(sampler: Sampler) -> int | float:
    """Without the last bits that dividing by n and multiplying again leaves behind."""
    size = round(sampler.expected_batch_size, 9)
    return int(size) if size == int(size) else size
