"""The scikit-learn face: arrays in, private classifier out."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.data.source import DataInfo, Source, from_arrays
from sfumato.data.units import check_told_apart, column
from sfumato.privacy.ledger import Ledger, relation_of
from sfumato.runs import units
from sfumato.runs.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig, UnitConfig
from sfumato.runs.jobs import build
from sfumato.runs.plan import Plan, make_plan
from sfumato.runs.progress import Quiet
from sfumato.train.loop import run


class DPImageClassifier(ClassifierMixin, BaseEstimator):
    """A differentially private image classifier, with scikit-learn's conventions.

    epsilon, delta: the guarantee for the images and labels given to `fit`; delta=None is the largest power of ten that is
    at most 1/(10 n) and 1e-5. n, the image size and the set of labels are treated as public. method, model: as in
    `sfumato train`.
    ledger: an open `Ledger` to pay from, so that several fits share one budget, and whose relation of neighbourhood is meant;
    None gives each fit its own (add or remove one image).
    seed: public randomness (initial weights); noise, sampling and augmentation come from the system's entropy.
    images_per_group: where `fit` is given groups, the images of each that are used at most; a public number.

    After `fit`: classes_, plan_ (what was done), epsilon_ (spent by this fit), classifier_.
    """

    def __init__(
        self,
        epsilon: float = 3.0,
        delta: float | None = None,
        method: str = "auto",
        model: str = "auto",
        ledger: Ledger | None = None,
        seed: int = 0,
        images_per_group: int = 8,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.method = method
        self.model = model
        self.ledger = ledger
        self.seed = seed
        self.images_per_group = images_per_group

    def fit(self, X: Shaped[np.ndarray, "n ..."], y: Any, groups: Any = None) -> "DPImageClassifier":
        """X: n x h x w or n x h x w x c images (c = 1 or 3), uint8 or floats in [0, 1]; y: n labels of any sortable kind.

        groups: n numbers or strings, whose images these are. The guarantee is then for a whole group, added or removed.
        Raises ArgumentError, DataError; BudgetError if the ledger does not allow the fit (nothing is released then).
        """
        self.classes_, labels = np.unique(np.asarray(y), return_inverse=True)
        source = from_arrays(X, labels.astype(np.int32), [str(name) for name in self.classes_])
        whose = UnitConfig()
        if groups is not None:
            owners = column(np.asarray(groups), len(source), "groups")
            check_told_apart(owners, "groups", "training")
            whose = UnitConfig("groups", self.images_per_group, "group")
            source = units.used(replace(source, owners=np.array(owners)), whose)
        relation = relation_of(self.ledger)
        config = TrainConfig(DataConfig("arrays"), PrivacyConfig(self.epsilon, self.delta, relation),
                             MethodConfig(self.method, self.model), units=whose)  # fmt: skip
        info = DataInfo("arrays", "memory", source.class_names, source.shape, {"train": len(source)},
                        units=None if groups is None else source.examples)  # fmt: skip
        info = units.named(info, whose)
        plan = make_plan(config, info)
        with nullcontext(self.ledger) if self.ledger is not None else Ledger.temporary(plan.delta, plan.epsilon) as ledger:
            self._fit(plan, source, ledger)
        self.plan_, self.epsilon_ = plan, plan.spends
        return self

    def _fit(self, plan: Plan, source: Source, ledger: Ledger) -> None:
        key = SecretKey.from_entropy()
        job = build(plan, source, None, self.seed, key, Quiet())
        self.classifier_ = job.classifier(run(job.procedure, ledger, key))

    def predict_proba(self, X: Shaped[np.ndarray, "n ..."]) -> Float32[np.ndarray, "n classes"]:
        check_is_fitted(self, "classifier_")
        images = from_arrays(X, np.zeros(len(X), np.int32), [str(name) for name in self.classes_])
        if images.shape != self.plan_.shape:
            raise ArgumentError("X", f"images of shape {images.shape}", f"give images of shape {self.plan_.shape}, as to fit")
        return self.classifier_.predict_proba(images.images(np.arange(len(images))))

    def predict(self, X: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, " n"]:
        return self.classes_[self.predict_proba(X).argmax(1)]
