"""Gradient canaries: examples made so that their clipped gradient is known, in the trainer as it is
shipped.

Canary j has the loss C 1000 w_j for one parameter w_j of its own, so its gradient is clipped to C
e_j: as much as an example may contribute, and orthogonal to all other canaries (Nasr et al. 2023,
Sec. 5, "Dirac canaries"). Everything else is the trainer's own: sampler, feed, clipping engine,
noise, loop, ledger, optimizer. The attacker sees every release, knows the training images and (more
than is owed to it) which of *them* were sampled, so it subtracts their sum and is left with

    o_t = [canary j took part in step t] + N(0, sigma^2)        in units of the sensitivity.

Whether j is in the data set was a fair coin. If it is, it takes part with probability q; in a
cycle, when its group's turn comes. The attacker's score is the log likelihood ratio of all steps,
sum_t log(1 - q + q exp((o_t - 1/2) / sigma^2)): the best there is (Neyman & Pearson 1933). One run
asks about as many canaries as there are parameters, at the price of one run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from sfumato.audit.alone import run_alone
from sfumato.audit.result import AuditResult, Claim
from sfumato.audit.verdicts import by_clopper_pearson, by_family, by_one_run
from sfumato.clip import BoundedSum, ClippedGrad
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.core.trees import flat
from sfumato.noise import Mechanism
from sfumato.privacy.events import Event
from sfumato.train.dpsgd import DPSGD
from sfumato.train.loop import State

ATTACK = "whitebox"
IMAGE, ABSENT = -1, -2
"""Slots of what is no canary: a training image; a canary whose coin left it out of the data set."""
_STEEP = 1e3
_MOST_FLOATS = 2**26
"""Canaries' gradients are held one by one while they are clipped; so many numbers at once."""


@dataclass
class Canaries:
    """A DP-SGD procedure with canaries in its data set; it behaves as that procedure does, and
    keeps the attacker's scores.

    images: of the procedure's data set, the first so many train along. `toss` before every run.
    """

    trainer: DPSGD
    canaries: int
    images: int = 0

    def __post_init__(self) -> None:
        self._size = sum(np.size(leaf) for leaf in jax.tree.leaves(self.trainer.params))
        if self.canaries > self._size:
            raise ArgumentError(
                "canaries",
                self.canaries,
                f"there are {self._size} parameters; take at most that many",
            )
        self.name, self._slots = self.trainer.name, np.full(self.canaries, ABSENT, np.int32)
        self._inner = with_canaries(self.trainer, self._slots, self.images)
        self._known = None if self.images == 0 else _images_alone(self._inner)
        self._known_sum: Any = None

    def toss(self, stream: np.random.Generator) -> None:
        """Decide by fair coins which canaries are in the data set, and give each a parameter of its
        own."""
        self.included = stream.random(self.canaries) < 0.5
        self.places = stream.choice(self._size, self.canaries, replace=False)
        self._seen: list[Float[np.ndarray, " m"]] = []
        self._slots[:] = np.where(self.included, self.places, ABSENT)

    @property
    def steps(self) -> int:
        return self._inner.steps

    def start(self) -> State:
        return self._inner.start()

    def event(self, step: int) -> Event:
        return self._inner.event(step)

    def mechanism(self, step: int) -> Mechanism:
        return self._inner.mechanism(step)

    def measure(self, state: State, step: int, key: SecretKey) -> BoundedSum:
        total = self._inner.measure(state, step, key)
        self._known_sum = (
            None if self._known is None else self._known.measure(state, step, key).value
        )
        self._scale = total.sensitivity.add_or_remove
        return total

    def absorb(self, state: State, step: int, released: PyTree) -> State:
        value, _ = self._noise.told(released, state, np.int32(step))
        seen = flat(value)[self.places]
        if self._known_sum is not None:
            seen = seen - flat(self._known_sum)[self.places]
        self._seen.append(seen / self._scale)
        if step == self.steps - 1:
            self.scores = self._score(np.stack(self._seen))
        return self._inner.absorb(state, step, released)

    def _score(self, seen: Float[np.ndarray, "t m"]) -> Float[np.ndarray, " m"]:
        """Log likelihood ratios, summed over the steps; seen: each canary's own number in every
        release."""
        seen, lengths = matched(seen, self._noise.correlation())
        told = [
            np.where(
                self._may_take_part(step), log_likelihood_ratio(row, self.event(step), length), 0.0
            )
            for step, (row, length) in enumerate(zip(seen, lengths, strict=True))
        ]
        return np.sum(told, axis=0)

    @property
    def _noise(self) -> Mechanism:
        assert self._inner.noise is not None
        return self._inner.noise

    def _may_take_part(self, step: int) -> Bool[np.ndarray, " m"] | bool:
        """Which canaries have their turn."""
        return self.event(step).concerns(self.images + np.arange(self.canaries))


