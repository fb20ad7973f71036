"""`sfumato tune`: the best of a random number of linear heads with random settings, at the price of the choice.

docs/features.md has the bound. What it asks of this file: K is drawn from the logarithmic law with the secret key; every
fit has the same Gaussian budget and its own noise; the score depends on the training rows through the fit alone (held-out
rows are not covered by the guarantee); and nothing but the winner leaves the process.
"""

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from sfumato.core import files
from sfumato.core.checks import choice, default_delta, positive, privacy_target
from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.keys import SecretKey
from sfumato.models import registry
from sfumato.models.heads import OnFeatures
from sfumato.privacy import calibration
from sfumato.privacy.events import GaussianEvent, SelectedEvent
from sfumato.privacy.ledger import Ledger
from sfumato.runs.classifier import Classifier, Spec
from sfumato.runs.config import Log, TrainConfig
from sfumato.runs.directory import refuse_existing
from sfumato.runs.jobs import matrix_of
from sfumato.runs.progress import make_progress
from sfumato.runs.sweep import accuracy_of, fit_once
from sfumato.runs.train import open_splits
from sfumato.solve.budget import METHODS, LinearRecipe, linear_rule
from sfumato.solve.rows import Rows


@dataclass(frozen=True)
class TuneConfig:
    """base: data, model, epsilon and delta; its validation share scores the fits. fits: their mean number."""

    base: TrainConfig
    methods: tuple[str, ...]
    fits: float
    out: Path
    log: Log = "bar"

    def check(self) -> None:
        for method in self.methods:
            choice("method", method, METHODS)
        if not 1 < positive("fits", self.fits) <= 1000:
            raise ArgumentError("fits", self.fits, "give a mean number of fits greater than 1 and at most 1000")
        if not self.base.data.validation > 0:
            raise ArgumentError("validation", self.base.data.validation, "give a share to score the fits on, such as 0.1")


def tune(config: TuneConfig) -> str:
    """Write model, ledger and tune.json to `out`; return what to tell."""
    config.check()
    refuse_existing(config.out)
    splits = open_splits(config.base)
    if splits.validation is None or not len(splits.validation):
        raise DataError(f"data={config.base.data.data!r}: nobody is held out; give a larger --validation")
    train, held_out, classes = splits.train, splits.validation, splits.train.class_names
    epsilon, delta = privacy_target(config.base.privacy.epsilon, config.base.privacy.delta, len(train))
    sigma = calibration.noise_multiplier(lambda s: {SelectedEvent(GaussianEvent(s), config.fits): 1}, epsilon, delta)
    key, event, model = SecretKey.from_entropy(), SelectedEvent(GaussianEvent(sigma), config.fits), config.base.method.model
    features = registry.features(model, train.shape)
    progress = make_progress(config.log)
    try:
        matrix, shown = (matrix_of(features, source, name, progress) for source, name in
                         ((train, "features"), (held_out, "validation features")))  # fmt: skip
        assert matrix is not None and shown is not None
        config.out.mkdir(parents=True, mode=0o700)
        with Ledger.create(config.out, delta=delta, epsilon_max=epsilon, unit="example") as ledger:
            ledger.spend(event, "tune", key.fingerprint)  # before the first fit looks at the rows
            rows = Rows(matrix, train.labels, len(classes))
            head, recipe, score = best_of(rows, (shown, held_out.labels), config, 1 / sigma, key)
            spent = ledger.epsilon()
    finally:
        progress.close()
    privacy = {"epsilon": epsilon, "delta": delta, "unit": "example", "insecure": False, "spent": spent}
    Classifier(Spec(model, "sphere", train.shape, classes), OnFeatures(features, head)).save(config.out, privacy)
    files.write_json(config.out / "tune.json", {"recipe": recipe.__dict__, "validation_accuracy": score, **privacy})
    return (f"chosen    {recipe.method}, learning rate {recipe.learning_rate:.4g}, ridge {recipe.ridge:.4g}, {recipe.steps} "
            f"steps\n"
            f"accuracy  {100 * score:.2f} % of {len(held_out):,} held-out rows (chosen on them, so a little flattering)\n"
            f"privacy   epsilon {spent:.6g}, delta {delta:g}, the choice among about {config.fits:g} fits included\n"
            f"model     {config.out / 'model.safetensors'}")


def best_of(
    rows: Rows, held_out: tuple[np.ndarray, np.ndarray], config: TuneConfig, mu: float, key: SecretKey
) -> tuple[Any, LinearRecipe, float]:
    """(head, recipe, score) of the winner. The fits pay into ledgers that are thrown away: the choice was paid for."""
    stream, best = key.stream("tune"), None
    for _ in range(number_of_fits(config.fits, stream)):
        recipe = random_recipe(config.methods, rows, mu, stream)
        with (
            tempfile.TemporaryDirectory() as directory,
            Ledger.create(directory, delta=default_delta(len(rows)), epsilon_max=1e6) as aside,
        ):
            head = fit_once(rows, recipe, recipe.releases(mu), aside)
        score = accuracy_of(head, *held_out)
        if best is None or score > best[2]:
            best = (head, recipe, score)
    assert best is not None
    return best


def number_of_fits(mean: float, stream: np.random.Generator) -> int:
    """K from the logarithmic law: P(k) proportional to (1 - gamma)^k / k, of mean (1 / gamma - 1) / ln(1 / gamma)."""
    log_gamma = brentq(lambda x: (math.exp(-x) - 1) / -x - mean, -30.0, -1e-9)
    return int(stream.logseries(-math.expm1(log_gamma)))


def random_recipe(methods: tuple[str, ...], rows: Rows, mu: float, stream: np.random.Generator) -> LinearRecipe:
    """The rule's recipe of a random method, its learning rate and ridge up to four times larger or smaller."""
    method = methods[int(stream.integers(len(methods)))]
    found = linear_rule(method, len(rows), rows.features + 1, rows.classes, mu)
    factors = 4.0 ** stream.uniform(-1, 1, 2)
    return replace(found, learning_rate=found.learning_rate * factors[0], ridge=found.ridge * factors[1])
