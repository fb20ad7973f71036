"""`sfumato sweep`: linear heads at several epsilons on the same features, as a curve, a table and
JSON.

Every point is a private fit of its own, and all of them are paid for in one ledger: whoever
publishes the curve has spent their composition, which is stated. The line without privacy is what
its name says.
"""

import math
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core import files
from sfumato.core.checks import choice, positive, whole
from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.keys import SecretKey
from sfumato.data import finite
from sfumato.data.copies import copies_in
from sfumato.data.source import DataInfo
from sfumato.features.heads import Sphere
from sfumato.noise import NOISES
from sfumato.plan.config import Log, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.plan.public_features import sphere_for
from sfumato.plan.public_weights import feature_map
from sfumato.privacy import accountants, fields
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.releases import Release, tally_of
from sfumato.report import curve
from sfumato.runs.directory import refuse_existing
from sfumato.runs.jobs import HeadRows, head_rows
from sfumato.runs.progress import Progress, make_progress
from sfumato.runs.training import counted, described, find, opened, say_skipped, secret_key, tell
from sfumato.solve.labeled_rows import Rows, scores_of
from sfumato.solve.linear import solver
from sfumato.solve.linear_settings import METHODS, LinearSettings
from sfumato.train.evaluation import accuracy
from sfumato.train.loop import run

MOST_ROWS = 20_000
"""Rows that the fit without privacy looks at."""


@dataclass(frozen=True)
class SweepConfig:
    """base: data and model as for `sfumato train` (model "rows" for given features). repeats: fits
    of every point."""

    base: TrainConfig
    epsilons: tuple[float, ...]
    methods: tuple[str, ...]
    out: Path
    repeats: int = 1
    log: Log = "bar"

    def check(self) -> None:
        for epsilon in self.epsilons:
            if epsilon == math.inf:
                raise ArgumentError(
                    "epsilon",
                    epsilon,
                    "give finite ones; a fit without privacy is always shown beside them",
                )
            positive("epsilon", epsilon)
        for method in self.methods:
            choice("method", method, METHODS)
        whole("repeats", self.repeats)
        if not self.epsilons or not self.methods:
            raise ArgumentError(
                "epsilon" if not self.epsilons else "method", (), "give at least one"
            )


def sweep(config: SweepConfig) -> str:
    """Run all fits, write sweep.json, sweep.png, sweep.html and the ledger to `out`, and return the
    table."""
    config.check()
    refuse_existing(config.out)
    listed = find(config.base)
    splits = opened(listed, config.base)
    splits.train.task.need_classes("method", "sweep")
    held_out = splits.evaluated(config.base.data.validation)
    if held_out is None:
        raise DataError(
            f"data={config.base.data.data!r}: no images to evaluate on; give --test-fraction or --validation"
        )
    spoiled = finite.checked(splits, held_out)
    info = counted(described(listed, config.base), splits)
    plans = {
        (method, epsilon): _plan(config.base, info, method, epsilon)
        for method in config.methods
        for epsilon in sorted(config.epsilons)
    }
    promise = [problem for plan in plans.values() for problem in plan.warnings()]
    with closing(make_progress(config.log)) as progress:
        say_skipped(splits, progress)
        tell(dict.fromkeys((*spoiled, *promise, *copies_in(splits.train, held_out))), progress)
        plan = plans[config.methods[0], min(config.epsilons)]
        features = feature_map(plan.model, plan.shape, plan.weights)
        rows = head_rows(plan, features, splits.train, held_out, progress)
        found, ledger = _fits(config, plans, rows, progress)
    told = _write(
        config,
        found,
        _without_privacy(rows),
        ledger,
        f"{info.name}, {plans[next(iter(plans))].model}",
    )
    return told + "".join(f"\nwarning   {problem}" for problem in promise)


def fit_once(
    rows: Rows,
    sphere: Sphere,
    settings: LinearSettings,
    releases: tuple[Release, ...],
    ledger: Ledger,
    key: SecretKey,
    noise: str = "gaussian",
) -> Any:
    """A head. Every fit needs a key of its own. noise: a name of NOISES."""
    procedure = solver(rows, sphere, settings, releases)
    state: Any = run(procedure, ledger, key, noise=NOISES[noise].keeping)
    return procedure.classifier(state)


