"""The ledger: every release is written down, on disk, before it happens.

An append-only file of JSON lines. Line 0 states the budget; each later line pays for one release. A
line is flushed to the disk before `spend` returns, so whatever was released is in the ledger, and a
crash can only leave a payment whose release never happened (over-counting). Each line holds the
SHA-256 of the line before it and itself: editing or removing a line in the middle breaks the chain.
(Cutting off the end does not; a checkpoint remembers how far the ledger had come.)

A release is named by (key, name). `spend` refuses a name that was paid for, unless the caller says
that it is a replay: the same sum once more has the same noise and releases nothing new, so nothing
is written. That is how a run resumes.
"""

import hashlib
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sfumato.core import machine, typed_json
from sfumato.core.checks import choice, positive, positive_or_infinite
from sfumato.core.errors import ArgumentError, BudgetError, LedgerError, RunError
from sfumato.core.files import (
    append,
    make_directory,
    parse_json,
    sync_directory,
    whole_lines,
    write_all,
    write_atomic,
)
from sfumato.privacy import accountants, events, relations
from sfumato.privacy.events import Event, Tally
from sfumato.privacy.neighbors import ADD_OR_REMOVE, RELATIONS, Relation

FILE_NAME = "ledger.jsonl"
_FORMAT = 1
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Head:
    """How far a ledger has come: the number of lines and the hash of the last."""

    lines: int
    hash: str


