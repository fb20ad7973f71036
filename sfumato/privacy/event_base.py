"""What an event is: a frozen fact about what one release does to privacy, which knows its JSON, its
words and what accountants need for its price.

A kind of event is a frozen dataclass under `@register(kind)`. Its fields are numbers and at most
one other event, the noise inside. An event from outside of this package is registered in the same
way, when its module is imported. A ledger that names an unknown kind is refused; no module is ever
imported because a file names it.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

from sfumato.core.errors import ArgumentError, LedgerError
from sfumato.privacy.neighbors import Relation


class Event:
    """Base of all events. What is not overridden means: no such bound is known.

    exact: a Gaussian release of all examples, which composes in closed form. renyi_only: whose
    Rényi bound is all that is known, for the report; empty where `privacy_loss` is known, too.
    order_by_order: its Rényi bound at one order needs no other order. alone: it has a price by
    itself, not only inside of another event. in_papers: the accountant of the papers of 2022
    (`renyi.py`) knows it. private: it promises anything at all (`not_private.py`).
    """

    kind: ClassVar[str]
    exact: ClassVar[bool] = False
    renyi_only: ClassVar[str] = ""
    order_by_order: ClassVar[bool] = True
    alone: ClassVar[bool] = True
    in_papers: ClassVar[bool] = False
    private: ClassVar[bool] = True

    if TYPE_CHECKING:  # fields of some events, properties of others

        @property
        def noise_multiplier(self) -> float:
            """Of the Gaussian inside, relative to C."""

        @property
        def rate(self) -> float | None:
            """With what probability an example that may take part does; None for all examples."""

        @property
        def bands(self) -> int:
            """Over how many steps the noise inside is correlated; 1 if it is independent."""

    # -- words

    @property
    def words(self) -> str:
        """For the terminal, in a list of what a ledger holds."""
        return repr(self)

    @property
    def selected(self) -> float | None:
        """If it is the best of several that stay secret, how many these are on average."""
        return None

    @property
    def promised(self) -> "Event":
        """What an honest run would claim in its place: itself, unless it promises nothing."""
        return self

    # -- the events of a run

    def with_noise(self, noise_multiplier: float) -> "Event":
        """The same event with another noise multiplier."""
        return dataclasses.replace(self, noise_multiplier=noise_multiplier)  # type: ignore[type-var]

    @property
    def turns(self) -> int:
        """How many groups of examples take turns; 1 where all may always take part."""
        return 1

    @property
    def turn(self) -> int:
        """Whose turn it is, from 0."""
        return 0

    def at(self, k: int) -> "Event":
        """The k-th of a series of releases that begins with this one, from 0."""
        return self

    def concerns(self, positions: Any) -> Any:
        """Which of the examples at these positions (an array of whole numbers) may take part."""
        return True

    # -- the price

    @property
    def plain(self) -> "Event":
        """What it is to an example whose turn it is: the event that is priced in its place."""
        return self

    @property
    def of_one(self) -> "Event":
        """Of a choice among several runs, about what can be seen of it: one of them."""
        return self

    def renyi_relation(self, relation: Relation) -> Relation:
        """The relation for which its Rényi bound is known, and which covers the one that is asked."""
        return relation

    def renyi_event(self, relation: Relation) -> Any:
        """For the library's Rényi accountant, which takes noise relative to how far the sums of
        neighbors are apart."""
        import dp_accounting as library

        return library.UnsupportedDpEvent()

    def privacy_loss(self, neighbors: Any, spacing: float) -> Any:
        """The library's privacy loss distribution of one release, discretized from above.
        neighbors: the relation in the library's words. Raises ArgumentError where none is known."""
        raise ArgumentError("event", self, "has no privacy loss distribution here")

    def sketch(self, replaced: bool) -> tuple[Any, Any]:
        """Losses and weights of one release, roughly (`mixtures.py`), to choose a grid. replaced:
        under replace-one."""
        raise ArgumentError("event", self, "has no privacy loss distribution here")


