"""Many models at once: DP-SGD as `train/loop.py` runs it, each step for a whole stack of models
(`vmap` over models).

The models share the data set, but for the examples that each leaves out, and have keys of their
own. Gradients come from the clipping engine, batches from the sampler, noise from the mechanism on
the host, updates from the procedure: one model of the stack ends where `loop.run` with its key
would end, up to the rounding of a stacked product. Nothing is released, so there is no ledger.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PyTree

from sfumato.clip import ClippedGrad
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.train.dpsgd import DPSGD
from sfumato.train.feed import physical_batches
from sfumato.train.loop import State, release_name


def train_many(
    trainer: DPSGD,
    present: Bool[np.ndarray, "m n"],
    keys: Sequence[SecretKey],
    together: int = 8,
    advance: Callable[[int], None] = lambda done: None,
) -> State:
    """The final states of m models, stacked. present: which of the trainer's n examples are in the
    data set of each.

    together: models on the device at once. Raises ArgumentError for a trainer without the clipping
    engine.
    """
    clipped = trainer.clipped
    if not isinstance(clipped, ClippedGrad):
        raise ArgumentError(
            "clipped", type(clipped).__name__, "many models at once need the clipping engine"
        )

    @jax.jit
    def add(total: PyTree, frozen: tuple[PyTree, ...], *step: PyTree) -> PyTree:
        return jax.tree.map(
            jnp.add, total, jax.vmap(lambda *own: clipped(*own, *frozen).value)(*step)
        )

    parts = []
    for first in range(0, len(keys), together):
        chosen = [
            min(first + k, len(keys) - 1) for k in range(together)
        ]  # a short last part repeats its last model
        state = _stack([trainer.start()] * together)
        for step in range(trainer.steps):
            totals = jax.tree.map(np.zeros_like, state["params"])
            for batch, mask in _batches(trainer, [(keys[k], present[k]) for k in chosen], step):
                totals = add(totals, trainer.constants, state["params"], batch, mask)
            released = _released(
                trainer, state, jax.tree.map(np.asarray, totals), [keys[k] for k in chosen], step
            )
            state = jax.vmap(partial(trainer.absorb, step=step))(state, released=released)
        parts.append(jax.tree.map(np.asarray, state))
        advance(min(first + together, len(keys)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(keys)], *parts)


def _batches(
    trainer: DPSGD, models: Sequence[tuple[SecretKey, Bool[np.ndarray, " n"]]], step: int
) -> Iterator[tuple[PyTree, Bool[np.ndarray, "m b"]]]:
    """Physical batches of all models side by side; whoever has no more of them repeats another's,
    masked out."""
    sampled = [trainer.sampler.indices(key.at(trainer.name), step) for key, _ in models]
    own = [indices[present[indices]] for indices, (_, present) in zip(sampled, models, strict=True)]
    feeds = [
        physical_batches(trainer.fetch, indices, step, trainer.at_once)
        if len(indices)
        else iter(())
        for indices in own
    ]
    for side_by_side in zip_longest(*feeds):
        spare, mask = next(part for part in side_by_side if part is not None)
        filled = [(spare, np.zeros_like(mask)) if part is None else part for part in side_by_side]
        yield _stack([examples for examples, _ in filled]), np.stack([mask for _, mask in filled])


def _released(
    trainer: DPSGD, state: State, totals: PyTree, keys: Sequence[SecretKey], step: int
) -> PyTree:
    """Every model's sum with noise from its own key."""
    name, mechanism = release_name(trainer, step), trainer.mechanism(step)
    assert isinstance(trainer.clipped, ClippedGrad)
    sensitivity = trainer.clipped.sensitivity
    own = [jax.tree.map(lambda leaf, at=at: leaf[at], (state, totals)) for at in range(len(keys))]
    sums = [trainer.summed(before, value, sensitivity) for before, value in own]
    return _stack([mechanism(each, key.at(name)) for each, key in zip(sums, keys, strict=True)])


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
