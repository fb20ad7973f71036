"""The scikit-learn face of the linear solvers: rows of features in, private classifier out."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped
from sklearn.utils.validation import check_is_fitted

from sfumato.core import typed_json
from sfumato.core.checks import choice, privacy_target
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import SINGLE, Task, task_of
from sfumato.core.typed_json import OrInfinity, Read
from sfumato.data.finite import of_rows
from sfumato.data.source import warn_if_not_finite
from sfumato.estimators.fitting import (
    USED,
    PrivateClassifier,
    check_finite,
    told_classes,
    warn_of_promise,
)
from sfumato.estimators.row_arguments import (
    balancing,
    class_weights,
    grouped_rows,
    row_weights,
    validated,
    weighted,
)
from sfumato.features.heads import Sphere, SphereLinear
from sfumato.networks.layers.basic import Linear
from sfumato.privacy import accountants, calibration
from sfumato.privacy.events import GaussianEvent
from sfumato.privacy.ledger import Ledger, relation_of
from sfumato.privacy.neighbors import ADD_OR_REMOVE, Relation
from sfumato.privacy.not_private import RULED_BY
from sfumato.privacy.releases import Release, tally_of
from sfumato.runs.progress import Progress
from sfumato.solve.labeled_rows import Rows, scores_of
from sfumato.solve.linear import class_counts, solver
from sfumato.solve.linear_settings import HEADS, METHODS, LinearSettings, head_of, releases_for
from sfumato.solve.public_rows import check_public, directions, public_sphere
from sfumato.train.loop import run

COUNT_SHARE = 0.02
"""Of mu^2, for the class counts that class_weight="balanced" needs."""


def _settings(value: Any, plan: Mapping[str, Any]) -> Any:
    """Of the plan's method."""
    return typed_json.convert(HEADS[choice("method", plan["method"], METHODS)], value, "recipe")


@dataclass(frozen=True)
class LinearPlan:
    """What a fit does, from public facts: n rows, d features, the recipe, and the releases it pays
    for."""

    n: int
    d: int
    recipe: Annotated[LinearSettings, Read(_settings)]
    releases: tuple[Release, ...]
    epsilon: OrInfinity
    delta: float
    mu: float
    relation: Relation = ADD_OR_REMOVE
    task: Task = SINGLE

    @property
    def spends(self) -> float:
        return accountants.epsilon(tally_of(self.releases), self.delta, relation=self.relation)

    def to_json(self) -> dict[str, Any]:
        """What `typed_json.convert` reads."""
        own = {each.name: typed_json.plain(getattr(self, each.name)) for each in fields(self)}
        return own | {"method": self.recipe.method}


