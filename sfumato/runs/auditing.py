"""`sfumato audit`: a finished run's plan, replayed under attack.

The run's own key is destroyed, so nothing of that run can be replayed; an audit trains anew, with
the same plan (settings, sampler, clip, noise multipliers) and fresh keys. What it finds holds for
the program as it runs on this machine.

No ledger pays for an attack. Gradient canaries that train alone need no private image, so anybody
may see what they find. All other attacks use the private images: they say so before they start, and
what they find is kept out of the report (`UNPAID`).
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.audit.replayed import replay
from sfumato.audit.result import FILE_NAME, AuditRecord, AuditResult, Claim
from sfumato.core import typed_json
from sfumato.core.checks import choice, whole
from sfumato.core.errors import ArgumentError, DataError, RunError
from sfumato.features import by_name
from sfumato.plan.config import Log, read_config
from sfumato.plan.plan import Plan, read_plan
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.not_private import MARK
from sfumato.report import write_report
from sfumato.runs.attacks import (
    REPLAYS,
    Subject,
    by_canaries,
    by_final_loss,
    by_one_run,
    by_releases,
    by_shadows,
    takes_canaries,
    warn,
)
from sfumato.runs.directory import RunDirectory
from sfumato.runs.from_python import refuse_another_procedure
from sfumato.runs.progress import Quiet, make_progress
from sfumato.runs.training import open_splits
from sfumato.train.loop import Procedure, tally

SIZES = {"whitebox": 10_000, "one-run": 200, "blackbox": 64, "lira": 16}
"""What an attack takes if it is not told: gradient canaries or replays; images with wrong labels;
models; shadow models."""


def audit(
    path: Path, attack: str, size: int | None, images: int, seed: int | None, log: Log
) -> AuditRecord:
    """Attack a finished run; audit.json and the report are written anew, the report without what
    rests on private images and is not paid for. seed: None takes the system's entropy.

    Raises ArgumentError, RunError (unfinished run, no model), DataError (the images are gone).
    """
    choice("attack", attack, tuple(SIZES))
    directory = RunDirectory.open(path)
    if not directory.complete:
        raise RunError(f"{path}: the run is not complete; `sfumato resume {path}` finishes it")
    size = whole("size", size if size is not None else SIZES[attack], at_least=8)
    config = read_config(directory.file("config.json"))
    plan = read_plan(directory.file("plan.json"))
    _refuse_without_promise(directory)
    if plan.choices and attack not in ("one-run", "lira"):
        raise ArgumentError(
            "attack",
            attack,
            "a run of `sfumato tune` releases only its final model; use one-run or lira",
        )
    splits = open_splits(config)
    if (splits.train.examples, splits.train.class_names) != (plan.n, plan.classes):
        raise DataError(
            f"data={config.data.data!r}: no longer the {plan.n} images of this run's plan; restore them"
        )
    _refuse(plan, attack)
    if attack != "whitebox" or images > 0:
        warn(attack)
    stream = np.random.default_rng(seed)
    attacks: dict[str, Callable[[Subject, int], list[AuditResult]]] = {
        "whitebox": lambda subject, size: by_releases(subject, size, images),
        "one-run": by_one_run,
        "blackbox": by_final_loss,
        "lira": by_shadows,
    }
    with closing(make_progress(log)) as progress:
        subject = Subject(
            plan,
            splits.train,
            splits.validation,
            splits.test,
            config.run.seed,
            stream,
            progress,
            directory.path,
        )
        results = attacks[attack](subject, size)
    return _recorded(directory.path, results)


def load(path: Path) -> AuditRecord:
    """The audit of a run so far; an empty one if there was none."""
    return typed_json.read_if_there(AuditRecord, path / FILE_NAME) or AuditRecord(())


def _recorded(path: Path, results: list[AuditResult]) -> AuditRecord:
    """With what was found before, in audit.json and the report."""
    found = load(path).joined(results)
    found.save(path)
    write_report(path)
    return found


def attack(
    path: Path | str,
    method: Procedure,
    *,
    having: Procedure | None = None,
    size: int = SIZES["whitebox"],
    examples: int = 0,
    seed: int | None = None,
) -> AuditRecord:
    """White-box audit of a finished run of `sf.run(method, out=path)`: a lower bound on epsilon
    beside the one claimed, in audit.json and the report.

    method: that of the run. `DPSGD` is attacked by `size` gradient canaries; of the private examples
    the first `examples` train along (with 0 the attack needs none of them, and anybody may see what
    it finds). Of any other procedure that does not sample, every step is replayed, with the method
    and with `having`, the same method on one example more; that measures private sums anew, which
    nothing pays for, so the report leaves the result out. seed: None takes the system's entropy.
    Raises ArgumentError, RunError.
    """
    directory = RunDirectory.open(Path(path))
    if not directory.complete:
        raise RunError(f"{path}: the run is not complete; the line that began it finishes it")
    refuse_another_procedure(directory, method)
    ledger, stream = _refuse_without_promise(directory), np.random.default_rng(seed)
    claim = Claim(tally(method), ledger.delta, ledger.relation)
    size, progress = whole("size", size, at_least=8), Quiet()
    if takes_canaries(method):
        along = min(whole("examples", examples, at_least=0), method.n)
        if along:
            warn("whitebox")
        results = by_canaries(method, claim, stream, (size, along), progress)
    elif having is not None:
        warn("replay")
        results = replay(method, having, claim, stream, repeats=min(size, REPLAYS))
    else:
        raise ArgumentError(
            "having", None, "give the same method on one example more; only DPSGD takes canaries"
        )
    return _recorded(directory.path, results)


def _refuse_without_promise(directory: RunDirectory) -> Ledger:
    """The run's ledger. Raises RunError where it promises nothing that an attack could refute."""
    ledger = Ledger.read(directory.path)
    if not ledger.private:
        raise RunError(
            f"{directory.path}: the run is {MARK}, so it claims no epsilon that an attack could refute; audit one that does"
        )
    return ledger


def _refuse(plan: Plan, attack: str) -> None:
    """What an attack cannot be asked about, before its warning is printed."""
    if (
        attack in ("blackbox", "lira") and plan.images_per_unit is not None
    ):  # they cut the data set between images
        raise ArgumentError(
            "attack",
            attack,
            f"tests single images, and this run protects a {plan.unit} with "
            "several images; use whitebox or one-run",
        )
    if attack == "blackbox" and (by_name.is_features(plan.model) or plan.method != "dp-sgd"):
        raise ArgumentError(
            "attack",
            attack,
            f"needs a network trained by dp-sgd, not {plan.method} on {plan.model}; use "
            "whitebox or one-run",
        )


def summary(audit: AuditRecord) -> str:
    """For the terminal: a line per result."""
    lines = []
    for each in audit.results:
        verdict = "EXCEEDS THE CLAIM" if each.broken else "within the claim"
        lines.append(
            f"{each.attack:<9} {each.method:<20} epsilon >= {each.lower_bound:.3f} (claimed {each.epsilon:.3f}, "
            f"{100 * each.confidence:.0f} %, {each.observations:,} guesses, {each.seconds:.0f} s): {verdict}"
        )
    return "\n".join(lines)


def as_json(audit: AuditRecord) -> list[dict[str, Any]]:
    return [each.to_json() | {"broken": each.broken} for each in audit.results]
