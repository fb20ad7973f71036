"""Events: frozen facts about what one release does to privacy. Nothing here computes an epsilon.

Whoever samples and whoever adds noise state the event they may claim; the ledger stores it;
accountants compose it. An event is a fact about a mechanism, not about a relation of neighborhood
(`neighbors.py`): an accountant is told the relation and asks the event what it costs there
(`relations.py`). Multipliers of noise are relative to C, the most that one example contributes.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from sfumato.core.checks import noisy, positive, probability, whole
from sfumato.core.errors import ArgumentError
from sfumato.privacy import mixtures
from sfumato.privacy.event_base import Event, Sampled, Tally, from_json, register, tally, to_json
from sfumato.privacy.neighbors import REPLACE_ONE, ZERO_OUT, Relation, distance
from sfumato.privacy.not_private import NotPrivateEvent
from sfumato.privacy.sampled_losses import sampled_gaussian

__all__ = [
    "BandedGaussianEvent",
    "CyclicPoissonEvent",
    "Event",
    "FixedSizeEvent",
    "GaussianEvent",
    "Inner",
    "NotPrivateEvent",
    "PoissonSampledEvent",
    "Sampled",
    "SelectedEvent",
    "Tally",
    "TruncatedPoissonEvent",
    "from_json",
    "independent",
    "register",
    "tally",
    "to_json",
]


@register("gaussian")
@dataclass(frozen=True, order=True)
class GaussianEvent(Event):
    """A sum over all examples, each moving it by at most S in L2 norm, plus N(0, (noise_multiplier
    * S)^2) per number."""

    exact: ClassVar[bool] = True
    in_papers: ClassVar[bool] = True
    rate: ClassVar[None] = None
    bands: ClassVar[int] = 1

    noise_multiplier: float

    def __post_init__(self) -> None:
        noisy("noise_multiplier", self.noise_multiplier)

    @property
    def noise_words(self) -> str:
        """Of the noise alone."""
        return f"Gaussian, noise multiplier {self.noise_multiplier:.6g}"

    @property
    def words(self) -> str:
        return f"{self.noise_words}, all examples"

    def renyi_event(self, relation: Relation) -> Any:
        import dp_accounting as library

        return library.GaussianDpEvent(self.noise_multiplier / distance(relation))


@register("banded-gaussian")
@dataclass(frozen=True, order=True)
class BandedGaussianEvent(Event):
    """A step of correlated noise (`noise/banded.py`): what one step adds shows, in part, for
    `bands` steps.

    It has a price only where no example takes part twice within `bands` steps: inside of a
    CyclicPoissonEvent.
    """

    alone: ClassVar[bool] = False
    rate: ClassVar[None] = None

    noise_multiplier: float
    bands: int

    def __post_init__(self) -> None:
        noisy("noise_multiplier", self.noise_multiplier)
        whole("bands", self.bands)

    @property
    def noise_words(self) -> str:
        """Of the noise alone."""
        correlated = f", correlated over {self.bands} steps" if self.bands > 1 else ""
        return f"Gaussian, noise multiplier {self.noise_multiplier:.6g}{correlated}"

    @property
    def plain(self) -> Event:
        raise ArgumentError("event", self, "correlated noise has a price in a cyclic sample only")


Inner = GaussianEvent | BandedGaussianEvent
"""What a mechanism claims for one step, before sampling."""


def independent(event: object) -> GaussianEvent:
    """The event itself. Raises ArgumentError for any other than a Gaussian one, which would be
    priced as if it were one."""
    if not isinstance(event, GaussianEvent):
        raise ArgumentError(
            "event", event, "give a GaussianEvent; correlated noise needs a cyclic sampler"
        )
    return event


@register("poisson")
@dataclass(frozen=True, order=True)
class PoissonSampledEvent(Sampled):
    """`event` applied to a random subset in which every example is, independently, with probability
    `rate`.

    Under replace-one the sample holds the example or its replacement, so (1 - q) N(0) + q N(1)
    stands against (1 - q) N(0) + q N(-1); the library's privacy loss distributions know that.
    """

    in_papers: ClassVar[bool] = True

    rate: float
    event: GaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        independent(self.event)

    @property
    def words(self) -> str:
        return f"{self.event.noise_words}, Poisson sample with rate {self.rate:.6g}"

    @property
    def plain(self) -> Event:
        return self.event if self.rate == 1.0 else self

    def renyi_event(self, relation: Relation) -> Any:
        import dp_accounting as library

        return library.PoissonSampledDpEvent(self.rate, self.event.renyi_event(relation))

    def privacy_loss(self, neighbors: Any, spacing: float) -> Any:
        return sampled_gaussian(self.noise_multiplier, self.rate, neighbors, spacing)

    def sketch(self, replaced: bool) -> tuple[Any, Any]:
        return mixtures.sampled(self.rate, self.noise_multiplier, replaced)


@register("selected")
@dataclass(frozen=True, order=True)
class SelectedEvent(Sampled):
    """The best of K runs of `event`, and nothing of the others; K secret, from the logarithmic law
    of mean `mean`. Papernot & Steinke 2022, arXiv 2110.03620, Thm. 2."""

    renyi_only: ClassVar[str] = "Papernot & Steinke 2022"
    order_by_order: ClassVar[bool] = False
    rate: ClassVar[None] = None

    event: GaussianEvent
    mean: float

    def __post_init__(self) -> None:
        if not (positive("mean", self.mean) > 1 and isinstance(self.event, GaussianEvent)):
            raise ArgumentError(
                "mean", self.mean, "give a mean number of runs greater than 1, of a GaussianEvent"
            )

    @property
    def words(self) -> str:
        return f"best of about {self.mean:g} fits, each {self.event.noise_words}"

    @property
    def selected(self) -> float | None:
        return self.mean

    @property
    def of_one(self) -> Event:
        return self.event

    def renyi_event(self, relation: Relation) -> Any:
        import dp_accounting as library

        one = self.event.renyi_event(relation)
        return library.dp_event.RepeatAndSelectDpEvent(one, self.mean, 0)


@register("truncated-poisson")
@dataclass(frozen=True, order=True)
class TruncatedPoissonEvent(Sampled):
    """A Poisson sample of n examples, of which a uniformly random `maximum` is kept if it has more.

    Where that happens, one example may push another out of the batch, which moves the sum by 2 C;
    the library prices it (arXiv 2508.15089).
    """

    rate: float
    n: int
    maximum: int
    event: GaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        whole("maximum", self.maximum)
        whole("n", self.n)
        independent(self.event)

    @property
    def words(self) -> str:
        sample = f"Poisson sample with rate {self.rate:.6g} of {self.n}, cut to {self.maximum}"
        return f"{self.event.noise_words}, {sample}"

    def privacy_loss(self, neighbors: Any, spacing: float) -> Any:
        from dp_accounting.pld import privacy_loss_distribution as pld

        return pld.from_truncated_subsampled_gaussian_mechanism(
            self.n,
            self.rate,
            self.maximum,
            self.noise_multiplier,
            value_discretization_interval=spacing,
            neighboring_relation=neighbors,
        )

    def sketch(self, replaced: bool) -> tuple[Any, Any]:
        from scipy.stats import binom

        usual = mixtures.sampled(self.rate, self.noise_multiplier, replaced)
        # with that probability, one example pushes out another
        share = float(binom.sf(self.maximum - 1, self.n - 1, self.rate))
        if share == 0.0:
            return usual
        pushed = mixtures.sampled(min(1.0, self.maximum / self.n), self.noise_multiplier / 2, True)
        return mixtures.joined(usual, pushed, share)


@register("cyclic-poisson")
@dataclass(frozen=True, order=True)
class CyclicPoissonEvent(Sampled):
    """Examples stand in `cycle` fixed groups; `event` applied to a Poisson sample of group `phase`
    alone.

    An example sees its own group's releases only, so what counts is the busiest group (parallel
    composition), with correlated noise, too: turns of one example do not overlap
    (`noise/banded.py`).
    """

    rate: float
    cycle: int
    phase: int
    event: GaussianEvent | BandedGaussianEvent

    def __post_init__(self) -> None:
        probability("rate", self.rate)
        if not 0 <= whole("phase", self.phase, at_least=0) < whole("cycle", self.cycle):
            raise ArgumentError("phase", self.phase, f"give a group from 0 to {self.cycle - 1}")
        if not isinstance(self.event, BandedGaussianEvent):
            independent(self.event)
        elif self.event.bands > self.cycle:
            raise ArgumentError(
                "bands",
                self.event.bands,
                f"an example's turns come every {self.cycle} steps; give at most "
                "that many, or a longer cycle",
            )

    @property
    def words(self) -> str:
        sample = f"Poisson sample with rate {self.rate:.6g} of group {self.phase} of {self.cycle}"
        return f"{self.event.noise_words}, {sample}"

    @property
    def turns(self) -> int:
        return self.cycle

    @property
    def turn(self) -> int:
        return self.phase

    def at(self, k: int) -> Event:
        return replace(self, phase=(self.phase + k) % self.cycle)

    def concerns(self, positions: Any) -> Any:
        return positions % self.cycle == self.phase

    @property
    def plain(self) -> Event:
        return PoissonSampledEvent(self.rate, GaussianEvent(self.noise_multiplier)).plain


@register("fixed-size")
@dataclass(frozen=True, order=True)
class FixedSizeEvent(Sampled):
    """`event` applied to a uniformly random subset of exactly `size` of n examples. n is public.

    Known under replace-one by its Rényi divergences (Wang et al. 2019, arXiv 1808.00087, Thm. 27),
    for sums that differ by 2 C; zero-out is the case in which the replacement contributes nothing.
    """

    renyi_only: ClassVar[str] = "Wang et al. 2019"

    size: int
    n: int
    event: GaussianEvent

    def __post_init__(self) -> None:
        if whole("size", self.size) > whole("n", self.n):
            raise ArgumentError("size", self.size, f"give at most n={self.n}")
        independent(self.event)

    @property
    def rate(self) -> float:
        return self.size / self.n

    @property
    def words(self) -> str:
        return f"{self.event.noise_words}, {self.size} of {self.n} examples"

    @property
    def plain(self) -> Event:
        return self.event if self.size == self.n else self

    def renyi_relation(self, relation: Relation) -> Relation:
        return REPLACE_ONE if relation == ZERO_OUT else relation

    def renyi_event(self, relation: Relation) -> Any:
        import dp_accounting as library

        one = self.event.renyi_event(relation)
        return library.SampledWithoutReplacementDpEvent(self.n, self.size, one)
