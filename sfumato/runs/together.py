"""A run of several processes: one of them writes, all of them mean the same.

Process 0 alone holds the ledger, makes the directory, writes checkpoints, progress and the report. The
others read the key from the directory (so it lies where all see it, for the owner's eyes only) and wait
at each payment until it is on the disk. Noise is drawn from the key and the digest of the sum, by each
process for itself: the sum is the same in all, so the noise is, and nothing secret crosses the network
but sums. In a run of one process nobody waits and nothing here changes anything.

Whoever fails, ends; whoever waits for it is ended by JAX, within `core.processes.SILENCE` seconds. What is
on the disk then is what one process that was killed there leaves, so `sfumato resume` goes on from it.
"""

import json
from pathlib import Path
from typing import Any

from sfumato.core.devices import Layout, here
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.plan.plan import Plan
from sfumato.privacy.events import Event, to_json
from sfumato.privacy.ledger import Ledger
from sfumato.runs.directory import RunDirectory
from sfumato.train.replay_guard import ReplayGuard


class JointLedger(Ledger):
    """The ledger of a run as each of its processes sees it."""

    @classmethod
    def at(cls, path: Path) -> Any:
        """Opened by process 0, read by the others."""
        return cls.open(path) if here().first else cls.read(path)

    def spend(
        self, event: Event, release: str | None = None, key: str | None = None, replay: bool = False
    ) -> None:
        """Nobody goes on before process 0 has paid, and paid for what all are about to release."""
        if here().first:
            super().spend(event, release, key, replay)
        here().agree("make another release", release, key, json.dumps(to_json(event)))


class JointGuard(ReplayGuard):
    """The replay guard of a run: the file is process 0's, the sum is everyone's."""

    def __init__(self, path: Path):
        self._writes = here().first
        if self._writes:
            super().__init__(path)

    def knows(self, release: str) -> bool:
        return not self._writes or super().knows(release)

    def check(self, release: str, seal: str) -> None:
        if self._writes:
            super().check(release, seal)
        here().agree("add noise to another sum", release, seal)


def refuse_apart(plan: Plan) -> None:
    """Raise ArgumentError for what one process computes."""
    layout: Layout = here()
    if layout.processes > 1 and plan.features is not None:
        raise ArgumentError(
            "processes",
            layout.processes,
            "features are computed by one process, on all of its devices; give --processes 1, or compute them as jobs of "
            "their own (`sfumato features --shard I/N`) and `sfumato fit` them",
        )


def agree_on_plan(config: dict[str, Any], plan: dict[str, Any]) -> None:
    """Raises RunError in all processes, before anything is written."""
    here().agree_on_each("follow another configuration", _flat(config))
    here().agree_on_each("train on other data, or by another plan", _flat(plan))


def agree_on_beginning(key: SecretKey, began: dict[str, Any]) -> None:
    """The same, before anything is paid. began: `session.beginning`, or what a run that goes
    on has kept of it."""
    here().agree("use another secret.key", key.fingerprint)
    here().agree("train on other images", began["fingerprint"])
    here().agree_on_each("compute with other software or devices", began["environment"])


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, str]:
    """The values of nested dictionaries, as text, by their dotted names."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = json.dumps(value, sort_keys=True)
    return found


def made(path: Path) -> RunDirectory:
    """The directory that process 0 has made, once it is there. Raises RunError where not all processes
    see it."""
    here().agree("write to another directory", path)
    shared = "look for --out on another file system (all must share it)"
    here().agree(shared, (path / "config.json").exists())
    return RunDirectory.open(path)


def parted(path: Path) -> None:
    """Wait until process 0 has written everything."""
    here().agree("end another run", path)
