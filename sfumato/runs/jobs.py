"""plan + images -> a job: the procedure to run, and what its state means as a classifier."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int64, PyTree

from sfumato.augment.views import views_of
from sfumato.clip import clipped_grad
from sfumato.clip.arithmetic import platform
from sfumato.core import devices
from sfumato.core.keys import SecretKey, public_stream
from sfumato.core.precision import PRECISIONS
from sfumato.core.tasks import SINGLE, Task
from sfumato.data.ahead import stored
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.extraction import extract
from sfumato.features.feature_map import Given
from sfumato.features.heads import OnFeatures, Sphere, SphereLinear
from sfumato.networks.backbone import in_type
from sfumato.networks.input import Input, Prepared
from sfumato.networks.trainable import finished, select
from sfumato.noise.banded import noise_of_run
from sfumato.plan.plan import Plan
from sfumato.plan.public_features import check_overlap, sphere_for
from sfumato.plan.public_weights import feature_map, prepared
from sfumato.plan.unit_batches import examples, units_of
from sfumato.runs.classifier import Classifier, Spec
from sfumato.runs.progress import Progress
from sfumato.solve.covariance_settings import CovarianceSettings
from sfumato.solve.fc import FIRST_GRADIENT, FeatureCovariance
from sfumato.solve.labeled_rows import Rows, scores_of
from sfumato.solve.linear import solver
from sfumato.solve.linear_settings import LinearSettings
from sfumato.solve.statistics import linear_of, scores_by, softmax_gradient, start_of
from sfumato.train.dpsgd import DPSGD
from sfumato.train.evaluation import answers, confusion, count, for_curve, glance
from sfumato.train.loop import Procedure, State
from sfumato.train.sgd_settings import SGDSettings
from sfumato.train.unit_loss import unit_loss

ROWS_AT_ONCE, VIEWS_AT_ONCE = 2048, 256
"""On a CPU more of them gain nothing."""

Confusion = Int64[np.ndarray, "c c"]
Scores = Float[np.ndarray, "n c"]


@dataclass
class Job:
    """procedure: what `train.loop.run` runs. classifier: a state -> the image classifier it stands
    for. scores: a state -> scores of the evaluation images, of which the task makes probabilities;
    None if there are none. confusion: the same, counted. curve: what a learning curve says of a state,
    by `shown` images where it looks at no more. learns_from: the first step that changes them. sides: what
    a released state says of left and right; None where it does not say.
    """

    procedure: Procedure
    classifier: Callable[[State], Classifier]
    scores: Callable[[State], Scores] | None
    confusion: Callable[[State], Confusion] | None = None
    curve: Callable[[State], dict[str, Any]] | None = None
    learns_from: int = 0
    shown: int = 0
    sides: Callable[[State], str | None] = lambda state: None

    def point(self, state: State) -> dict[str, Any]:
        """What a learning curve shows of a state; of how many images, if not of all."""
        found = {} if self.curve is None else self.curve(state)
        return found | {"images": self.shown} if self.shown else found


def build(
    plan: Plan,
    train: Source,
    held_out: Source | None,
    seed: int,
    key: SecretKey,
    progress: Progress,
) -> Job:
    """seed: public, for initial weights. key: the run's, for augmentation.

    For fixed features this computes them, for both sources, which is most of the work.
    """
    if plan.features is None:
        return _on_images(plan, train, held_out, seed, key)
    features = feature_map(plan.model, plan.shape, plan.weights)
    if plan.settings.needs == "rows":
        return _linear(plan, features, train, held_out, progress)
    rows = [
        _rows(features, source, name, progress)
        for source, name in ((train, "features"), (held_out, "test features"))
    ]
    assert rows[0] is not None
    labeled = examples(train, plan.images_per_unit, rows[0])
    made = _covariance if plan.settings.needs == "groups" else _on_rows
    return made(plan, features, labeled, rows[1], held_out)


def _rows(features: Any, source: Source | None, name: str, progress: Progress) -> np.ndarray | None:
    if source is None:
        return None
    progress.begin(name, len(source), "images")
    return extract(features, source, progress=progress.advance)


Labeled = tuple[Float[np.ndarray, "n d"], np.ndarray]


def _covariance(
    plan: Plan, features: Any, train: Labeled, rows: np.ndarray | None, held_out: Source | None
) -> Job:
    procedure = FeatureCovariance(
        *train,
        len(plan.classes),
        features.groups,
        plan.mu,
        cast(CovarianceSettings, plan.settings),
        overwrite=True,
        bare=plan.not_private is not None,
    )
    spec = spec_of(plan, "whitened")
    white: list[np.ndarray] = []

    def scores(state: State) -> Scores:
        assert rows is not None
        if not white:  # mean, whitening and what is kept are fixed by the first gradient
            white.append(procedure.transform(rows, state))
        return scores_by(white[0], state["weight"], plan.task)

    return Job(
        procedure,
        lambda state: Classifier(spec, OnFeatures(features, procedure.head(state))),
        *_measured(scores, held_out),
        learns_from=FIRST_GRADIENT,
        sides=_sides,
    )


def _sides(state: State) -> str | None:
    if "kept" not in state:
        return None
    if np.all(state["kept"]):
        return "kept, as the first released gradient shows that they tell classes apart"
    return "made alike, as the first released gradient does not show that they tell classes apart"


def _measured(scores: Callable[[State], Scores], held_out: Source | None) -> tuple[Any, Any, Any]:
    """`scores`, `confusion` and `curve` of a job on rows."""
    if held_out is None:
        return None, None, None
    labels = held_out.labels
    return (
        scores,
        lambda state: count(labels, scores(state)),
        lambda state: glance(labels, scores(state)),
    )


def _linear(
    plan: Plan, features: Any, train: Source, held_out: Source | None, progress: Progress
) -> Job:
    """The rows of the training set are streamed from where they lie if they are given, else
    computed."""
    table = head_rows(plan, features, train, held_out, progress)
    shown = table.shown
    settings = cast(LinearSettings, plan.settings)
    procedure = solver(table.rows, table.sphere, settings, plan.releases)
    spec = spec_of(plan, table.sphere.kind)

    def scores(state: State) -> Scores:
        assert shown is not None
        return np.asarray(scores_of(procedure.classifier(cast(Any, state)), shown))

    return Job(
        procedure,
        lambda state: Classifier(
            spec, OnFeatures(features, procedure.classifier(cast(Any, state)))
        ),
        *_measured(scores, held_out),
        learns_from=1,
    )


@dataclass(frozen=True)
class HeadRows:
    """What linear heads are fitted on, and what they are compared on: rows and their classes, None
    where there are none."""

    rows: Rows
    sphere: Sphere
    shown: np.ndarray | None
    truth: np.ndarray | None

    def confusion(self, head: SphereLinear) -> Confusion:
        assert self.shown is not None and self.truth is not None
        return count(self.truth, scores_of(head, self.shown))


def head_rows(
    plan: Plan, features: Any, train: Source, held_out: Source | None, progress: Progress
) -> HeadRows:
    matrix, shown = _matrices(features, train, held_out, progress)
    if overlap := check_overlap(plan.public, matrix):
        warnings.warn(overlap, stacklevel=2)
    matrix, labels = examples(train, plan.images_per_unit, matrix)
    sphere = sphere_for(plan.public, matrix.shape[1], plan.rooted)
    truth = None if held_out is None else held_out.labels
    return HeadRows(Rows(matrix, labels, len(plan.classes)), sphere, shown, truth)


def _matrices(
    features: Any, train: Source, held_out: Source | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of both sources: as given (mapped, if they lie in a file), or computed."""
    found = []
    for source, name in ((train, "features"), (held_out, "test features")):
        if source is None or not isinstance(features, Given):
            found.append(_rows(features, source, name, progress))
        else:
            found.append(
                source.rows
                if source.rows is not None
                else source.raw(np.arange(len(source)))[:, 0, 0, :]
            )
    assert found[0] is not None
    return found[0], found[1]


