"""Commands that use or examine a finished run, and those that count what one spends: evaluate,
predict, report, audit, calibrate, account.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sfumato.cli.trust import Trust
from sfumato.core.checks import MAX_PIXELS
from sfumato.plan.config import Log


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a finished run's model on test images."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    data: str | None = None
    """Other labeled images with the same classes, all of them (or their test part, if they have
    one) [the run's own]."""
    data_dir: Path | None = None
    """Where named data sets lie [as for the run]."""
    split: Literal["test", "validation"] = "test"
    """Of the run's own data set."""
    max_pixels: int | None = None
    """Largest image file that is decoded, width times height [the run's own limit]."""
    positive: str | None = None
    """Two classes: the one that is looked for, whose share found is the sensitivity [the second]."""
    group: str | None = None
    """Also for each group of images apart: the name of a column, an array of the .npz file or in
    --group-table."""
    group_table: Path | None = None
    """A .csv file with a column `file` and the column that --group names."""
    calibrate: bool = False
    """Find a temperature, and for two classes a threshold, on these images (--split validation, or
    --data), and keep them beside the model in calibration.json, for `predict` too. No epsilon covers
    these two numbers."""
    trust: Trust = ()
    """Code from outside that the run was begun with, package.module:function; without this flag it is
    not imported."""

    def __call__(self) -> None:
        from sfumato.runs.evaluating import EvaluateConfig, evaluate

        asked = {name: value for name, value in vars(self).items() if name != "trust"}
        evaluate(EvaluateConfig(**asked))


@dataclass(frozen=True)
class Predict:
    """Classify image files or feature rows with a finished run's model (needs only its model.json
    and model.safetensors)."""

    run: tyro.conf.Positional[Path]
    """The run's directory, or a copy of these two files."""
    images: tyro.conf.Positional[list[Path]]
    """Image files, folders with images at any depth, tables of images (.npy, .npz); for a run of
    `sfumato fit`, feature rows (a store or a file, labels are not needed)."""
    json: bool = False
    """Print one JSON object per image or row, with all probabilities."""
    out: Path | None = None
    """Write a .csv table with all probabilities instead of printing."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""
    trust: Trust = ()
    """Code from outside that the run was begun with, package.module:function; without this flag it is
    not imported."""

    def __call__(self) -> None:
        from sfumato.runs import predicting

        predicting.predict(self.run, self.images, self.json, self.out, self.max_pixels)


@dataclass(frozen=True)
class Report:
    """Write a finished run's report.html again, and print its privacy statement."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    with_audit: bool = False
    """Also show what `sfumato audit` measured on the private images. No epsilon covers it: such a
    report is for you alone."""
    trust: Trust = ()
    """Code from outside that the run was begun with, package.module:function; without this flag it is
    not imported."""

    def __call__(self) -> None:
        from sfumato.core.errors import RunError
        from sfumato.report import RunFacts, as_text, privacy_statement, write_report
        from sfumato.runs.directory import RunDirectory

        if not RunDirectory.open(self.run).complete:
            raise RunError(
                f"{self.run}: the run is not complete; `sfumato resume {self.run}` finishes it"
            )
        written = write_report(self.run, self.with_audit)
        print(as_text(privacy_statement(RunFacts.load(self.run, self.with_audit))))
        print(f"\nreport: {written}")


@dataclass(frozen=True)
class Audit:
    """Attack a finished run's trainer: a lower bound on epsilon beside the one claimed, in
    audit.json. Most attacks use the private images, which no epsilon covers: the report leaves out
    what these find."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    attack: Literal["whitebox", "one-run", "blackbox", "lira"] = "whitebox"
    """whitebox: every release is seen, against known gradients | one-run: images with wrong labels,
    one training | blackbox: many small models, the final one is seen | lira: membership inference
    on the run's own model."""
    size: int | None = None
    """Canaries, images, models or shadow models [a few minutes' worth for a small run]."""
    images: int = 0
    """whitebox: so many of the run's training images train along with the canaries."""
    seed: int | None = None
    """Fixes the attack's coins and its trainings' noise [the operating system's entropy]."""
    log: Log = "bar"
    trust: Trust = ()
    """Code from outside that the run was begun with, package.module:function; without this flag it is
    not imported."""

    def __call__(self) -> None:
        from sfumato.runs import auditing

        found = auditing.audit(self.run, self.attack, self.size, self.images, self.seed, self.log)
        if self.log == "json":
            told = {"event": "audit", "run": str(self.run), "results": auditing.as_json(found)}
            print(json.dumps(told))
            return
        print(auditing.summary(found))
        print(f"report    {self.run / 'report.html'}")
        if found.unpaid:
            print(
                f"kept back {', '.join(found.unpaid)}: of private images and not paid for, so in {self.run / 'audit.json'} "
                "alone (`sfumato report --with-audit` shows it)"
            )


@dataclass(frozen=True)
class Calibrate:
    """The noise multiplier that DP-SGD with Poisson sampling needs for a privacy budget."""

    epsilon: float
    """The privacy budget of all steps."""
    n: int
    """Training examples."""
    batch: int
    """Expected batch size."""
    steps: int
    """Number of steps."""
    delta: float | None = None
    """[the largest power of ten that is at most 1/(10 n) and 1e-5]"""

    def __call__(self) -> None:
        from sfumato.cli import accounting

        print(accounting.calibrate(self.epsilon, self.delta, self.n, self.batch, self.steps))


@dataclass(frozen=True)
class Account:
    """The epsilon of a ledger (a file or a run directory), or of DP-SGD with the given numbers."""

    ledger: tyro.conf.Positional[Path | None] = None
    """A file or a run's directory; or else give the four numbers."""
    noise_multiplier: float | None = None
    """Standard deviation of the noise, in units of the clip norm."""
    n: int | None = None
    """Training examples."""
    batch: int | None = None
    """Expected batch size."""
    steps: int | None = None
    """Number of steps."""
    delta: float | None = None
    """[the ledger's own, or the largest power of ten that is at most 1/(10 n) and 1e-5]"""
    trust: Trust = ()
    """Code from outside that the run was begun with, package.module:function; without this flag it is
    not imported."""

    def __call__(self) -> None:
        from sfumato.cli import accounting

        if self.ledger is not None:
            print(accounting.of_ledger(self.ledger, self.delta))
        else:
            print(
                accounting.of_numbers(
                    self.noise_multiplier, self.delta, self.n, self.batch, self.steps
                )
            )