class DPLinearClassifier(PrivateClassifier):
    """A differentially private linear classifier of feature rows, with scikit-learn's conventions.

    epsilon, delta: the guarantee for the rows and labels given to `fit`; delta=None is the largest
        power of ten that is at most 1/(10 n) and 1e-5. epsilon=math.inf: without noise and clip, NOT
        PRIVATE, for baselines and debugging.
    method: "ls", "newton", "fc", "sgd", "adam", "lamb", "means", or "auto", which chooses from n, d
        and epsilon alone.
    classes: all classes; None takes those that occur in y, whose set (like n) is then treated as
        public. Of several findings: their names, in the order of y's columns; None takes the names of
        its columns, or 0, 1, ...
    class_weight: None; "balanced", from class counts that are released with noise for 2 % of the
        budget; or a dict {class: weight} of public numbers (divided by the largest, so that no row
        counts more than one; 1 where none is given).
    public: features of public examples (m x d), for centering and directions that cost no privacy.
    rooted: take signed square roots of the features first; suits non-negative ones, such as those
        of a ReLU network.
    ledger: an open `Ledger` to pay from, so that several fits share one budget and its relation of
        neighborhood; clones share it too, so `cross_val_score` (with n_jobs=1) pays for every fit.
        None gives each fit its own (add or remove one row).
    rows_per_group: where `fit` is given groups, how many rows of each are used at most; a public
        number.
    verbose: 1 shows a bar of the steps.

    The guarantee begins at `fit`. What is fitted on private rows in front of it (a StandardScaler
    or a PCA in a Pipeline), or a sample_weight computed from other rows, is outside of epsilon: use
    public rows for that, or steps that look at one row.

    A row that is not finite counts as nothing; `fit` warns of such rows, and refuses where most
    are. A fit that is refused leaves the estimator as it was. Without a ledger, `fit` warns where
    the same rows were used before in this process.

    `save(path)` writes a fitted one to a file, `DPLinearClassifier.load(path)` reads it.

    After `fit`: classes_, n_features_in_, plan_, epsilon_ (spent by this fit), head_ (a module: row
    -> scores). Noise comes from the system's entropy, so two fits differ.
    """

    _saved_as: ClassVar[str] = "DPLinearClassifier"

    def __init__(
        self,
        epsilon: float = 1.0,
        delta: float | None = None,
        method: str = "auto",
        classes: Any = None,
        class_weight: Any = None,
        public: Any = None,
        rooted: bool = False,
        ledger: Ledger | None = None,
        rows_per_group: int = 8,
        verbose: int = 0,
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.method = method
        self.classes = classes
        self.class_weight = class_weight
        self.public = public
        self.rooted = rooted
        self.ledger = ledger
        self.rows_per_group = rows_per_group
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> "DPLinearClassifier":
        """X: n x d, float16, float32 or float64, also memory-mapped (it is streamed); y: n labels,
        or n x L findings, L >= 2, each 1, 0, or -1 or NaN where it is unknown.

        sample_weight: n numbers in [0, 1], each from its own row alone; a row's influence is that
            much of what the guarantee grants to one row.
        groups: n numbers or strings that say which rows belong together. The guarantee is then for
            a whole group, which enters as the mean of its rows with their most frequent class.

        Raises ArgumentError, DataError; BudgetError if the ledger does not allow the fit (nothing
        is released then).
        """
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, groups)

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> "DPLinearClassifier":
        if y is not None:
            classes, labels = told_classes(y, self.classes)
        X = validated(self, X, y=y if y is None else labels, multi_output=True)
        if self.class_weight is not None:
            task_of(labels).need_classes("class_weight", self.class_weight)
        of_class = class_weights(self.class_weight, classes)
        given, weights = X, row_weights(sample_weight, len(X))
        if groups is not None:
            X, labels = grouped_rows(X, labels, groups, self.rows_per_group, sample_weight)
        check_finite(
            of_rows(
                X, "rows" if groups is None else "groups", getattr(self, "feature_names_in_", None)
            )
        )
        rows = Rows(X, labels, len(classes), weights)
        plan, sphere = self._plan(rows, balanced=of_class is None)
        if self.public is not None and (overlap := check_public(np.asarray(self.public), given)):
            warnings.warn(overlap, stacklevel=3)
        warn_of_promise(plan.epsilon, plan.delta, plan.n, len(classes), plan.mu, plan.task)
        with self._paying(plan.epsilon, plan.delta, groups) as (ledger, progress):
            head = _run(plan, rows, of_class, sphere, ledger, progress)
        self.classes_, self.plan_, self.head_, self.epsilon_ = classes, plan, head, plan.spends
        if self.ledger is None:
            USED.add(given, plan.spends)
        return self

    def _plan(self, rows: Rows, balanced: bool) -> tuple[LinearPlan, Sphere]:
        """Of public facts of the rows. balanced: whether the counts of the classes are released first."""
        n, classes, task = len(rows), rows.classes, rows.task
        epsilon, delta = privacy_target(self.epsilon, self.delta, n, infinite=True)
        relation, ruled_by = relation_of(self.ledger), RULED_BY if epsilon == math.inf else epsilon
        mu = calibration.gaussian_mu_for(ruled_by, delta, relation)
        enough = GaussianEvent(1 / (mu * math.sqrt(COUNT_SHARE)) * (1 + 1e-12))
        counts = Release("class counts", 1, enough, "how many examples each class has")
        left = mu * math.sqrt(1 - COUNT_SHARE) if balanced else mu
        sphere = self._sphere(n, left)
        recipe = head_of(self.method, sphere.size - 1).rule(n, sphere.size, classes, left, task)
        releases = (counts,) * balanced + releases_for(recipe, ruled_by, delta, left, relation)
        if epsilon == math.inf:
            recipe, releases = recipe.unclipped(), tuple(each.unprotected() for each in releases)
        return LinearPlan(
            n, self.n_features_in_, recipe, releases, epsilon, delta, mu, relation, task
        ), sphere

    def decision_function(self, X: Any) -> Float[np.ndarray, " n *classes"]:
        """Scores of classes or findings; for two classes, how much the second leads."""
        scores, two = self._scores(X), self._task.exclusive and len(self.classes_) == 2
        return scores[:, 1] - scores[:, 0] if two else scores

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """Rows of sum 1; of findings, the probability of each."""
        scores = jnp.asarray(self._scores(X))
        return np.asarray(self._task.chances(scores))

    def predict(self, X: Any) -> Shaped[np.ndarray, "n ..."]:
        """The class of each row; or 1 for each finding that is likelier than not and 0 for the others."""
        scores = self._scores(X)
        return self._task.answers(self.classes_, self._task.called(scores))

    @property
    def _task(self) -> Task:
        return self.plan_.task

    def _learned(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        sphere, linear = self.head_.sphere, self.head_.linear
        arrays = {
            "shift": sphere.shift,
            "projection": sphere.projection,
            "mean": sphere.mean,
            "weight": linear.weight,
            "bias": linear.bias,
        }
        names = getattr(self, "feature_names_in_", None)
        facts = {
            "plan": self.plan_.to_json(),
            "head": sphere.kind,
            "features": self.n_features_in_,
            "feature_names": None if names is None else names.tolist(),
        }
        return facts, {
            name: np.asarray(array) for name, array in arrays.items() if array is not None
        }

    def _relearn(
        self, facts: Mapping[str, Any], arrays: dict[str, np.ndarray], where: Path
    ) -> None:
        self.n_features_in_, self.plan_ = (
            int(facts["features"]),
            typed_json.convert(LinearPlan, facts["plan"], "plan"),
        )
        if facts["feature_names"] is not None:
            self.feature_names_in_ = np.array(facts["feature_names"], object)
        d, k, c = self.n_features_in_, len(arrays["mean"]), len(self.classes_)
        wanted = {
            "shift": (d,),
            "projection": (d, k),
            "mean": (k,),
            "weight": (k + 1, c),
            "bias": (c,),
        }
        given = {name: jnp.asarray(arrays[name]) for name in wanted if name in arrays}
        if any(given[name].shape != wanted[name] for name in given) or (
            "projection" not in given and d != k
        ):
            raise ValueError(f"arrays of other shapes than {wanted}")
        sphere = Sphere(
            given["shift"],
            given.get("projection"),
            given["mean"],
            "rooted" in facts["head"].split(),
        )
        self.head_ = SphereLinear(sphere, Linear(given["weight"], given["bias"]))

    def _scores(self, X: Any) -> Float[np.ndarray, "n classes"]:
        check_is_fitted(self, "head_")
        X = validated(self, X, reset=False)
        warn_if_not_finite(X, "rows")
        return scores_of(self.head_, X)

    def _sphere(self, n: int, mu: float) -> Sphere:
        if self.public is None:
            return Sphere.plain(self.n_features_in_, self.rooted)
        public = np.asarray(self.public)
        if public.ndim != 2 or public.shape[1] != self.n_features_in_:
            raise ArgumentError(
                "public",
                f"shape {public.shape}",
                f"give rows of {self.n_features_in_} features, as in X",
            )
        return public_sphere(public.astype(np.float64), directions(n, mu), self.rooted)


def _run(
    plan: LinearPlan,
    rows: Rows,
    of_class: np.ndarray | None,
    sphere: Sphere,
    ledger: Ledger,
    progress: Progress,
) -> SphereLinear:
    """of_class: the weight of each class; None to balance them by counts that are released first."""
    key, releases = SecretKey.from_entropy(), plan.releases
    ledger.authorize(tally_of(releases), key.fingerprint)
    if of_class is None:
        state: Any = run(class_counts(rows, releases[0]), ledger, key)
        of_class, releases = balancing(np.asarray(state["counts"])), releases[1:]
    procedure = solver(weighted(rows, of_class), sphere, plan.recipe, releases)
    progress.begin(plan.recipe.method, procedure.steps, "steps")
    final: Any = run(procedure, ledger, key, after_step=lambda done, state: progress.advance(done))
    return procedure.classifier(final)
