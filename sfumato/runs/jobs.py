"""plan + images -> a job: the procedure to run, and what its state means as a classifier."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int64, PyTree

from sfumato.clip import clipped_grad
from sfumato.clip.arithmetic import platform
from sfumato.core.keys import SecretKey, public_stream
from sfumato.core.precision import PRECISIONS
from sfumato.data.source import Source
from sfumato.data.views import Views
from sfumato.features import by_name
from sfumato.features.extraction import extract
from sfumato.features.feature_map import Given
from sfumato.features.heads import OnFeatures
from sfumato.networks.backbone import in_type
from sfumato.networks.input import Input, Prepared
from sfumato.networks.layers.basic import Linear
from sfumato.networks.trainable import finished, select
from sfumato.noise.banded import noise_of_run
from sfumato.plan.plan import Plan
from sfumato.plan.public_features import sphere_for
from sfumato.plan.public_weights import feature_map, prepared
from sfumato.plan.unit_batches import examples, units_of
from sfumato.runs.classifier import Classifier, Spec
from sfumato.runs.progress import Progress
from sfumato.solve.covariance_settings import CovarianceSettings
from sfumato.solve.fc import FIRST_GRADIENT, FeatureCovariance
from sfumato.solve.labeled_rows import Rows, scores_of
from sfumato.solve.linear import solver
from sfumato.solve.linear_settings import LinearSettings
from sfumato.solve.statistics import softmax_gradient
from sfumato.train.dpsgd import DPSGD
from sfumato.train.evaluation import confusion, count
from sfumato.train.loop import Procedure, State
from sfumato.train.sgd_settings import SGDSettings
from sfumato.train.unit_loss import unit_loss

Confusion = Int64[np.ndarray, "c c"]


@dataclass
class Job:
    """procedure: what `train.loop.run` runs. classifier: a state -> the image classifier it stands
    for. confusion: a state -> counts on the evaluation images, None if there are none. learns_from:
    the first step that changes them.
    """

    procedure: Procedure
    classifier: Callable[[State], Classifier]
    confusion: Callable[[State], Confusion] | None
    learns_from: int = 0


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
    if isinstance(plan.settings, LinearSettings):
        return _linear(plan, plan.settings, features, train, held_out, progress)
    rows = [
        _rows(features, source, name, progress)
        for source, name in ((train, "features"), (held_out, "test features"))
    ]
    assert rows[0] is not None
    labeled = examples(train, plan.images_per_unit, rows[0])
    if isinstance(plan.settings, CovarianceSettings):
        return _covariance(plan, plan.settings, features, labeled, rows[1], held_out)
    return _on_rows(plan, features, labeled, rows[1], held_out)


def _rows(features: Any, source: Source | None, name: str, progress: Progress) -> np.ndarray | None:
    if source is None:
        return None
    progress.begin(name, len(source), "images")
    return extract(features, source, progress=progress.advance)


Labeled = tuple[Float[np.ndarray, "n d"], np.ndarray]


def _covariance(
    plan: Plan,
    settings: CovarianceSettings,
    features: Any,
    train: Labeled,
    rows: np.ndarray | None,
    held_out: Source | None,
) -> Job:
    procedure = FeatureCovariance(
        *train, len(plan.classes), features.groups, plan.mu, settings, overwrite=True
    )
    spec = spec_of(plan, "whitened")
    white: list[np.ndarray] = []

    def counts(state: State) -> Confusion:
        assert rows is not None and held_out is not None
        if not white:  # mean and whitening are fixed by the time anything is learned
            white.append(procedure.transform(rows, state))
        return count(held_out.labels, white[0] @ np.asarray(state["weight"]))

    return Job(
        procedure,
        lambda state: Classifier(spec, OnFeatures(features, procedure.head(state))),
        None if rows is None else counts,
        learns_from=FIRST_GRADIENT,
    )


def _linear(
    plan: Plan,
    settings: LinearSettings,
    features: Any,
    train: Source,
    held_out: Source | None,
    progress: Progress,
) -> Job:
    """The rows of the training set are streamed from where they lie if they are given, else
    computed."""
    matrix, shown = matrices(features, train, held_out, progress)
    matrix, labels = examples(train, plan.images_per_unit, matrix)
    rows, sphere = (
        Rows(matrix, labels, len(plan.classes)),
        sphere_for(plan.public, matrix.shape[1], plan.rooted),
    )
    procedure = solver(rows, sphere, settings, plan.releases)
    spec = spec_of(plan, sphere.kind)

    def counts(state: State) -> Confusion:
        assert shown is not None and held_out is not None
        return count(held_out.labels, scores_of(procedure.classifier(cast(Any, state)), shown))

    return Job(
        procedure,
        lambda state: Classifier(
            spec, OnFeatures(features, procedure.classifier(cast(Any, state)))
        ),
        None if shown is None else counts,
        learns_from=1,
    )


def matrices(
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
        params={"weight": jnp.zeros((matrix.shape[1], len(plan.classes)))},
        clipped=softmax_gradient(settings.clip_norm, normalized=True),
        fetch=lambda indices, step: (matrix[indices], labels[indices]),
        **_common(plan, settings),
    )
    spec = spec_of(plan, "linear")

    def counts(state: State) -> Confusion:
        assert rows is not None and held_out is not None
        return count(held_out.labels, rows @ np.asarray(state["ema"]["weight"]))

    def classifier(state: State) -> Classifier:
        linear = Linear(state["ema"]["weight"], jnp.zeros(len(plan.classes)))
        return Classifier(spec, OnFeatures(features, linear))

    return Job(procedure, classifier, None if rows is None else counts)


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
    views = Views(
        lambda step, indices, count: secret.words(("views", step), indices, count),
        settings.views,
        shift=max(1, min(plan.shape[:2]) // 8),
        flip=plan.shape[2] == 3,
    )

    def loss(params: PyTree, example: tuple[Array, Array], frozen: PyTree) -> Float[Array, ""]:
        return loss_of(eqx.combine(frozen, static), own, settings.precision)(params, example)

    def fetch(indices: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        return (views(train.images(indices), indices, step), train.labels[indices])

    most = plan.images_per_unit
    procedure = DPSGD(
        params=params,
        clipped=clipped_grad(
            loss if most is None else unit_loss(loss), settings.clip_norm, normalized=True
        ),
        frozen=frozen,
        fetch=fetch if most is None else units_of(train, most).fetch(fetch),
        **_common(plan, settings),
    )
    spec = spec_of(plan, None)

    def classifier(state: State) -> Classifier:
        return Classifier(spec, Prepared(finished(eqx.combine(state["ema"], frozen, static)), own))

    def counts(state: State) -> Confusion:
        assert held_out is not None
        return confusion(classifier(state).probabilities, held_out)

    return Job(procedure, classifier, None if held_out is None else counts)


def loss_of(
    rest: PyTree, own: Input, precision: str
) -> Callable[[PyTree, tuple[Array, Array]], Float[Array, ""]]:
    """(trained part, (views, label)) -> mean cross entropy over the views of one example
    (augmentation multiplicity: average, then clip). rest: what the trained part lacks to be the
    network. own: what the network does to an image first. precision: a name of `PRECISIONS`.
    """
    chosen = PRECISIONS[precision]

    def loss(params: PyTree, example: tuple[Array, Array]) -> Float[Array, ""]:
        images, label = example
        products = chosen.products if platform() != "cpu" else None
        network = in_type(eqx.combine(params, rest), chosen.compute)
        with jax.default_matmul_precision(products) if products else nullcontext():
            scores = jax.vmap(lambda image: network(own(image).astype(chosen.compute)))(images)
        scores = scores.astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(
            scores, jnp.broadcast_to(label, scores.shape[:1])
        ).mean()

    return loss


def _network(plan: Plan, seed: int) -> tuple[PyTree, Input, PyTree]:
    """(network, what it does to an image first, which leaves are trained)."""
    key = jax.random.key(int(public_stream(seed, "initial weights").integers(2**31)))
    if plan.weights is None:
        start = by_name.network(plan.model, plan.shape, len(plan.classes), key, plan.input)
    else:
        start = prepared(plan.weights, len(plan.classes))
    network, mask = select(start.network, plan.trains or "all", key)
    return network, start.input, mask


def spec_of(plan: Plan, head: str | None) -> Spec:
    return Spec(plan.model, head, plan.shape, plan.classes, plan.input)


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
    }
