"""Privacy loss distributions of compositions, through the released `dp-accounting`, on a grid that
fits what is composed.

The library rounds the loss L of one step to a grid, from above ("connect the dots"), and composes
by FFT. Three things are chosen here, because with the library's defaults a correct bound can be far
from the truth, or take hours:

spacing h     Rounding keeps E[exp(-L)] and adds a variance of at most h^2 / 4 to each step. A step's own deviation d is about
              q sqrt(exp(1 / sigma^2) - 1), so h <= d / 10 adds at most a quarter of a percent to
              the variance, for any number of steps. (With 1e-4 for all, q = 1e-4 and sigma = 5
              looked twice as dear as they are.) Never wider than asked for, unless the grid would
              take more than a few seconds and a few hundred MB; then it errs further above.
tail          The library calls a mass of 1e-15 of the composition's tails infinitely bad; here it is at most delta / 1000.
rounding      FFTs err by some units in the last place for each composed step: `ROUNDING` times the number of steps is taken
              off delta before the distribution is asked. Where nothing is left the answer is
              infinity: Rényi's counts.

How many cells a composition will have is worked out before it is made, by the bound that the
library itself uses: it cuts the sum of T losses where Chernoff's bound at the orders k / R, k = 1
.. 20, falls below half of the tail, R being the range of one loss. For very many steps these orders
are too large and the bound is useless, so T = a b + r steps are then composed in two stages, a
steps first.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from sfumato.core.errors import ArgumentError
from sfumato.privacy.events import Event
from sfumato.privacy.mixtures import REACH

Parts = tuple[tuple[Event, int], ...]

ROUNDING = 2.0**-50
"""What an FFT may get wrong in the mass of a tail, for each step: eight units in the last place of
1."""

TAIL = 1e-15
"""What may be cut from the tails of a composition, and counts as infinite loss."""

STEP_CELLS, CELLS = 200_000, 2_000_000
"""The largest grid of one step, and of a composition: a few seconds, a few hundred MB; fewer where
`widest` is above 1e-4."""


@dataclass(frozen=True)
class Grid:
    """spacing: h. tail: mass cut from each composition. rounding: to be taken off a delta, or added
    to it. stages: for each part of a composition, how many steps are composed first and how often
    that is repeated; the rest is composed at once.
    """

    spacing: float
    tail: float
    rounding: float
    stages: tuple[tuple[int, int], ...]


def epsilon(
    mu: float, parts: Parts, delta: float, relation: str, neighbors: Any, widest: float
) -> tuple[float, float]:
    """(epsilon, spacing of the grid) of one Gaussian of mu and the sampled `parts`; infinity where
    this cannot tell.

    relation, neighbors: the same in our words and in the library's. widest: the spacing not to be
    exceeded without need.
    """
    grid = grid_for(mu, parts, relation == "replace-one", min(TAIL, delta / 1000), widest)
    if delta <= 2 * grid.rounding:
        return math.inf, grid.spacing
    found = _composed_nearby(mu, parts, neighbors, grid)
    try:
        return float(found.get_epsilon_for_delta(delta - grid.rounding)), grid.spacing
    except (
        OverflowError
    ):  # it adds up masses from the largest loss on, and has come to -709 with less than delta
        return 0.0, grid.spacing


def deltas(
    mu: float, parts: Parts, epsilons: Sequence[float], relation: str, neighbors: Any, widest: float
) -> Any:
    """A delta for each epsilon: all at once, as one by one would take long."""
    grid = grid_for(mu, parts, relation == "replace-one", TAIL, widest)
    return (
        _composed_nearby(mu, parts, neighbors, grid).get_delta_for_epsilon(epsilons) + grid.rounding
    )


def _composed_nearby(mu: float, parts: Parts, neighbors: Any, grid: Grid) -> Any:
    """Where a line of the grid is within rounding of the smallest loss there is, log(1 - q), the
    library refuses it (q = 1e-9, spacing 2e-10); any other spacing is as valid, so a slightly wider
    one is taken.
    """
    for factor in (1.0, 1.37, 1.91):
        try:
            return _composed(mu, parts, neighbors, replace(grid, spacing=factor * grid.spacing))
        except ValueError as error:
            reason = error
    raise reason


@lru_cache(maxsize=8)  # a distribution takes megabytes
def _composed(mu: float, parts: Parts, neighbors: Any, grid: Grid) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    about = {"value_discretization_interval": grid.spacing, "neighboring_relation": neighbors}
    found = [pld.from_gaussian_mechanism(1 / mu, **about)] if mu > 0 else []
    for (event, count), (first, times) in zip(parts, grid.stages, strict=True):
        one = _one_step(event, neighbors, grid.spacing)
        if times:
            found.append(one.self_compose(first, grid.tail / times).self_compose(times, grid.tail))
        if rest := count - first * times:
            found.append(one.self_compose(rest, grid.tail))
    total = found[0]
    for each in found[1:]:
        total = total.compose(each, grid.tail)
    return total


@lru_cache(maxsize=8)
def _one_step(event: Event, neighbors: Any, spacing: float) -> Any:
    """A run asks for it at many numbers of steps."""
    return event.privacy_loss(neighbors, spacing)


# -- the grid


@lru_cache(maxsize=1024)
def grid_for(mu: float, parts: Parts, replaced: bool, tail: float, widest: float) -> Grid:
    """The finest grid that is worth it and fits. Raises ArgumentError where none does."""
    sketches = [Sketch.of(event, replaced) for event, _ in parts]
    steps = sum(count for _, count in parts)
    variance = mu**2 + sum(
        count * each.variance for (_, count), each in zip(parts, sketches, strict=True)
    )
    wanted = min(widest, math.sqrt(variance / steps) / 10)
    rounding = ROUNDING * (steps + len(parts))
    distance, room = 2.0 if replaced else 1.0, min(1.0, 1e-4 / widest)
    for spacing in _spacings(wanted, widest):
        cells, stages = 2 * REACH * mu * distance / spacing, []
        for (_, count), sketch in zip(parts, sketches, strict=True):
            size, stage = sketch.cells(count, spacing, tail)
            cells += size
            stages.append(stage)
        if cells <= CELLS * room and all(
            sketch.range / spacing <= STEP_CELLS * room for sketch in sketches
        ):
            return Grid(spacing, tail, rounding, tuple(stages))
    raise ArgumentError(
        "steps", steps, "too many to compose on any grid; give fewer steps or more noise"
    )


def _spacings(wanted: float, widest: float) -> Iterator[float]:
    """`widest` if it is fine enough, or 1, 2 or 5 times a power of ten just below what is wanted;
    then wider and wider ones."""
    if wanted >= widest:
        yield widest
    ladder = [float(f"{digit}e{power}") for power in range(-30, 12) for digit in (1, 2, 5)]
    for below, above in pairwise(ladder):
        if above > wanted and below != widest:
            yield below


@dataclass(frozen=True)
class Sketch:
    """One step's loss, roughly: values and probabilities at 402 points, in both directions; to
    choose a grid, not a price."""

    losses: Any
    weights: Any

    @classmethod
    def of(cls, event: Event, replaced: bool) -> "Sketch":
        return cls(*event.sketch(replaced))

    @property
    def variance(self) -> float:
        """The smaller one of the two directions."""
        mean = (self.losses * self.weights).sum(1, keepdims=True)
        return float((self.weights * (self.losses - mean) ** 2).sum(1).min())

    @property
    def range(self) -> float:
        return float((self.losses.max(1) - self.losses.min(1)).max())

    def cells(self, count: int, spacing: float, tail: float) -> tuple[float, tuple[int, int]]:
        """How many cells the library will take for `count` steps, and the stages (see `Grid`) to
        compose them in."""
        once = min(self._span(count, self.range, 1, tail), count * self.range) / spacing
        sparse = (
            self.range / spacing <= 1000 < count
        )  # the library would first write down cells^count, all its digits
        if (once <= CELLS and not sparse) or count < 100:
            return once + self.range / spacing, (0, 0)
        first = math.isqrt(count)
        times, inner = count // first, self._span(first, self.range, 1, tail / (count // first))
        staged = (
            self._span(times, inner, first, tail)
            + inner
            + self._span(count - first * times, self.range, 1, tail)
        )
        return staged / spacing, (first, times)

    def _span(self, count: int, width: float, steps: int, tail: float) -> float:
        """Length of what remains of `count` summands that are the losses of `steps` steps, each of
        range `width`."""
        import numpy as np
        from scipy.special import logsumexp

        if count == 0 or width == 0:
            return 0.0
        ends = []
        for sign in (1, -1):
            orders = sign * np.arange(1, 21) / width
            logs = steps * logsumexp(self.losses * orders[:, None, None], b=self.weights, axis=2)
            ends.append(((count * logs + math.log(2 / tail)) / np.abs(orders)[:, None]).min(0))
        return float((ends[0] + ends[1]).max())