def matched(
    seen: Float[np.ndarray, "t m"], coefficients: Float[np.ndarray, " b"]
) -> tuple[Float[np.ndarray, "t m"], Float[np.ndarray, " t"]]:
    """What correlated noise leaves of each step: C times the releases has white noise, and an
    example of step t adds column t of C to it, which is what is looked for. Of column t's squared
    length l (1, but for the last steps) the result has mean l if the example is there, else 0, and
    the variance l sigma^2.
    """
    steps = len(seen)
    if len(coefficients) == 1:
        return seen, np.ones(steps)
    matrix = sum(c * np.eye(steps, k=-j) for j, c in enumerate(coefficients))
    return matrix.T @ (matrix @ seen), (matrix**2).sum(0)


def with_canaries(trainer: DPSGD, slots: Int[np.ndarray, " m"], images: int) -> DPSGD:
    """The trainer on its first `images` examples and then the canaries.

    slots: the parameter of each canary, or ABSENT. It is read whenever a batch is, so new slots
    need no new compilation.
    """
    clipped = trainer.clipped
    if not isinstance(clipped, ClippedGrad):
        raise ArgumentError(
            "clipped",
            type(clipped).__name__,
            "gradient canaries need the clipping engine; use a replay",
        )
    loss, steep = clipped.loss, _STEEP * float(np.max(np.asarray(_norms(clipped))))

    def canary_loss(
        params: PyTree, example: tuple[PyTree, Array], *frozen: PyTree
    ) -> Float[Array, ""]:
        own, slot = example
        numbers = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        canary = jnp.where(slot >= 0, steep * numbers[jnp.maximum(slot, 0)], 0.0)
        return (
            canary + jnp.where(slot == IMAGE, loss(params, own, *frozen), 0.0) if images else canary
        )

    def fetch(indices: np.ndarray, step: int) -> PyTree:
        slot = np.where(indices < images, IMAGE, slots[np.maximum(indices - images, 0)]).astype(
            np.int32
        )
        return (trainer.fetch(np.minimum(indices, images - 1), step) if images else (), slot)

    size = sum(np.size(leaf) for leaf in jax.tree.leaves(trainer.params))
    physical = max(
        1, min(trainer.at_once if images else 4096, _MOST_FLOATS // size, images + len(slots))
    )
    sampler = trainer.sampler.moved(images + len(slots))
    return replace(
        trainer,
        clipped=replace(clipped, loss=canary_loss),
        fetch=fetch,
        sampler=sampler,
        physical_batch_size=physical,
    )


def _norms(clipped: ClippedGrad) -> list[float]:
    return (
        [clipped.clip_norm]
        if isinstance(clipped.clip_norm, int | float)
        else list(clipped.clip_norm.values())
    )


def _images_alone(trainer: DPSGD) -> DPSGD:
    """The same steps, the canaries masked out."""
    clipped = trainer.clipped

    def without(params: PyTree, batch: PyTree, mask: Array, *frozen: PyTree) -> BoundedSum:
        return clipped(params, batch, mask & (batch[1] == IMAGE), *frozen)

    return replace(trainer, clipped=without)


def log_likelihood_ratio(
    seen: Float[np.ndarray, " m"], event: Event, length: float = 1.0
) -> Float[np.ndarray, " m"]:
    """Of a release with the canary against one without; seen: its own number in units of the
    sensitivity, of mean `length` if the canary is there, and of variance length sigma^2.
    """
    rate, ratio = event.rate, (seen - length / 2) / event.noise_multiplier**2
    return (
        ratio if rate is None or rate == 1 else np.logaddexp(np.log1p(-rate), np.log(rate) + ratio)
    )


def whitebox(
    trainer: DPSGD,
    claim: Claim,
    stream: np.random.Generator,
    *,
    canaries: int = 2000,
    runs: int = 1,
    images: int = 0,
    advance: Callable[[int], None] = lambda done: None,
) -> list[AuditResult]:
    """Train `runs` times with `canaries` gradient canaries, half of them included by coins, and
    bound epsilon in three ways.

    claim: what the trainer says it spends. stream: for coins and places; noise and sampling have
    fresh keys drawn from it. Raises ArgumentError for trainers that do not use the clipping engine,
    or more canaries than parameters.
    """
    began = time.monotonic()
    scores, coins = [], []
    audited = Canaries(trainer, canaries, images)
    for done in range(runs):
        audited.toss(stream)
        run_alone(audited, claim, SecretKey(stream.bytes(32)))
        scores.append(audited.scores)
        coins.append(audited.included)
        advance(done + 1)
    seconds = time.monotonic() - began
    every, included = np.concatenate(scores), np.concatenate(coins)
    return [
        by_family(ATTACK, every, included, claim, seconds, threshold=0.0),
        by_clopper_pearson(ATTACK, every, included, claim, seconds),
        by_one_run(ATTACK, scores[0], coins[0], claim, seconds),
    ]
