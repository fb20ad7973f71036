"""The one loop. Every private computation in this house, DP-SGD or a solver on features, is a
sequence of releases, and they all pass through these lines in this order: pay, measure, add noise,
absorb.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import PyTree

from sfumato.clip import BoundedSum
from sfumato.core.errors import ArgumentError, LedgerError
from sfumato.core.keys import SecretKey
from sfumato.noise import Mechanism
from sfumato.privacy.events import Event, Tally
from sfumato.privacy.ledger import Ledger
from sfumato.train.replay_guard import ReplayGuard

State = PyTree


@runtime_checkable
class Procedure(Protocol):
    """A private computation as a sequence of releases, one per step. Only `measure` sees private
    data."""

    name: str

    @property
    def steps(self) -> int: ...

    def start(self) -> State:
        """The state before step 0: a tree of arrays, a function of public facts only."""

    def event(self, step: int) -> Event:
        """What the release of this step costs."""

    def mechanism(self, step: int) -> Mechanism:
        """The noise that this event promises."""

    def measure(self, state: State, step: int, key: SecretKey) -> BoundedSum:
        """The clipped sum over this step's examples. `key` is the procedure's own, for sampling."""

    def absorb(self, state: State, step: int, released: PyTree) -> State:
        """The next state, from the release: post-processing, free of charge."""


@runtime_checkable
class Rehearsed(Protocol):
    """A procedure that can tell beforehand whether a step would fail."""

    def rehearse(self, state: State) -> None:
        """Raise ArgumentError for what would fail after it was paid for. Shapes are all it looks
        at."""


@runtime_checkable
class Remembering(Protocol):
    """A procedure whose last bits depend on how it fits the device. What it finds out about that is
    no setting; a run that goes on repeats it."""

    def remember(self, file: Path) -> None:
        """Keep it in this file of the run; what stands there already holds."""


@runtime_checkable
class ReadingAhead(Protocol):
    """A procedure that reads the examples of later steps meanwhile."""

    def stop(self) -> None:
        """Read nothing more."""


def run(
    procedure: Procedure,
    ledger: Ledger,
    key: SecretKey,
    *,
    state: State | None = None,
    first: int = 0,
    replay_guard: ReplayGuard | None = None,
    after_step: Callable[[int, State], None] = lambda done, state: None,
    noise: Callable[[Mechanism], Mechanism] = lambda promised: promised,
) -> State:
    """Run the procedure from step `first` (with the state it had then) to its end and return the
    last state.

    after_step(steps done, state): for checkpoints and progress. Raises BudgetError before the first
    step if the ledger does not allow all of them, and ArgumentError where a step cannot be run (see
    `Rehearsed`) or its noise is not what it is paid for (`kept`).

    noise: what is promised -> the mechanism that keeps the promise, such as `keeping` of one of
    `noise.NOISES`; without it the procedure's own.

    replay_guard: for a computation that was stopped and goes on, from its beginning. Running a step
    again with the same key, state and data repeats its release exactly, so the ledger does not
    charge it again; the replay guard makes sure that it is the same. Without a replay guard, or
    with one that does not know what was released, a procedure whose name and key have paid before
    is refused (LedgerError): another sum would be a second release (with noise of its own) for one
    payment.
    """
    remaining = unpaid(procedure, ledger, key)
    if replay_guard is None and sum(remaining.values()) < procedure.steps:
        raise LedgerError(
            f"{ledger.path}: procedure {procedure.name!r} has made releases with this key before; give it "
            "another key or name, or the replay guard it began with if this is the same computation on the same data"
        )
    if replay_guard is not None:
        _refuse_forgotten(procedure, ledger, key, first, replay_guard)
    ledger.authorize(remaining, key.fingerprint)
    state = procedure.start() if state is None else state
    if first < procedure.steps:
        rehearse(procedure, state)
    for step in _steps(procedure, first):
        name = release_name(procedure, step)
        mechanism, event = kept(procedure, step, noise)
        ledger.spend(event, name, key.fingerprint, replay=replay_guard is not None)
        total = procedure.measure(state, step, key.at(procedure.name))
        bound = mechanism.bind(total, key.at(name))
        if replay_guard is not None:
            replay_guard.check(name, bound.seal)
        released = mechanism.release(bound)
        state = procedure.absorb(state, step, released)
        after_step(step + 1, state)
    return state


def kept(
    procedure: Procedure, step: int, noise: Callable[[Mechanism], Mechanism]
) -> tuple[Mechanism, Event]:
    """What keeps the promise of a step, and its price. Raises ArgumentError where it would add less noise
    than the step's event states, or noise correlated otherwise: the ledger pays for the event alone."""
    mechanism, event = noise(procedure.mechanism(step)), procedure.event(step)
    less = mechanism.event.noise_multiplier < event.noise_multiplier
    if less or mechanism.event.bands != event.bands:
        raise ArgumentError(
            "noise",
            mechanism.event,
            f"{release_name(procedure, step)!r} is paid for as {event}; let `mechanism` keep what `event` states",
        )
    return mechanism, event


def rehearse(procedure: Procedure, state: State | None = None) -> None:
    """Raise ArgumentError where a step cannot be run, as far as the procedure can tell."""
    if isinstance(procedure, Rehearsed):
        procedure.rehearse(procedure.start() if state is None else state)


def _steps(procedure: Procedure, first: int) -> Iterator[int]:
    """The steps from `first` on. Whatever ends the loop ends this, and with it what reads ahead."""
    try:
        yield from range(first, procedure.steps)
    finally:
        if isinstance(procedure, ReadingAhead):
            procedure.stop()


def _refuse_forgotten(
    procedure: Procedure, ledger: Ledger, key: SecretKey, first: int, replay_guard: ReplayGuard
) -> None:
    """What is paid for was released, and its sum is remembered; but for the last payment, after
    which a crash may have come."""
    names = [release_name(procedure, step) for step in range(first, procedure.steps)]
    paid = [name for name in names if ledger.paid(name, key.fingerprint)]
    if forgotten := [name for name in paid[:-1] if not replay_guard.knows(name)]:
        raise LedgerError(
            f"{replay_guard.path}: lacks release {forgotten[0]!r}, which was paid for, so it cannot be told whether "
            "repeating it is the same release: restore the file or start a new run"
        )


def release_name(procedure: Procedure, step: int) -> str:
    return f"{procedure.name}/{step}"


def tally(procedure: Procedure) -> Tally:
    """Everything the procedure will release."""
    return Counter(procedure.event(step) for step in range(procedure.steps))


def unpaid(procedure: Procedure, ledger: Ledger, key: SecretKey) -> Tally:
    """The part of `tally` that this key has not paid for yet."""
    return Counter(
        procedure.event(step)
        for step in range(procedure.steps)
        if not ledger.paid(release_name(procedure, step), key.fingerprint)
    )
