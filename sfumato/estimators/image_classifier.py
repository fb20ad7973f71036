"""The scikit-learn face: arrays in, private classifier out."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Shaped
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sfumato.core import plugins, typed_json
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import Task
from sfumato.data.finite import of_source
from sfumato.data.labels import names_of
from sfumato.data.source import DataInfo, Source, from_arrays
from sfumato.data.units import check_told_apart, column
from sfumato.estimators.fitting import (
    USED,
    PrivateClassifier,
    check_finite,
    told_classes,
    warn_of_promise,
)
from sfumato.plan import unit_batches
from sfumato.plan.config import (
    DataConfig,
    MethodConfig,
    PrivacyConfig,
    RunConfig,
    TrainConfig,
    UnitConfig,
)
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.privacy.ledger import Ledger, relation_of
from sfumato.runs.classifier import Classifier
from sfumato.runs.jobs import build
from sfumato.train.loop import run


class DPImageClassifier(PrivateClassifier):
    """A differentially private image classifier, with scikit-learn's conventions.

    epsilon, delta: the guarantee for the images and labels given to `fit`; delta=None is the
        largest power of ten that is at most 1/(10 n) and 1e-5. epsilon=math.inf: without noise and clip,
        NOT PRIVATE, for baselines and debugging. n, the image size and the set of
        labels are treated as public.
    method, model: as in `sfumato train`; a network of one's own is a function
        (shape, classes, key) -> network of ONE image, or its name, package.module:function.
    ledger: an open `Ledger` to pay from, so that several fits share one budget and its relation of
        neighborhood; None gives each fit its own (add or remove one image).
    seed: public randomness (initial weights); noise, sampling and augmentation come from the
        system's entropy.
    images_per_group: where `fit` is given groups, how many images of each are used at most; a
        public number.
    classes: all classes; None takes those that occur in y, whose set (like n) is then treated as
        public. Of several findings: their names, in the order of y's columns; None takes the names of
        its columns, or 0, 1, ...
    verbose: 1 shows bars of the images and steps that are done.

    An image that holds NaN or infinity counts as nothing; `fit` warns of such images, and refuses
    where most are. A fit that is refused leaves the estimator as it was. Without a ledger, `fit`
    warns where the same images were used before in this process.

    `save(path)` writes a fitted one to a file, `DPImageClassifier.load(path)` reads it.

    After `fit`: classes_, plan_ (what was done), epsilon_ (spent by this fit), classifier_.
    """

    _saved_as: ClassVar[str] = "DPImageClassifier"

    def __init__(
        self,
        epsilon: float = 3.0,
        delta: float | None = None,
        method: str = "auto",
        model: str | Callable[..., Any] = "auto",
        ledger: Ledger | None = None,
        seed: int = 0,
        images_per_group: int = 8,
        classes: Any = None,
        verbose: int = 0,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.method = method
        self.model = model
        self.ledger = ledger
        self.seed = seed
        self.images_per_group = images_per_group
        self.classes = classes
        self.verbose = verbose

    def fit(
        self, X: Shaped[np.ndarray, "n ..."], y: Any, groups: Any = None
    ) -> "DPImageClassifier":
        """X: n x h x w or n x h x w x c images (c = 1 or 3), uint8 or floats in [0, 1]; y: n whole
        numbers or strings, or n x L findings, L >= 2, each 1, 0, or -1 or NaN where it is unknown.

        groups: n numbers or strings, whose images these are. The guarantee is then for a whole
        group, added or removed. Raises ArgumentError, DataError; BudgetError if the ledger does not
        allow the fit (nothing is released then).
        """
        with self._all_or_nothing():
            return self._fit(X, y, groups)

    def _fit(self, X: Any, y: Any, groups: Any) -> "DPImageClassifier":
        classes, labels = told_classes(y, self.classes)
        source = from_arrays(X, labels, names_of(classes))
        whose = UnitConfig()
        if groups is not None:
            owners = column(np.asarray(groups), len(source), "groups")
            check_told_apart(owners, "groups", "training")
            whose = UnitConfig("groups", self.images_per_group, "group")
            source = unit_batches.used(replace(source, owners=np.array(owners)), whose)
        check_finite(of_source(source))
        plan = self._plan(source, whose)
        warn_of_promise(plan.epsilon, plan.delta, plan.n, len(classes), plan.mu, plan.task)
        key = SecretKey.from_entropy()
        with self._paying(plan.epsilon, plan.delta, groups) as (ledger, progress):
            job = build(plan, source, None, self.seed, key, progress)
            progress.begin(plan.method, job.procedure.steps, "steps")
            state = run(
                job.procedure, ledger, key, after_step=lambda done, state: progress.advance(done)
            )
        self.classes_, self.plan_, self.epsilon_, self.classifier_ = (
            classes,
            plan,
            plan.spends,
            job.classifier(state),
        )
        if self.ledger is None:
            USED.add(np.asarray(X), plan.spends)
        return self

    def _plan(self, source: Source, whose: UnitConfig) -> Plan:
        if callable(self.model):
            model = plugins.given(self.model)
        elif not isinstance(self.model, str):
            raise ArgumentError("model", self.model, "give a name, or a function")
        else:
            plugins.allow(self.model)
            model = self.model
        config = TrainConfig(
            DataConfig("arrays"),
            PrivacyConfig.asked(self.epsilon, self.delta, relation_of(self.ledger)),
            MethodConfig(self.method, model),
            RunConfig(seed=self.seed),
            whose,
        )
        info = DataInfo(
            "arrays",
            "memory",
            source.class_names,
            source.shape,
            {"train": len(source)},
            units=None if source.owners is None else source.examples,
            task=source.task,
        )
        return make_plan(config, unit_batches.named(info, whose))

    def predict_proba(self, X: Shaped[np.ndarray, "n ..."]) -> Float32[np.ndarray, "n classes"]:
        """X: images as to `fit`. Rows have sum 1; of findings they hold the probability of each. Warns of
        images that hold NaN or infinity. Raises ArgumentError."""
        check_is_fitted(self, "classifier_")
        return self.classifier_.predict_proba(X)

    def predict(self, X: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n ..."]:
        """The most probable class of each image, as `classes_` has it; or 1 for each finding that is
        likelier than not and 0 for the others."""
        probabilities = self.predict_proba(X)
        return self._task.answers(self.classes_, self._task.decided(probabilities))

    @property
    def _task(self) -> Task:
        return self.classifier_.spec.task

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = False, True
        return tags

    def _learned(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {
            "plan": self.plan_.to_json(),
            "model": self.classifier_.facts(),
        }, self.classifier_.arrays()

    def _relearn(
        self, facts: Mapping[str, Any], arrays: dict[str, np.ndarray], where: Path
    ) -> None:
        self.plan_, self.classifier_ = (
            typed_json.convert(Plan, facts["plan"], "plan"),
            Classifier.of_parts(facts["model"], arrays, where),
        )
