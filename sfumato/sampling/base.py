"""What a sampler is: who takes part in step t, and the event that it may claim for that. It knows
its JSON, its words and how it is made from flags.

It is a pure function of (secret key, t). So any step's batch can be drawn at any time, in any
order, again after a crash, and nothing is stored between steps.

The denominator of an average is `expected_batch_size`, a public constant: the realized size depends
on the private data set only through n, which is public, and on the secret coin flips, but dividing
by it would cost sensitivity.

Memory and time are those of the batch at any n, as long as it holds less than a fiftieth of all
examples.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args, get_type_hints

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import probability, whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import Event, Inner
from sfumato.privacy.neighbors import Relation


@dataclass(frozen=True)
class Wanted:
    """What a sampler is made from: `batch` of n examples expected in each of `steps`. given: the
    samplers' own flags by name, None where not given; for one from outside, values of its fields."""

    batch: int
    steps: int
    n: int
    relation: Relation
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Sampler:
    """Base of all samplers, which are frozen dataclasses with the fields `steps` and `n`, and more
    of their own. `n` is None until the data set is known (`on`).

    kind: its name in plan.json. own: fields that plan.json holds beside rate and expected batch
    size; whoever names a class from outside may give them. secret: who takes part is a secret.
    sentence: for the report, with {unit}, {n}, {size}, {rate} and its own fields. detail: ends its
    line on the terminal. limits: where the promise ends, with {unit}.
    """

    kind: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ()
    secret: ClassVar[bool] = True
    sentence: ClassVar[str]
    detail: ClassVar[str] = ""
    limits: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:

        @property
        def steps(self) -> int: ...
        @property
        def n(self) -> int | None: ...

    # -- what a procedure needs

    @property
    def q(self) -> float:
        """With what probability an example takes part in a step in which it may."""
        raise NotImplementedError

    @property
    def expected_batch_size(self) -> float:
        return self.q * self.examples

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        """The members of batch `step`, ascending; possibly none."""
        raise NotImplementedError

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        """What the release of this step costs, with the noise that `mechanism` claims. Raises
        ArgumentError for noise that cannot be sampled in this way."""
        raise NotImplementedError

    # -- the data set

    @property
    def examples(self) -> int:
        """n. Raises ArgumentError before it is known."""
        return self._known("n")

    def on(self, n: int) -> "Sampler":
        """The sampler for a data set of n examples. Raises ArgumentError for one that was made for
        another number."""
        if self.n not in (None, whole("n", n)):
            raise ArgumentError("n", n, f"the sampler was made for n={self.n}; leave its n out")
        return replace(self, n=n)  # type: ignore[type-var]

    def moved(self, n: int) -> "Sampler":
        """The same for another number of examples, at no larger price: for an audit, whose claim is
        that of the sampler it began with."""
        return replace(self, n=n)  # type: ignore[type-var]

    def _known(self, name: str) -> Any:
        if (value := getattr(self, name)) is None:
            raise ArgumentError(
                name,
                None,
                f"{type(self).__name__} has no data set yet; take .on(n), n the number of examples",
            )
        return value

    # -- flags, JSON, words

    @classmethod
    def asked_for(cls, wanted: Wanted) -> "Sampler":
        """From flags. Raises ArgumentError where they contradict each other, the numbers or the
        relation of neighborhood."""
        own = {name: wanted.given[name] for name in cls.own if name in wanted.given}
        return cls(batch_size=wanted.batch, steps=wanted.steps, **own).on(wanted.n)  # type: ignore[call-arg]

    @classmethod
    def kinds(cls) -> dict[str, Any]:
        """The types of its `own` fields."""
        hints = get_type_hints(cls)
        return {name: _present(hints[name]) for name in cls.own}

    def to_json(self) -> dict[str, Any]:
        """For plan.json. n and the number of steps stand beside it there."""
        shown = {"kind": self.kind, "rate": self.q, "expected_batch_size": self._expected}
        return shown | {name: getattr(self, name) for name in self.own}

    @classmethod
    def read(cls, value: Mapping[str, Any], n: int, steps: int) -> "Sampler":
        """The inverse of `to_json`. value: with its types checked."""
        own = {name: value[name] for name in cls.own}
        return cls(rate=value["rate"], steps=steps, n=n, **own)  # type: ignore[call-arg]

    @property
    def words(self) -> str:
        """For the terminal, on one line."""
        own = {name: getattr(self, name) for name in self.own}
        told = f"{self.kind}, q = {self.q:.6g}, expected batch {self._expected:,}"
        return told + self.detail.format(**own)

    @property
    def _expected(self) -> int | float:
        """Without the last bits that dividing by n and multiplying again leaves behind."""
        size = round(self.expected_batch_size, 9)
        return int(size) if size == int(size) else size


@dataclass(frozen=True)
class Coins(Sampler):
    """Base of samplers in which whoever may take part tosses a coin.

    rate: q. Or batch_size: how many are expected, from which the rate follows when n is known.
    """

    rate: float | None = None
    steps: int = 0
    n: int | None = None
    batch_size: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        for name in ("n", "batch_size"):
            if (value := getattr(self, name)) is not None:
                whole(name, value)
        if (self.rate is None) == (self.batch_size is None):
            raise ArgumentError("batch_size", self.batch_size, "give it or a rate, not both")
        if self.rate is None and self.n is not None:
            object.__setattr__(self, "rate", self.rate_for(self.batch_size or 0, self.n))
            object.__setattr__(self, "batch_size", None)
        if self.rate is not None:
            probability("rate", self.rate)

    @staticmethod
    def rate_for(batch_size: int, n: int) -> float:
        """Raises ArgumentError."""
        if batch_size > n:
            raise ArgumentError(
                "batch_size", batch_size, f"there are only n={n} examples; give at most that many"
            )
        return batch_size / n

    @property
    def q(self) -> float:
        return self._known("rate")


def subset(stream: np.random.Generator, n: int, size: int) -> Int64[np.ndarray, " b"]:
    """A uniformly random set of `size` of the numbers 0 .. n-1, ascending."""
    return np.sort(stream.choice(n, size, replace=False, shuffle=False))


def _present(hint: Any) -> Any:
    """T | None -> T."""
    return next((each for each in get_args(hint) if each is not NoneType), hint)


# -- by name

KINDS: dict[str, type[Sampler]] = {}
_Kind = TypeVar("_Kind", bound=type[Sampler])


def register(kind: str) -> Callable[[_Kind], _Kind]:
    """Decorates the class of a sampler: plans may hold it from now on, under this name."""

    def mark(made: _Kind) -> _Kind:
        made.kind = kind
        if KINDS.setdefault(kind, made).__qualname__ != made.__qualname__:
            raise ArgumentError(
                "kind", kind, f"is the name of {KINDS[kind].__qualname__}; give another one"
            )
        KINDS[kind] = made
        return made

    return mark