def _on_rows(
    plan: Plan, features: Any, train: Labeled, rows: np.ndarray | None, held_out: Source | None
) -> Job:
    settings = _sgd(plan)
    matrix, labels = train
    procedure = DPSGD(
        params={"weight": start_of(matrix.shape[1], len(plan.classes), plan.task)},
        clipped=softmax_gradient(settings.clip_norm, normalized=True, task=plan.task),
        fetch=lambda indices, step: (matrix[indices], labels[indices]),
        most_at_once=ROWS_AT_ONCE,
        **_common(plan, settings),
    )
    spec = spec_of(plan, "linear")

    def scores(state: State) -> Scores:
        assert rows is not None
        return scores_by(rows, state["ema"]["weight"], plan.task)

    def classifier(state: State) -> Classifier:
        linear = linear_of(state["ema"]["weight"], plan.task)
        return Classifier(spec, OnFeatures(features, linear))

    return Job(procedure, classifier, *_measured(scores, held_out))


def _on_images(
    plan: Plan, train: Source, held_out: Source | None, seed: int, secret: SecretKey
) -> Job:
    settings = _sgd(plan)
    network, own, mask = _network(plan, seed)
    params, static = eqx.partition(network, mask)
    frozen, static = eqx.partition(static, eqx.is_array)
    # Views are told apart by position in the training set, so they must be secret: a public seed
    # would give every later image other views once one image is removed, and neighboring sums would
    # differ in more than one term. Secret and independent, their law for the other images is the
    # same with and without the removed one, and one term is all that differs.
    views, of_view = views_of(
        settings.augment,
        settings.views,
        plan.shape,
        own,
        lambda name, step, indices, count: secret.words(("views", step, *name), indices, count),
    )

    def loss(params: PyTree, example: PyTree, frozen: PyTree) -> Float[Array, ""]:
        network = loss_of(
            eqx.combine(frozen, static), of_view, views, settings.precision, plan.task
        )
        return network(params, example)

    def fetch(indices: np.ndarray, step: int) -> PyTree:
        return (stored(train, indices), views.draws(indices, step)), train.labels[indices]

    most = plan.images_per_unit
    procedure = DPSGD(
        params=params,
        clipped=clipped_grad(
            loss if most is None else unit_loss(loss), settings.clip_norm, normalized=True
        ),
        frozen=frozen,
        fetch=fetch if most is None else units_of(train, most).fetch(fetch),
        most_at_once=max(1, VIEWS_AT_ONCE // (max(1, settings.views) * (most or 1))),
        **_common(plan, settings),
    )
    spec = spec_of(plan, None)

    def classifier(state: State) -> Classifier:
        return Classifier(spec, Prepared(finished(eqx.combine(state["ema"], frozen, static)), own))

    if held_out is None:
        return Job(procedure, classifier, None, None)

    def scores(state: State, source: Source = held_out) -> Scores:
        return plan.task.scores(answers(classifier(state).probabilities, source))

    few = for_curve(held_out)
    return Job(
        procedure,
        classifier,
        scores,
        lambda state: confusion(classifier(state).probabilities, held_out),
        lambda state: glance(few.labels, scores(state, few)),
        shown=0 if few is held_out else len(few),
    )


def loss_of(
    rest: PyTree,
    own: Input,
    views: Callable[[Array, PyTree], Array],
    precision: str,
    task: Task = SINGLE,
) -> Callable[[PyTree, PyTree], Float[Array, ""]]:
    """(trained part, ((image, draws), label)) -> mean loss over the views of one example, cross entropy for classes
    (augmentation multiplicity: average, then clip). rest: what the trained part lacks to be the
    network. own: what the network does to a view first. views: (image, draws) -> its views.
    precision: a name of `PRECISIONS`.
    """
    chosen = PRECISIONS[precision]

    def loss(params: PyTree, example: PyTree) -> Float[Array, ""]:
        (image, draws), label = example
        products = chosen.products if platform() != "cpu" else None
        network = in_type(eqx.combine(params, rest), chosen.compute)
        with jax.default_matmul_precision(products) if products else nullcontext():
            scores = jax.vmap(lambda view: network(own(view).astype(chosen.compute)))(
                views(image, draws)
            )
        return task.loss(scores.astype(jnp.float32), label).mean()

    return loss


def _network(plan: Plan, seed: int) -> tuple[PyTree, Input, PyTree]:
    """(network, what it does to an image first, which leaves are trained)."""
    key = jax.random.key(int(public_stream(seed, "initial weights").integers(2**31)))
    if plan.weights is None:
        start = by_name.network(plan.model, plan.shape, len(plan.classes), key, plan.input)
    else:
        start = prepared(plan.weights, len(plan.classes))
    network, mask = select(start.network, plan.trains or "all", key)
    return network, plan.input or start.input, mask


def spec_of(plan: Plan, head: str | None) -> Spec:
    return Spec(plan.model, head, plan.shape, plan.classes, plan.input, plan.task)


def _sgd(plan: Plan) -> SGDSettings:
    assert isinstance(plan.settings, SGDSettings)
    return plan.settings


def _common(plan: Plan, settings: SGDSettings) -> dict[str, Any]:
    return {
        "sampler": plan.sampler,
        "noise": noise_of_run(plan.releases[0].event, settings.momentum_of_sums),
        "optimizer": settings.transformation(),
        "physical_batch_size": settings.physical_batch_size,
        "ema_decay": settings.ema,
        "layout": devices.here(),
    }
