"""What an audit says. Facts only: nothing here imports JAX, so that a report may read them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sfumato.core.files import write_json
from sfumato.privacy import accountants, fields
from sfumato.privacy.events import Tally
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation

FILE_NAME = "audit.json"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Claim:
    """What is audited: these releases are together (epsilon, delta)-DP under `relation`.

    Attacks tell a data set from one in which an example contributes nothing. Such a pair is one of
    every relation (of replace-one too: the other example is one whose gradient is zero), so what
    they find bounds epsilon under each.
    """

    tally: Tally
    delta: float
    relation: Relation = ADD_OR_REMOVE

    @property
    def epsilon(self) -> float:
        return accountants.epsilon(self.tally, self.delta, relation=self.relation)

    def result(
        self,
        attack: str,
        method: str,
        lower_bound: float,
        assumption: str,
        observations: int,
        seconds: float,
        details: dict[str, float],
    ) -> "AuditResult":
        """What an attack on it found, at the confidence of all our bounds."""
        bound = (self.epsilon, self.delta, lower_bound, CONFIDENCE)
        return AuditResult(attack, method, *bound, assumption, observations, seconds, details)


@dataclass(frozen=True)
class AuditResult:
    """One attack, one way of bounding. With probability `confidence`, epsilon is at least
    `lower_bound`, if `assumption` holds.

    observations: independent guesses that the bound rests on. seconds: of the attack, shared by the
    results it yields. details: further numbers of this method, by name. unpaid: the attack used the
    private images, and what it measured is in no ledger, so it is for their owner alone.
    """

    attack: str
    method: str
    epsilon: float
    delta: float
    lower_bound: float
    confidence: float
    assumption: str
    observations: int
    seconds: float
    details: dict[str, float] = field(default_factory=dict)
    unpaid: bool = True

    @property
    def broken(self) -> bool:
        """More was measured than was claimed: the claim, or the assumption, is false (or this is
        the one audit in twenty)."""
        return self.lower_bound > self.epsilon

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class AuditRecord:
    """audit.json: the latest results of each attack on one run."""

    results: tuple[AuditResult, ...]

    def joined(self, more: Sequence[AuditResult]) -> "AuditRecord":
        """With `more` in place of earlier results of the same attacks."""
        again = {each.attack for each in more}
        return AuditRecord((*(each for each in self.results if each.attack not in again), *more))

    def save(self, directory: Path) -> None:
        """For the owner's eyes only (mode 0600). Raises RunError for a field that nobody declared."""
        found = {"results": [each.to_json() for each in self.results]}
        fields.check(FILE_NAME, found)
        write_json(directory / FILE_NAME, found, mode=0o600)

    def paid(self) -> "AuditRecord":
        """The results that rest on no private image."""
        return AuditRecord(tuple(each for each in self.results if not each.unpaid))

    @property
    def unpaid(self) -> tuple[str, ...]:
        """The attacks whose results rest on private images."""
        return tuple(dict.fromkeys(each.attack for each in self.results if each.unpaid))