def accuracy_of(head: Any, shown: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(scores_of(head, shown).argmax(1) == truth))


def _plan(base: TrainConfig, info: DataInfo, method: str, epsilon: float) -> Plan:
    privacy = replace(base.privacy, epsilon=epsilon)
    return make_plan(
        replace(base, privacy=privacy, method=replace(base.method, method=method)), info
    )


Found = dict[str, list[tuple[float, list[float]]]]


def _fits(
    config: SweepConfig, plans: dict[tuple[str, float], Plan], rows: HeadRows, progress: Progress
) -> tuple[Found, dict[str, float]]:
    releases = [each for plan in plans.values() for each in plan.releases * config.repeats]
    first = next(iter(plans.values()))
    delta, relation = first.delta, first.relation
    total = accountants.epsilon(tally_of(releases), delta, relation=relation)
    files.make_directory(config.out, 0o700)
    progress.begin("fits", len(plans) * config.repeats, "fits")
    found: Found = {method: [] for method in config.methods}
    with Ledger.create(
        config.out, delta=delta, epsilon_max=total, relation=relation, unit=first.whole_unit
    ) as ledger:
        ledger.authorize(tally_of(releases))
        for (method, epsilon), plan in plans.items():
            assert isinstance(plan.settings, LinearSettings)
            scores, sphere = [], sphere_for(plan.public, rows.rows.features, plan.rooted)
            for _ in range(config.repeats):
                head = fit_once(
                    rows.rows,
                    sphere,
                    plan.settings,
                    plan.releases,
                    ledger,
                    secret_key(config.base.privacy),
                    plan.noise,
                )
                scores.append(accuracy(rows.confusion(head)))
                progress.advance(
                    sum(len(each) for points in found.values() for _, each in points) + len(scores)
                )
            found[method].append((epsilon, scores))
        return found, {"epsilon": ledger.epsilon(), "delta": delta}


def _without_privacy(rows: HeadRows) -> float:
    """Logistic regression on (at most MOST_ROWS of) the same rows. NOT private."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    chosen = np.linspace(0, len(rows.rows) - 1, min(len(rows.rows), MOST_ROWS)).astype(int)
    train, labels = (
        np.nan_to_num(rows.rows.matrix[chosen].astype(np.float32)),
        rows.rows.labels[chosen],
    )
    mean = normalize(train).mean(0)
    assert rows.shown is not None and rows.truth is not None
    model = LogisticRegression(C=30.0, max_iter=200).fit(normalize(normalize(train) - mean), labels)
    shown = normalize(normalize(np.nan_to_num(rows.shown.astype(np.float32))) - mean)
    return float(model.score(shown, rows.truth))


def _deviation(scores: list[float]) -> float:
    """Of the fits of one point; nothing is known of it by a single one."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0


def _write(
    config: SweepConfig, found: Found, without: float, spent: dict[str, float], title: str
) -> str:
    points = {
        method: [(epsilon, float(np.mean(scores)), _deviation(scores)) for epsilon, scores in each]
        for method, each in found.items()
    }
    told = (
        f"{curve.table(points, without)}\n\nδ = {spent['delta']:g}; every point is a fit of its own. All of them together "
        f"have spent ε = {spent['epsilon']:.4g}.\nThe accuracy without privacy has no guarantee: do not publish it if the "
        "images are private."
    )
    picture = curve.draw(points, without, title)
    written = {
        "spent": spent,
        "without_privacy": without,
        "points": [
            {"method": method, "epsilon": epsilon, "accuracies": scores}
            for method, each in found.items()
            for epsilon, scores in each
        ],
    }
    fields.check("sweep.json", written)
    files.write_atomic(
        config.out / "sweep.png", picture, mode=0o600
    )  # the line without privacy is for the owner alone
    page = curve.html(picture, points, without, title, spent)
    files.write_atomic(config.out / "sweep.html", page, mode=0o600)
    files.write_json(config.out / "sweep.json", written, mode=0o600)
    return told
