"""Black-box audit with many small models: only the final model is seen. Annamalai & De Cristofaro
2024 (arXiv 2405.14106).

The attacker chooses what the definition lets it choose. The initial parameters are trained, without
privacy, on other images until they fit well, so that the records' gradients are small and do not
drown the target's. The target is a blank image with the label that this model finds least likely:
its gradient is long at every step, so it is clipped to C every time and always points the same way.
Each model is trained on the same records; a fair coin decides whether the target is among them. The
score is the target's loss under the final model.

If the training is nearly linear over the small distance that it covers, the loss sees the sum of
all steps along the target's gradient: as much as the releases themselves show, and the bound is
nearly tight.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, PyTree

from sfumato.audit.many import train_many
from sfumato.audit.result import AuditResult, Claim
from sfumato.audit.verdicts import by_clopper_pearson, by_family, most_accurate_threshold
from sfumato.clip import ClippedGrad
from sfumato.clip.trace import Loss
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import SINGLE, Task
from sfumato.train.dpsgd import DPSGD

ATTACK = "blackbox"


def with_target(trainer: DPSGD, target: PyTree) -> DPSGD:
    """The trainer on its data set and one example more, at the end. target: ONE example."""
    n = trainer.sampler.examples
    if not isinstance(trainer.clipped, ClippedGrad):
        raise ArgumentError("trainer", type(trainer.clipped).__name__, "needs the clipping engine")

    def fetch(indices: np.ndarray, step: int) -> PyTree:
        own = trainer.fetch(np.minimum(indices, n - 1), step)
        return jax.tree.map(
            lambda leaf, last: _put(np.asarray(leaf), indices == n, np.asarray(last)), own, target
        )

    return replace(trainer, fetch=fetch, sampler=trainer.sampler.moved(n + 1))


def _put(leaf: np.ndarray, at: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.where(at.reshape(-1, *[1] * (leaf.ndim - 1)), value.astype(leaf.dtype), leaf)


def pretrained(
    loss: Loss, params: PyTree, examples: PyTree, steps: int = 300, batch: int = 100
) -> PyTree:
    """Parameters that fit `examples`, by Adam without any privacy."""
    optimizer = optax.adam(2e-3)
    mean = jax.grad(lambda params, part: jnp.mean(jax.vmap(loss, (None, 0))(params, part)))

    @jax.jit
    def update(params: PyTree, state: PyTree, part: PyTree) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(mean(params, part), state)
        return optax.apply_updates(params, updates), state

    stream, state = np.random.default_rng(0), optimizer.init(params)
    size = len(jax.tree.leaves(examples)[0])
    for _ in range(steps):
        chosen = stream.choice(size, min(batch, size), replace=False)
        params, state = update(
            params, state, jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], examples)
        )
    return params


def blackbox(
    trainer: DPSGD,
    target: PyTree,
    claim: Claim,
    stream: np.random.Generator,
    *,
    models: int = 400,
    together: int = 8,
    advance: Callable[[int], None] = lambda done: None,
) -> list[AuditResult]:
    """Train `models` models, tell by the target's final loss which had it, and bound epsilon.

    trainer: with the parameters to start from. The threshold is chosen on one half of the models,
    judged on the other.
    """
    began = time.monotonic()
    audited = with_target(trainer, target)
    included = stream.random(models) < 0.5
    present = np.ones((models, audited.sampler.examples), bool)
    present[:, -1] = included
    keys = [SecretKey(stream.bytes(32)) for _ in range(models)]
    final = train_many(audited, present, keys, together, advance)
    scores = -_losses(trainer, final["ema"], target)
    seconds = time.monotonic() - began
    half = models // 2
    threshold = most_accurate_threshold(scores[:half], included[:half])
    return [
        by_family(ATTACK, scores[half:], included[half:], claim, seconds, threshold),
        by_clopper_pearson(ATTACK, scores, included, claim, seconds),
    ]


def _losses(trainer: DPSGD, params: PyTree, target: PyTree) -> Float[np.ndarray, " m"]:
    assert isinstance(trainer.clipped, ClippedGrad)
    loss = trainer.clipped.loss_with(*trainer.constants)
    return np.asarray(jax.jit(jax.vmap(loss, (0, None)))(params, target), np.float64)


def hardest_label(
    loss: Loss, params: PyTree, image: PyTree, classes: int, task: Task = SINGLE
) -> Int[np.ndarray, "..."]:
    """The label with the largest loss for this image."""
    image = jax.tree.map(jnp.asarray, image)
    return np.asarray(
        task.hardest(lambda label: float(loss(params, (image, jnp.asarray(label)))), classes)
    )
