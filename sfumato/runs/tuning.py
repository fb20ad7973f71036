"""`sfumato tune`: the best of a random number of linear heads with random settings, at the price of
the choice.

docs/features.md has the bound. What it asks of this file: K is drawn from the logarithmic law with
the secret key; every fit has the same Gaussian budget and its own noise; the score depends on the
training rows through the fit alone (held-out rows are not covered by the guarantee); and nothing
but the winner leaves the process. So a stopped `tune` is not resumed.
"""

import math
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from sfumato.core import typed_json
from sfumato.core.checks import choice, default_delta, positive
from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.keys import SecretKey
from sfumato.data import finite
from sfumato.data.copies import copies_in
from sfumato.data.source import DataInfo, Source, Splits
from sfumato.features.heads import OnFeatures, Sphere, SphereLinear
from sfumato.plan.config import Log, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import BEST_OF, Plan
from sfumato.plan.public_weights import feature_map
from sfumato.privacy import calibration
from sfumato.privacy.events import GaussianEvent, SelectedEvent
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.releases import Release
from sfumato.report import write_report
from sfumato.runs.classifier import Classifier
from sfumato.runs.directory import RunDirectory, refuse_existing
from sfumato.runs.held_out import examined, write_evaluation
from sfumato.runs.jobs import HeadRows, head_rows, spec_of
from sfumato.runs.progress import Progress, Quiet, make_progress
from sfumato.runs.session import write_result
from sfumato.runs.sweeping import fit_once
from sfumato.runs.training import (
    counted,
    described,
    find,
    opened,
    save_model,
    say_skipped,
    secret_key,
    tell,
)
from sfumato.solve.labeled_rows import Rows, scores_of
from sfumato.solve.linear_settings import METHODS, LinearSettings, linear_rule
from sfumato.train.evaluation import accuracy


@dataclass(frozen=True)
class TuneConfig:
    """base: data, model, epsilon and delta; its validation share scores the fits. fits: their mean
    number."""

    base: TrainConfig
    methods: tuple[str, ...]
    fits: float
    out: Path
    log: Log = "bar"

    def check(self) -> None:
        if not self.base.privacy.budget < math.inf:
            raise ArgumentError(
                "epsilon",
                self.base.privacy.budget,
                "a choice among fits is made with privacy; `sfumato fit --epsilon inf` fits one without",
            )
        for method in self.methods:
            choice("method", method, METHODS)
        if not 1 < positive("fits", self.fits) <= 1000:
            raise ArgumentError(
                "fits", self.fits, "give a mean number of fits greater than 1 and at most 1000"
            )
        if not self.base.data.validation > 0:
            raise ArgumentError(
                "validation",
                self.base.data.validation,
                "give a share to score the fits on, such as 0.1",
            )


@dataclass(frozen=True)
class Winner:
    """The best head, its settings, and its confusion matrix on the held-out rows."""

    head: SphereLinear
    settings: LinearSettings
    confusion: np.ndarray


def tune(config: TuneConfig) -> str:
    """Leave a run directory like that of `sfumato fit`, with tune.json (the winner's settings)
    beside; return what to tell."""
    config.check()
    refuse_existing(config.out)
    listed = find(config.base)
    splits = opened(listed, config.base)
    splits.train.task.need_classes("method", "tune")
    if splits.validation is None or not len(splits.validation):
        raise DataError(
            f"data={config.base.data.data!r}: no examples were held out; give a larger --validation"
        )
    spoiled = finite.checked(splits, splits.validation)
    info = counted(described(listed, config.base), splits)
    plan, key = _plan(config, info), secret_key(config.base.privacy)
    promise = plan.warnings()
    asked = typed_json.plain(config.base) | {
        "method": ",".join(config.methods),
        "out": str(config.out),
        "log": config.log,
    }
    directory = RunDirectory.create(config.out, key, asked, plan.to_json(), {})
    with closing(make_progress(config.log)) as progress:
        tell((*spoiled, *promise, *copies_in(splits.train, splits.validation)), progress)
        with Ledger.open(directory.path) as ledger:
            winner = _run(directory, config, plan, splits, key, ledger, progress)
            spent = ledger.epsilon()
    directory.finish()
    report = write_report(directory.path)
    directory.level_times()
    chosen, held_out = winner.settings, len(splits.validation)
    numbers = {name: value for name, value in asdict(chosen).items() if isinstance(value, float)}
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items())
    return (
        f"chosen    {chosen.method}, {chosen.steps} steps, {told}\n"
        f"accuracy  {100 * accuracy(winner.confusion):.2f} % of {held_out:,} held-out rows (chosen on them, so a little "
        f"flattering)\n"
        f"privacy   epsilon {spent:.6g}, delta {plan.delta:g}, the choice among about {config.fits:g} fits included\n"
        + "".join(f"warning   {problem}\n" for problem in promise)
        + f"report    {report}\nmodel     {directory.file('model.safetensors')}"
    )


