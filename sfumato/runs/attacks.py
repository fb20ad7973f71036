"""What the attacks of `sfumato audit` do with a finished run: train its plan anew, on chosen images.

No ledger pays for an attack; `warn` says so of those that use the private images.
"""

import dataclasses
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

import jax
import numpy as np
from jaxtyping import Bool, Float

from sfumato.audit.alone import run_alone
from sfumato.audit.blackbox import blackbox, hardest_label, pretrained
from sfumato.audit.canaries import whitebox
from sfumato.audit.lira import lira
from sfumato.audit.one_run import one_run_audit, wrong_labels
from sfumato.audit.replayed import replay
from sfumato.audit.result import AuditResult, Claim
from sfumato.clip import ClippedGrad
from sfumato.core.errors import DataError
from sfumato.core.keys import SecretKey, public_stream
from sfumato.data.source import Source
from sfumato.plan.plan import Plan
from sfumato.runs import tuning as tune
from sfumato.runs.classifier import Classifier
from sfumato.runs.jobs import Job, build
from sfumato.runs.progress import Progress, Quiet
from sfumato.train.dpsgd import DPSGD
from sfumato.train.loop import Procedure

UNPAID = {
    "whitebox": "lets private images train along with its canaries",
    "replay": "measures the solver's sums on the private images anew",
    "one-run": "trains on the private images again, twice, and compares the two models",
    "blackbox": "learns half of the private images without any privacy first",
    "lira": "compares the private images with the test images, and writes exact rates",
}
"""What an attack does with the private images that no ledger pays for."""

REPLAYS = 1000

_RECORDS = 1000

_ADDED = "\uffff added by an audit"
"""Begins the names of units that an attack adds: sorted last, and no file's name."""

_PHYSICAL = 64
"""Examples at once for each model of a stack: more of them fall out of a processor's cache."""


@dataclass(frozen=True)
class Subject:
    """A finished run: what an attack needs of it. held_out: on which `sfumato tune` compared its
    fits."""

    plan: Plan
    train: Source
    held_out: Source | None
    test: Source | None
    seed: int
    stream: np.random.Generator
    progress: Progress
    path: Path

    @property
    def claim(self) -> Claim:
        return Claim(self.plan.tally, self.plan.delta, self.plan.relation)

    def procedure(self, source: Source) -> Procedure:
        """The run's procedure on other training images."""
        return self._job(source).procedure

    def retrain(self, source: Source) -> Classifier:
        """The final model of the run's plan on other training images."""
        if self.plan.choices:
            assert self.held_out is not None
            return tune.published(self.plan, source, self.held_out, self.fresh_key())
        job = self._job(source)
        return job.classifier(run_alone(job.procedure, self.claim, self.fresh_key()))

    def _job(self, source: Source) -> Job:
        return build(
            self.plan.on(source.examples), source, None, self.seed, self.fresh_key(), Quiet()
        )

    def fresh_key(self) -> SecretKey:
        return SecretKey(self.stream.bytes(32))


def warn(attack: str) -> None:
    """Before the attack, and whatever --log says."""
    print(
        f"sfumato: NOT PAID FOR: this attack {UNPAID[attack]}. What it finds is outside of the run's epsilon: audit.json is "
        "readable by you alone, and the report leaves it out",
        file=sys.stderr,
        flush=True,
    )


def by_releases(subject: Subject, size: int, images: int) -> list[AuditResult]:
    """Gradient canaries for trainers with the clipping engine; for others a replay of every step."""
    trainer = subject.procedure(subject.train)
    if takes_canaries(trainer):
        along = min(images, subject.train.examples)
        return by_canaries(trainer, subject.claim, subject.stream, (size, along), subject.progress)
    warn("replay")
    having = subject.procedure(_with_noise_image(subject.train))
    subject.progress.begin("replay", trainer.steps, "steps")
    return replay(
        trainer,
        having,
        subject.claim,
        subject.stream,
        repeats=min(size, REPLAYS),
        advance=subject.progress.advance,
    )


def takes_canaries(trainer: Procedure) -> TypeGuard[DPSGD]:
    return isinstance(trainer, DPSGD) and isinstance(trainer.clipped, ClippedGrad)