class Ledger:
    """Payments for releases, never more than the budget. Build with `create` or `open`.

    epsilon_max, delta: the budget. tally: the events paid for so far. Usable as a context manager;
    holds a file lock. There is one such object for a file: a copy would count by itself and spend
    the budget once more. So copies, such as those that scikit-learn makes of an estimator's
    arguments, are the ledger itself, and pickling raises LedgerError.
    """

    def __init__(self, path: Path, records: list[dict[str, Any]], handle: int | None):
        self.path = path
        self._handle = handle
        self._place, self._size = path.absolute(), 0 if handle is None else os.fstat(handle).st_size
        opening = records[0]
        self.delta: float = opening["delta"]
        self.epsilon_max = float(opening["epsilon_max"])  # the word inf, too
        self.unit: str = opening["unit"]
        self.relation: Relation = opening.get("relation", ADD_OR_REMOVE)
        self.context: str = opening["context"]
        self._hashes: list[str] = [record["hash"] for record in records]
        self._paid: dict[tuple[str, str], Event] = {}
        self.tally: Counter[Event] = Counter()
        for record in records[1:]:
            self._count(record)
        self._authorized: Counter[Event] = Counter(self.tally)
        self._planned: Counter[Event] = Counter()

    # -- life cycle

    @classmethod
    def create(
        cls,
        directory: Path | str,
        *,
        delta: float,
        epsilon_max: float,
        unit: str = "image",
        context: str = "",
        relation: Relation = ADD_OR_REMOVE,
    ) -> "Ledger":
        """Begin a ledger in `directory`. context: a hash of what it is for. Raises RunError if
        there is one already.

        relation: what neighboring data sets are; every epsilon of this ledger is meant for it.
        epsilon_max: infinite for a run that promises nothing: it pays for no private release.
        """
        choice("relation", relation, RELATIONS)
        positive_or_infinite("epsilon_max", epsilon_max)
        positive("delta", delta)
        path = Path(directory) / FILE_NAME
        make_directory(path.parent)
        if delta >= 1:
            raise ArgumentError("delta", delta, "give a number below 1")
        opening = {
            "kind": "open",
            "format": _FORMAT,
            "delta": delta,
            "epsilon_max": typed_json.plain(epsilon_max),
            "relation": relation,
            "unit": unit,
            "context": context,
            "time": _now(),
        }
        # Written aside and linked into place: a ledger exists with its first line or not at all.
        aside = path.with_name(f".{FILE_NAME}.{os.getpid()}.tmp")
        write_atomic(aside, _canonical(_seal(opening, _NO_HASH)) + b"\n")
        try:
            os.link(aside, path)
        except FileExistsError:
            raise RunError(
                f"{path}: a ledger exists here; open it, or choose another directory"
            ) from None
        finally:
            aside.unlink()
        sync_directory(path.parent)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> "Ledger":
        """Continue a ledger (a file, or the directory that holds it). Raises LedgerError if it was
        edited."""
        path = _file(path)
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            raise LedgerError(f"{path}: no ledger here") from None
        try:
            _lock(handle, path)
            content = path.read_bytes()
            records, good_bytes = _parse(content, path)
            # A torn last line is a payment that was never confirmed, so its release never happened.
            os.ftruncate(handle, good_bytes)
            if not content[:good_bytes].endswith(b"\n"):
                write_all(handle, b"\n")
            machine.flush(handle)
            return cls(path, records, handle)
        except BaseException:
            os.close(handle)
            raise

    @classmethod
    @contextmanager
    def temporary(
        cls, delta: float, epsilon_max: float, relation: Relation = ADD_OR_REMOVE
    ) -> Iterator["Ledger"]:
        """A ledger for as long as the `with` block runs, for computations whose payments nobody
        will look up."""
        about: Any = {"delta": delta, "epsilon_max": epsilon_max, "relation": relation}
        with tempfile.TemporaryDirectory() as directory, cls.create(directory, **about) as ledger:
            yield ledger

    @classmethod
    def read(cls, path: Path | str) -> "Ledger":
        """The ledger as it stands, without locking it; `spend` on it raises."""
        path = _file(path)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise LedgerError(f"{path}: no ledger here") from None
        except OSError as error:
            raise LedgerError(
                f"{path}: cannot be read ({error.strerror}); name a run's directory, or its ledger"
            ) from None
        return cls(path, _parse(content, path)[0], None)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> "Ledger":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Ledger":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise LedgerError(
            f"{self.path}: a ledger is one open file and cannot be pickled; share it within one process "
            "(n_jobs=1), or give each process a ledger of its own, whose budgets add up"
        )

    # -- spending

    @property
    def head(self) -> Head:
        return Head(len(self._hashes), self._hashes[-1])

    def reaches(self, head: Head) -> bool:
        """Whether this ledger contains the given head, i.e. continues what was there then."""
        return head.lines <= len(self._hashes) and self._hashes[head.lines - 1] == head.hash

    @property
    def releases(self) -> int:
        """How many releases were paid for."""
        return len(self._hashes) - 1

    @property
    def private(self) -> bool:
        """Whether anything is promised."""
        return self.epsilon_max < math.inf

    def epsilon(self) -> float:
        """The epsilon spent so far, at the ledger's delta; infinite from the beginning where nothing is
        promised."""
        if not self.private:
            return math.inf
        return accountants.epsilon(self.tally, self.delta, relation=self.relation)

    def paid(self, release: str, key: str) -> bool:
        return (key, release) in self._paid

    def authorize(self, planned: Tally, key: str | None = None) -> None:
        """Make sure that all of `planned` fits into what is left. Raises BudgetError; writes and
        spends nothing.

        key: the fingerprint of the key it will be made with; None for releases that are planned
        together, whatever their keys. What other keys have paid for was another fit, which may have
        been looked at before this one was chosen. That is proven for full batches only, whose noise
        may be chosen adaptively within a budget (Smith & Thakurta 2022, arXiv 2210.17520), so what
        is sampled or selected is refused in such company.
        """
        total = self.tally + Counter(planned)
        if key is None:
            self._planned = total
        elif (
            any(other != key for other, _ in self._paid)
            and not total <= self._planned
            and relations.simplified(total)[1]
        ):
            raise BudgetError(
                f"{self.path}: a fit chosen after looking at an earlier one is proven for full batches only, and "
                "this fit or an earlier one samples or selects; give it a ledger of its own (their epsilons and "
                "deltas add up), or use full batches for all"
            )
        self._require(total)
        self._authorized = total

    def spend(
        self, event: Event, release: str | None = None, key: str | None = None, replay: bool = False
    ) -> None:
        """Pay for one release; call it BEFORE anything of the release leaves this process.

        release, key: the release's name and the fingerprint of the key its noise comes from. A
        release that both were paid for before is refused (LedgerError), unless `replay` says that
        it is the same release once more: then it is free. Raises BudgetError (nothing is written)
        when the budget does not allow the event.
        """
        if self._handle is None:
            raise LedgerError(f"{self.path}: opened for reading only; use Ledger.open to spend")
        if (
            release is not None
            and key is not None
            and (before := self._paid.get((key, release))) is not None
        ):
            if before != event:
                raise LedgerError(
                    f"{self.path}: release {release!r} was paid for as {before}, not as {event}"
                )
            if not replay:
                raise LedgerError(
                    f"{self.path}: release {release!r} was made with this key before; its noise must not serve "
                    "twice: give another name or key, or replay=True if it is the same release once more"
                )
            return
        total = Counter(self.tally)
        total[event] += 1
        if total[event] > self._authorized[event]:
            self._require(total)
            self._authorized = total
        record = _seal(
            {
                "kind": "spend",
                "release": release,
                "key": key,
                "event": events.to_json(event),
                "time": _now(),
            },
            self._hashes[-1],
        )
        self._append(self._handle, _canonical(record) + b"\n")
        self._hashes.append(record["hash"])
        self._count(record)

    def _append(self, handle: int, line: bytes) -> None:
        """One line, on the disk when this returns. Raises LedgerError where it cannot be, or where
        nobody would read it."""
        self._require_place(handle)
        try:
            append(handle, line)
        except OSError as error:
            raise LedgerError(
                f"{self.path}: could not be written ({error}); nothing was released"
            ) from error
        self._size += len(line)
        self._require_place(handle)

    def _require_place(self, handle: int) -> None:
        """The open file is still the one that has the ledger's name (its other names do not count),
        and holds what we wrote."""
        try:
            there = os.stat(self._place)
        except OSError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(handle)):
            raise LedgerError(
                f"{self.path}: was removed or replaced while it was in use; nothing was released: restore it"
            )
        if there.st_size != self._size:
            raise LedgerError(
                f"{self.path}: was changed by another program while in use; nothing was released: restore it"
            )

    def _require(self, total: Tally) -> None:
        if not self.private and any(event.private for event, count in total.items() if count):
            raise BudgetError(
                f"{self.path}: this ledger is of runs that are not private, and can give no epsilon; pay from another one"
            )
        if self.private and not all(event.private for event, count in total.items() if count):
            raise BudgetError(
                f"{self.path}: what is not private cannot be paid from a budget, here epsilon_max={self.epsilon_max:g}; "
                "leave out the ledger, or ask for a finite epsilon"
            )
        needed = accountants.epsilon(total, self.delta, relation=self.relation)
        if not needed <= self.epsilon_max:  # written so that a NaN refuses
            raise BudgetError(
                f"epsilon={needed:.6g}: the release would pass the ledger's epsilon_max={self.epsilon_max:g} at "
                f"delta={self.delta:g} ({self.epsilon():.6g} is spent); use fewer steps or more noise"
            )

    def _count(self, record: dict[str, Any]) -> None:
        event = events.from_json(record["event"])
        self.tally[event] += 1
        if record["release"] is not None and record["key"] is not None:
            self._paid[(record["key"], record["release"])] = event