def _plan(config: TuneConfig, info: DataInfo) -> Plan:
    """One release: the choice. settings: those of the rule, around which the fits' own are drawn."""
    method = replace(config.base.method, method=config.methods[0])
    plan = make_plan(replace(config.base, method=method), info)
    sigma = calibration.noise_multiplier(
        lambda s: {SelectedEvent(GaussianEvent(s), config.fits): 1},
        plan.epsilon,
        plan.delta,
        plan.relation,
    )
    what = (
        f"the best of a random number of fits, {config.fits:g} on average, each with random settings and as private as one "
        "Gaussian release with this noise. The other fits, their settings and their number stay secret, and the cost of "
        "choosing among them is included"
    )
    return replace(
        plan,
        method=BEST_OF + ", ".join(config.methods),
        mu=1 / sigma,
        releases=(Release("choice", 1, SelectedEvent(GaussianEvent(sigma), config.fits), what),),
    )


def _run(
    directory: RunDirectory,
    config: TuneConfig,
    plan: Plan,
    splits: Splits,
    key: SecretKey,
    ledger: Ledger,
    progress: Progress,
) -> Winner:
    held_out = splits.validation
    assert held_out is not None
    features = feature_map(plan.model, plan.shape, plan.weights)
    say_skipped(splits, progress)
    table = head_rows(plan, features, splits.train, held_out, progress)
    ledger.spend(
        plan.releases[0].event, "tune", key.fingerprint
    )  # before the first fit looks at the rows
    winner = best_of(table, plan, key)
    assert table.shown is not None and table.truth is not None
    found = examined(scores_of(winner.head, table.shown), table.truth)
    evaluation = write_evaluation(directory, held_out, found)
    directory.append_metric(
        {"step": 1, "epsilon": ledger.epsilon(), "accuracy": evaluation["accuracy"]}
    )
    save_model(directory, _classifier(plan, features, winner), plan, ledger)
    chosen = winner.settings
    directory.write(
        "tune.json",
        {"recipe": asdict(chosen) | {"method": chosen.method}, "fits_on_average": config.fits},
    )
    write_result(
        directory, ledger, {}
    )  # time and memory would tell how many fits there were: `privacy/fields.py` refuses them
    return winner


def published(plan: Plan, train: Source, held_out: Source, key: SecretKey) -> Classifier:
    """What a run of this plan would publish if these were its training images; for audits."""
    features = feature_map(plan.model, plan.shape, plan.weights)
    table = head_rows(plan, features, train, held_out, Quiet())
    return _classifier(plan, features, best_of(table, plan, key))


def _classifier(plan: Plan, features: Any, winner: Winner) -> Classifier:
    return Classifier(spec_of(plan, winner.head.sphere.kind), OnFeatures(features, winner.head))


def best_of(table: HeadRows, plan: Plan, key: SecretKey) -> Winner:
    """The fits pay into ledgers that are thrown away: the choice was paid for."""
    mean, stream, best = plan.releases[0].selected, key.stream("tune"), None
    assert mean is not None
    for fit in range(number_of_fits(mean, stream)):
        settings = random_settings(plan.choices, table.rows, table.sphere, plan.mu, stream)
        with Ledger.temporary(default_delta(len(table.rows)), 1e6, plan.relation) as aside:
            head: Any = fit_once(
                table.rows,
                table.sphere,
                settings,
                settings.releases(plan.mu),
                aside,
                key.at("fit", fit),
                plan.noise,
            )
        found = Winner(head, settings, table.confusion(head))
        if best is None or accuracy(found.confusion) > accuracy(best.confusion):
            best = found
    assert best is not None
    return best


def number_of_fits(mean: float, stream: np.random.Generator) -> int:
    """K from the logarithmic law: P(k) proportional to (1 - gamma)^k / k, of mean (1 / gamma - 1) /
    ln(1 / gamma)."""
    log_gamma = brentq(lambda x: (math.exp(-x) - 1) / -x - mean, -30.0, -1e-9)
    return int(stream.logseries(-math.expm1(log_gamma)))


def random_settings(
    methods: tuple[str, ...], rows: Rows, sphere: Sphere, mu: float, stream: np.random.Generator
) -> LinearSettings:
    """The rule's for a random method, its learning rate and ridge up to four times larger or smaller."""
    method = methods[int(stream.integers(len(methods)))]
    found = linear_rule(method, len(rows), sphere.size, rows.classes, mu)
    return found.varied(*(4.0 ** stream.uniform(-1, 1, 2)).tolist())
