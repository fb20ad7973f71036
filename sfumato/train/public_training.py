"""Ordinary training on PUBLIC images: no clipping, no noise, no privacy. The weights may give every
image away.

    for every epoch: shuffle, cut into batches
        for every batch: one augmented view per image -> mean cross entropy -> gradient -> SGD

The learning rate falls along half a cosine (Loshchilov & Hutter 2017) after one epoch of warm-up
(Goyal et al. 2017). Order and views are functions of (seed, epoch), so training continues from a
checkpoint as if it had not been stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int, PyTree

from sfumato.core.checks import fraction, positive, whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import public_stream, public_words
from sfumato.data.source import Source
from sfumato.data.views import Views
from sfumato.networks.input import Prepared

State = dict[str, Any]
"""params, optimizer: what a checkpoint holds."""


@dataclass(frozen=True)
class PretrainSettings:
    """batch, learning_rate, momentum, weight_decay: of Zagoruyko & Komodakis 2016, Sec. 3, unless
    given."""

    epochs: int
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    def check(self) -> None:
        """Raise ArgumentError for settings that no data could make right."""
        whole("epochs", self.epochs)
        whole("batch", self.batch)
        positive("learning_rate", self.learning_rate)
        fraction("momentum", self.momentum)
        fraction("weight_decay", self.weight_decay)
        whole("seed", self.seed, at_least=0)

    def optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """Decay acts on kernels and matrices only, not on biases and norms."""
        schedule = optax.warmup_cosine_decay_schedule(
            0.0,
            self.learning_rate,
            steps_per_epoch if self.epochs > 1 else 0,
            self.epochs * steps_per_epoch,
        )
        decay = optax.add_decayed_weights(
            self.weight_decay, lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
        )
        return optax.chain(decay, optax.sgd(schedule, self.momentum, nesterov=True))


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
        self._optimizer = settings.optimizer(self.steps_per_epoch)
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
        side, colors = min(self.source.shape[:2]), self.source.shape[2]
        views = Views(
            lambda step, indices, count: public_words(
                self.settings.seed, (f"views/{number}", step), indices, count
            ),
            1,
            shift=max(1, side // 8),
            flip=colors == 3,
        )
        for step in range(self.steps_per_epoch):
            chosen = order[step * batch : (step + 1) * batch]
            images = views(self.source.images(chosen), chosen, step)[:, 0]
            state = self._step(state, images, self.source.labels[chosen])
            after_step(step + 1)
        return state

    def _learn(
        self, state: State, images: Float[Array, "b h w c"], labels: Int[Array, " b"]
    ) -> State:
        def loss(params: PyTree) -> Float[Array, ""]:
            scores = jax.vmap(eqx.combine(params, self._static))(images)
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        updates, optimizer = self._optimizer.update(
            jax.grad(loss)(state["params"]), state["optimizer"], state["params"]
        )
        return {"params": optax.apply_updates(state["params"], updates), "optimizer": optimizer}


@eqx.filter_jit
def class_probabilities(
    network: Any, images: Float[Array, "b h w c"]
) -> Float32[Array, "b classes"]:
    """Compiled once for all networks of one structure and each size of batch."""
    return jax.nn.softmax(jax.vmap(network)(images))


def predictor(
    network: Prepared,
) -> Callable[[Float32[np.ndarray, "b h w c"]], Float32[np.ndarray, "b classes"]]:
    """Images -> class probabilities."""
    return lambda images: np.asarray(class_probabilities(network, jnp.asarray(images)))
