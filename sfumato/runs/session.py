"""How a run begins, goes on and ends in its directory, whoever began it."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core import machine
from sfumato.core.errors import RunError
from sfumato.core.keys import SecretKey
from sfumato.data.source import Source
from sfumato.privacy.ledger import Ledger
from sfumato.report import write_report
from sfumato.runs.directory import RunDirectory
from sfumato.runs.environment import differences, environment


@contextmanager
def resumable(path: Path) -> Iterator[None]:
    """Whoever presses Ctrl-C is told which run goes on from there: the interruption carries it to
    the command line."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        stopped.run = path  # type: ignore[attr-defined]
        raise


@dataclass(frozen=True)
class Examples:
    """What a run remembers of its private examples, under its key. fingerprint: None where nobody can
    take one. stamp: of the places of their bytes, for data sets that have one: where it is as it was,
    nothing need be read for the fingerprint. decoder: what makes pixels of the bytes; None where nothing
    is decoded."""

    fingerprint: Callable[[], str | None]
    stamp: str | None = None
    decoder: str | None = None


def of_source(source: Source, key: SecretKey) -> Examples:
    # The stamp is taken first: who writes into a file while it is read for the fingerprint makes the
    # stamp differ, and the next comparison is of fingerprints.
    stamp = source.stamp(key.mac)
    return Examples(lambda: source.fingerprint(key.mac), stamp, source.decoder)


def beginning(examples: Examples) -> dict[str, Any]:
    """What must be the same when the run goes on."""
    stamp = {} if examples.stamp is None else {"stamp": examples.stamp}
    here = environment(examples.decoder)
    return {"fingerprint": examples.fingerprint(), **stamp, "environment": here}


def refuse_changed(directory: RunDirectory) -> None:
    """Before anything else is read: config.json and plan.json must be those that the ledger was
    begun with."""
    if Ledger.read(directory.path).context != directory.context():
        raise RunError(
            f"{directory.path}: config.json or plan.json was changed since the run began; restore them, or "
            "start a new run with the new settings"
        )


def refuse_elsewhere(directory: RunDirectory, examples: Examples, what: str) -> None:
    """All that the bits of a release depend on is as it was. what: the examples are."""
    began = directory.began()
    if differing := differences(began.get("environment"), environment(examples.decoder)):
        raise RunError(
            f"{directory.path}: {differing}; the same bits need the same software and device: resume there, or "
            "start a new run"
        )
    if examples.stamp is not None and began.get("stamp") == examples.stamp:
        return
    if began.get("fingerprint") != examples.fingerprint():
        raise RunError(
            f"{directory.path}: the {what} or secret.key changed since the run began; restore them or start a new "
            "run"
        )


def write_result(directory: RunDirectory, ledger: Ledger, measured: dict[str, Any]) -> None:
    """result.json, the last file of a run: what was spent, with which versions. measured: how long
    it took, and the like."""
    directory.write(
        "result.json",
        {
            "spent": {
                "epsilon": ledger.epsilon(),
                "delta": ledger.delta,
                "releases": ledger.releases,
                "epsilon_max": ledger.epsilon_max,
                "complete": True,
            },
            "seconds": {},
            "versions": _versions(),
            **measured,
        },
    )


def resources(seconds: dict[str, float]) -> dict[str, Any]:
    """How long it took, with how much memory, until when, for `write_result`."""
    return {
        "seconds": seconds,
        "peak_memory_bytes": machine.peak_memory(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def end(directory: RunDirectory) -> RunDirectory:
    """All that others will read lies on the disk (`write_result` came last), so the key may go."""
    directory.finish()
    write_report(directory.path)
    return directory


def _versions() -> dict[str, str]:
    return {
        name: importlib.metadata.version(name) for name in ("sfumato", "jax", "dp-accounting")
    } | {"python": platform.python_version()}