def relation_of(ledger: Any) -> Relation:
    """The relation of neighborhood that an estimator's argument `ledger` means. Raises
    ArgumentError for what is none."""
    if ledger is None:
        return ADD_OR_REMOVE
    if not isinstance(ledger, Ledger):
        raise ArgumentError(
            "ledger",
            ledger,
            "give an open ledger: Ledger.create(directory, ...) or Ledger.open(directory)",
        )
    return ledger.relation


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _lock(handle: int, path: Path) -> None:
    try:
        machine.lock(handle)
    except BlockingIOError:
        raise LedgerError(
            f"{path}: another process is using this ledger; wait for it to end"
        ) from None
    except OSError as error:
        raise LedgerError(
            f"{path}: this file system does not lock files ({error.strerror}), so two processes could spend at "
            "once; choose a local directory"
        ) from None


def _digest(body: dict[str, Any], previous: str) -> str:
    return hashlib.sha256(previous.encode() + _canonical(body)).hexdigest()


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _seal(body: dict[str, Any], previous: str) -> dict[str, Any]:
    return {**body, "hash": _digest(body, previous)}


def _parse(content: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records and the length of the good part. Only an unterminated last line may be bad: it
    was torn by a crash. If it lacks nothing but its newline it counts like any other.
    """
    lines, good_bytes = whole_lines(content)
    records: list[dict[str, Any]] = []
    previous = _NO_HASH
    for number, line in enumerate(lines):
        record = _parse_line(line, previous, number)
        if record is None:
            raise LedgerError(
                f"{path}: line {number + 1} was edited or damaged (its hash does not match); the epsilon it "
                "states cannot be trusted: restore the file"
            )
        records.append(record)
        previous = record["hash"]
    if not records:
        raise LedgerError(f"{path}: not a ledger, its first line is missing; restore the file")
    return records, good_bytes


def _parse_line(line: bytes, previous: str, number: int) -> dict[str, Any] | None:
    try:
        record = parse_json(line)
        body = {name: value for name, value in record.items() if name != "hash"}
        if record["hash"] != _digest(body, previous) or body["kind"] != (
            "open" if number == 0 else "spend"
        ):
            return None
        if line != _canonical(
            record
        ):  # the same values spelt otherwise, such as 1E-05: not what we wrote
            return None
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    if number == 0 and (
        body["format"] != _FORMAT or body.get("relation", ADD_OR_REMOVE) not in RELATIONS
    ):
        raise ArgumentError(
            "format",
            body["format"],
            f"this version reads ledgers of format {_FORMAT} ({', '.join(RELATIONS)})",
        )
    return record
