"""Ordinary training on PUBLIC images: no clipping, no noise, no privacy. The weights may give every
image away.

    for every epoch: shuffle, cut into batches
        for every batch: one augmented view per image -> mean cross entropy -> gradient -> SGD

The learning rate falls along half a cosine (Loshchilov & Hutter 2017) after one epoch of warm-up
(Goyal et al. 2017). Order and views are functions of (seed, epoch), so training continues from a
checkpoint as if it had not been stopped.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, Num, PyTree, Shaped

from sfumato import augment
from sfumato.augment.views import ITSELF, Draws, views_of
from sfumato.core.devices import Layout
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import public_stream, public_words
from sfumato.core.tasks import SINGLE, Task
from sfumato.data.ahead import ahead, stored
from sfumato.data.source import Source
from sfumato.networks.input import Prepared, pixels
from sfumato.train.pretrain_settings import PretrainSettings

State = dict[str, Any]
"""params, optimizer: what a checkpoint holds."""


def _optimizer(settings: PretrainSettings, steps_per_epoch: int) -> optax.GradientTransformation:
    """Decay acts on kernels and matrices only, not on biases and norms."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        settings.learning_rate,
        steps_per_epoch if settings.epochs > 1 else 0,
        settings.epochs * steps_per_epoch,
    )
    decay = optax.add_decayed_weights(
        settings.weight_decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    )
    return optax.chain(decay, optax.sgd(schedule, settings.momentum, nesterov=True))


class Pretraining:
    """A network, public images and settings. Raises ArgumentError for a batch larger than the
    source."""

    def __init__(self, network: Prepared, source: Source, settings: PretrainSettings):
        settings.check()
        if settings.batch > len(source):
            raise ArgumentError(
                "batch", settings.batch, f"there are only {len(source)} training images; give fewer"
            )
        self.source, self.settings = source, settings
        self.steps_per_epoch = len(source) // settings.batch
        self._params, self._static = eqx.partition(network, eqx.is_inexact_array)
        self._optimizer = _optimizer(settings, self.steps_per_epoch)
        self._views, _ = views_of(augment.DEFAULT, 1, source.shape, network.input, ITSELF.words)
        self._step = jax.jit(self._learn, donate_argnums=0)

    def start(self) -> State:
        return {"params": self._params, "optimizer": self._optimizer.init(self._params)}

    def network(self, state: State) -> Prepared:
        return eqx.combine(state["params"], self._static)

    def epoch(
        self, state: State, number: int, after_step: Callable[[int], None] = lambda done: None
    ) -> State:
        """The state after one pass over the images (but for the last few, fewer than a batch).
        `state` is used up."""
        stream = public_stream(self.settings.seed, f"pretraining/{number}")
        order, batch = stream.permutation(len(self.source)), self.settings.batch
        batches = (
            (order[step * batch : (step + 1) * batch], step) for step in range(self.steps_per_epoch)
        )
        examples = (
            (
                stored(self.source, chosen),
                self._draws(number, chosen, step),
                self.source.labels[chosen],
            )
            for chosen, step in batches
        )
        with closing(ahead(examples)) as read:  # type: ignore[type-var]
            for step, (images, draws, labels) in enumerate(read):
                state = self._step(state, images, draws, labels)
                after_step(step + 1)
        return state

    def _draws(self, epoch: int, chosen: np.ndarray, step: int) -> Draws:
        def words(name: tuple[str, ...], step: int, indices: np.ndarray, count: int) -> np.ndarray:
            return public_words(self.settings.seed, (f"views/{epoch}", step, *name), indices, count)

        return replace(self._views, words=words).draws(chosen, step)

    def _learn(
        self,
        state: State,
        images: Num[Array, "b h w c"],
        draws: PyTree[Int[Array, "b 1 k"]],
        labels: Int[Array, " b"],
    ) -> State:
        views = jax.vmap(self._views)(images, draws)[:, 0]

        def loss(params: PyTree) -> Float[Array, ""]:
            scores = jax.vmap(eqx.combine(params, self._static))(views)
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        updates, optimizer = self._optimizer.update(
            jax.grad(loss)(state["params"]), state["optimizer"], state["params"]
        )
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer}


@eqx.filter_jit
def class_probabilities(
    network: Any,
    images: Num[Array | np.ndarray, "b h w c"],
    task: Task = SINGLE,
    layout: Layout | None = None,
) -> Float32[Array, "b classes"]:
    """Of uint8, or pixels in [0, 1]. Compiled once for all networks of one structure and each size of
    batch. layout: devices of this process over which the images are spread."""
    arrays, rest = eqx.partition(network, eqx.is_array)

    def each(
        arrays: Any, images: Num[Array | np.ndarray, "b h w c"]
    ) -> Float32[Array, "b classes"]:
        own = eqx.combine(arrays, rest)
        return task.chances(jax.vmap(lambda image: own(pixels(image)))(images))

    return (each if layout is None else layout.rows(each))(arrays, images)


def predictor(
    network: Prepared,
) -> Callable[[Shaped[np.ndarray, "b h w c"]], Float32[np.ndarray, "b classes"]]:
    """Images -> class probabilities."""
    return lambda images: np.asarray(class_probabilities(network, jnp.asarray(images)))