def by_canaries(
    trainer: DPSGD,
    claim: Claim,
    stream: np.random.Generator,
    size: tuple[int, int],
    progress: Progress,
) -> list[AuditResult]:
    """size: canaries in all, as many as there are parameters in each training; and the private
    examples that train along, which nothing pays for."""
    canaries, along = size
    in_one = min(canaries, sum(np.size(leaf) for leaf in jax.tree.leaves(trainer.params)))
    runs = -(-canaries // in_one)
    progress.begin("canaries", runs, "runs")
    found = whitebox(
        trainer, claim, stream, canaries=in_one, runs=runs, images=along, advance=progress.advance
    )
    return [replace(each, unpaid=along > 0) for each in found]


def _with_noise_image(source: Source) -> Source:
    """One image of public noise more, of the first class, or with no finding."""
    image = public_stream(0, "audit").integers(0, 256, (1, *source.shape), np.uint8)
    return joined(
        source,
        source.raw(np.zeros(1, int)) if source.rows is not None else image,
        np.zeros_like(source.labels[:1]),
    )


def joined(source: Source, images: np.ndarray, labels: np.ndarray) -> Source:
    """The source and then these images, raw as it stores its own; each is a unit of its own."""
    n = len(source)
    sample = source.raw(np.zeros(1, int))
    stored = (
        images if images.dtype == sample.dtype else (images / np.float32(255)).astype(sample.dtype)
    )

    def read(at: np.ndarray) -> np.ndarray:
        own = source.raw(np.minimum(at, n - 1))
        extra = stored[np.maximum(at - n, 0)]
        return np.where((at < n).reshape(-1, 1, 1, 1), own, extra)

    rows = (
        None
        if source.rows is None
        else np.concatenate([source.rows, stored[:, 0, 0, :].astype(source.rows.dtype)])
    )
    owners = source.owners
    if owners is not None:
        owners = np.concatenate([owners, [f"{_ADDED} {k}" for k in range(len(labels))]])
    return dataclasses.replace(
        source,
        labels=np.concatenate([source.labels, labels]),
        read=read,
        rows=rows,
        owners=owners,
        names=None,
    )


def _test(subject: Subject) -> Source:
    if subject.test is None:
        raise DataError(f"{subject.path}: this attack needs test images, and the data set has none")
    return subject.test


def by_one_run(subject: Subject, size: int) -> list[AuditResult]:
    others = _test(subject)
    chosen = subject.stream.choice(len(others), min(size, len(others)), replace=False)
    labels = wrong_labels(others.labels[chosen], len(others.class_names), subject.stream)
    raw, pixels = others.raw(chosen), others.images(chosen)
    subject.progress.begin("one run", 2, "trainings")
    done: list[int] = []

    def losses(included: Bool[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        model = subject.retrain(
            joined(subject.train, raw[included], labels[included])
            if included.any()
            else subject.train
        )
        done.append(1)
        subject.progress.advance(len(done))
        return np.asarray(-subject.plan.task.log_odds(model.probabilities(pixels), labels))

    return one_run_audit(losses, len(chosen), subject.claim, subject.stream)


def by_final_loss(subject: Subject, size: int) -> list[AuditResult]:
    """One half of the training images (at most 1,000) is learned without privacy first, another
    half are the records."""
    n = min(len(subject.train) // 2, _RECORDS)
    first, second = (
        subject.train.subset(np.arange(part * n, (part + 1) * n), "train") for part in (0, 1)
    )
    trainer = subject.procedure(second)
    others = subject.procedure(first)
    assert (
        isinstance(trainer, DPSGD)
        and isinstance(others, DPSGD)
        and isinstance(trainer.clipped, ClippedGrad)
    )
    loss = trainer.clipped.loss_with(*trainer.constants)
    params = pretrained(loss, trainer.start()["params"], others.fetch(np.arange(n), 0))
    trainer = replace(trainer, params=params, physical_batch_size=min(trainer.at_once, _PHYSICAL))
    image = jax.tree.map(
        lambda leaf: np.zeros_like(np.asarray(leaf)[0]), trainer.fetch(np.zeros(1, int), 0)[0]
    )
    label = hardest_label(loss, params, image, len(subject.plan.classes), subject.plan.task)
    subject.progress.begin("black box", size, "models")
    return blackbox(
        trainer,
        (image, label),
        subject.claim,
        subject.stream,
        models=size,
        advance=subject.progress.advance,
    )


def by_shadows(subject: Subject, size: int) -> list[AuditResult]:
    """The run's own final model: its training images against the test images."""
    train, test, log_odds = subject.train, _test(subject), subject.plan.task.log_odds
    pool = joined(train, test.raw(np.arange(len(test))), test.labels)
    members = np.arange(len(pool)) < len(train)
    pixels = pool.images(np.arange(len(pool)))

    def shadow(inside: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        model = subject.retrain(pool.subset(inside, "train"))
        return np.asarray(log_odds(model.probabilities(pixels), pool.labels))

    audited = log_odds(Classifier.load(subject.path).probabilities(pixels), pool.labels)
    subject.progress.begin("shadows", size, "models")
    return lira(
        shadow,
        audited,
        members,
        subject.claim,
        subject.stream,
        shadows=size,
        advance=subject.progress.advance,
    )