class Sampled(Event):
    """Base of events with another one inside, in the field `event`: the noise, before sampling."""

    if TYPE_CHECKING:

        @property
        def event(self) -> Any: ...

    @property
    def noise_multiplier(self) -> float:
        return self.event.noise_multiplier

    @property
    def bands(self) -> int:
        return self.event.bands

    def with_noise(self, noise_multiplier: float) -> Event:
        inner = self.event.with_noise(noise_multiplier)
        return dataclasses.replace(self, event=inner)  # type: ignore[type-var]


Tally = Mapping[Event, int]
"""How often each event happened. Composition of events does not depend on their order."""


def tally(*parts: tuple[Event, int]) -> Counter[Event]:
    """A tally from (event, count) pairs; equal events add up."""
    total: Counter[Event] = Counter()
    for event, count in parts:
        total[event] += count
    return total


# -- JSON

_KINDS: dict[str, type[Event]] = {}
_FIELDS: dict[str, dict[str, Any]] = {}
"""By kind: the fields of an event, and their types."""
_Kind = TypeVar("_Kind", bound=type[Event])


def register(kind: str) -> Callable[[_Kind], _Kind]:
    """Decorates a frozen dataclass: ledgers and plans may hold its events from now on, under this
    name. Raises ArgumentError for a name that is taken."""

    def mark(made: _Kind) -> _Kind:
        before = _KINDS.get(kind, made)
        if (before.__module__, before.__qualname__) != (made.__module__, made.__qualname__):
            raise ArgumentError(
                "kind", kind, f"is the name of {before.__qualname__}; give another one"
            )
        hints, own = get_type_hints(made), dataclasses.fields(made)  # type: ignore[arg-type]
        made.kind = kind
        _KINDS[kind], _FIELDS[kind] = made, {each.name: hints[each.name] for each in own}
        return made

    return mark


def to_json(event: Event) -> dict[str, Any]:
    """Its kind, its numbers, and the event inside of it. Raises ArgumentError for an event that
    could not be read again."""
    if _KINDS.get(getattr(event, "kind", "")) is not type(event):
        raise ArgumentError(
            "event", event, "decorate its class with sfumato.privacy.events.register(kind)"
        )
    numbers, nested = {}, {}
    for name, kind in _FIELDS[event.kind].items():
        value = getattr(event, name)
        if kind in (int, float):
            numbers[name] = kind(value)
        else:
            nested[name] = to_json(value)
    return {"kind": event.kind, **numbers, **nested}


def from_json(value: Any) -> Event:
    """The inverse of `to_json`. Raises LedgerError on anything else: an unknown event must never be
    counted as nothing."""
    event = _read(value)
    if event is None or not event.alone:
        raise LedgerError(
            f"event={value!r}: not an event this version can account for; use the version that wrote it, or import "
            "the module from outside that defines it (on the command line, --trust package.module:Class)"
        )
    return event


def _read(value: Any) -> Event | None:
    """None for what is no event."""
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return None
    kinds = _FIELDS.get(value["kind"])
    if kinds is None:  # it may be that of a sampler, which stands in the sampler's own file
        import_module("sfumato.sampling").load()
        kinds = _FIELDS.get(value["kind"])
    if kinds is None or set(value) != {"kind", *kinds}:
        return None
    found = {name: _field(kind, value[name]) for name, kind in kinds.items()}
    return None if None in found.values() else _KINDS[value["kind"]](**found)


def _field(kind: Any, value: Any) -> Any:
    """A number or an event of the right kind; None for anything else."""
    if kind is int:
        return value if type(value) is int else None
    if kind is float:
        return float(value) if type(value) is float or _is_exact(value) else None
    event = _read(value)
    return event if isinstance(event, kind) else None


def _is_exact(value: Any) -> bool:
    """A whole number that a float holds without rounding."""
    return type(value) is int and abs(value) <= 2**53
