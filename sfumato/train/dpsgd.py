"""DP-SGD as a procedure. Abadi et al. 2016, Alg. 1, with De et al. 2022: normalized clipping,
views, parameter averaging.

    release_t = sum over the sampled examples of clip(g_i) + N(0, (sigma * S)^2)
    params   <- optimizer(params, release_t / B)          B = expected batch size, a public constant
    ema      <- mu_t ema + (1 - mu_t) params              mu_t = min(mu, (1 + t) / (10 + t))

A batch is processed in physical batches of one fixed shape, the last one padded and masked, so XLA
compiles the gradient once per run whatever sizes the sampler draws; a batch of nobody is a legal
step that releases noise alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from sfumato.clip import BoundedSum, ClippedGrad, Sensitivity
from sfumato.clip.microbatch import free_memory
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise import BandedGaussian, Gaussian, Mechanism
from sfumato.noise.banded import Following, Sealed, value_of
from sfumato.privacy.events import Event
from sfumato.sampling import Sampler
from sfumato.train.feed import Fetch, physical_batches
from sfumato.train.loop import release_name

Sum = Callable[..., BoundedSum]
"""(params, examples, mask) -> the clipped sum, and a fourth argument if there are frozen arrays."""


@dataclass
class DPSGD:
    """params: the trained tree at step 0. clipped: (params, examples, mask) -> BoundedSum, such as
    `clipped_grad(...)`.

    fetch: (indices, step) -> the tree of examples, a function of its arguments only. physical:
    examples on the device at once. ema_decay: mu above; 0 turns averaging off. The state is a dict
    of params, ema, optimizer state and, for correlated noise, the seals of the sums so far. frozen:
    arrays that `clipped` takes as a fourth argument and the loss as a third (see `ClippedGrad`).
    """

    params: PyTree
    clipped: ClippedGrad | Sum
    sampler: Sampler
    noise: Gaussian | BandedGaussian
    optimizer: optax.GradientTransformation
    fetch: Fetch
    physical: int = 256
    ema_decay: float = 0.0
    name: str = "dp-sgd"
    frozen: PyTree = None

    def __post_init__(self) -> None:
        clipped = self.clipped

        def add(
            total: PyTree, params: PyTree, examples: PyTree, mask: jax.Array, *frozen: PyTree
        ) -> BoundedSum:
            part = clipped(params, examples, mask, *frozen)
            return BoundedSum(jax.tree.map(jnp.add, total, part.value), part.sensitivity)

        self._add = jax.jit(add, donate_argnums=0)
        self._update = jax.jit(self._absorb)
        self._sensitivity: Sensitivity | None = None

    @property
    def steps(self) -> int:
        return self.sampler.steps

    @property
    def constants(self) -> tuple[PyTree, ...]:
        """What `clipped` takes after the mask."""
        return () if self.frozen is None else (self.frozen,)

    def start(self) -> dict[str, Any]:
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), self.params)
        state = {"params": params, "ema": params, "optimizer": self.optimizer.init(params)}
        return state | jax.tree.map(jnp.asarray, self.noise.memory(self.steps))

    def rehearse(self, state: dict[str, Any]) -> None:
        """Raise ArgumentError for an optimizer that cannot work with released gradients alone, and
        for a physical batch whose program does not fit into the memory. Nothing is computed; the
        program is compiled, as it would be in the first step.
        """
        params = state["params"]
        try:
            after = jax.eval_shape(self._absorb, state, np.float32(0), params)["params"]
            shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, after)]
        except Exception as error:  # each optimizer has its own
            said = " ".join(str(error).split())[:200]
            raise ArgumentError(
                "optimizer",
                type(self.optimizer).__name__,
                f"cannot be run on released gradients ({said}); "
                "take one that needs nothing else, such as optax.sgd or optax.adam",
            ) from None
        if shapes[0] != shapes[1]:
            raise ArgumentError(
                "optimizer",
                type(self.optimizer).__name__,
                "changes the shapes of parameters; take another",
            )
        examples, mask = next(physical_batches(self.fetch, np.zeros(1, np.int64), 0, self.physical))
        found: Any = (
            self._add.lower(params, params, examples, mask, *self.constants)
            .compile()
            .memory_analysis()
        )
        if found is None:  # not every device tells
            return
        needed = (
            found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
        )
        free = free_memory()
        if needed > free:
            raise ArgumentError(
                "physical",
                self.physical,
                f"a batch of this size needs {needed / 1e9:.1f} GB of the "
                f"{free / 1e9:.1f} GB that are free; take fewer at once",
            )

    def event(self, step: int) -> Event:
        return self.sampler.event(self.noise.event, step)

    def mechanism(self, step: int) -> Mechanism:
        return self.noise.at(step, lambda each: release_name(self, each))

    def measure(self, state: dict[str, Any], step: int, key: SecretKey) -> BoundedSum:
        indices = self.sampler.indices(key, step)
        value = jax.tree.map(jnp.zeros_like, state["params"])
        sensitivity = None
        for examples, mask in physical_batches(self.fetch, indices, step, self.physical):
            part = self._add(value, state["params"], examples, mask, *self.constants)
            value, sensitivity = part.value, part.sensitivity
        return self.summed(state, value, sensitivity or self._claimed(state["params"]))

    def summed(self, state: dict[str, Any], value: PyTree, sensitivity: Sensitivity) -> BoundedSum:
        """A step's sum as its noise wants it."""
        if "seals" in state:
            return Following(value, sensitivity, state["seals"])
        return BoundedSum(value, sensitivity)

    def absorb(self, state: dict[str, Any], step: int, released: PyTree) -> dict[str, Any]:
        return self._update(state, np.float32(step), released)

    def _absorb(self, state: dict[str, Any], step: jax.Array, released: PyTree) -> dict[str, Any]:
        gradient = jax.tree.map(
            lambda leaf: leaf / self.sampler.expected_batch_size, value_of(released)
        )
        updates, optimizer = self.optimizer.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        decay = jnp.minimum(self.ema_decay, (1 + step) / (10 + step))
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state["ema"], params)
        following = {"params": params, "ema": ema, "optimizer": optimizer}
        if isinstance(released, Sealed):
            following["seals"] = state["seals"].at[step.astype(jnp.int32)].set(released.seal)
        return following

    def _claimed(self, params: PyTree) -> Sensitivity:
        """The sensitivity of a sum over nobody: found from the shapes of one example, without
        computing anything."""
        if self._sensitivity is None:
            examples, mask = next(
                physical_batches(self.fetch, np.zeros(1, np.int64), 0, self.physical)
            )
            self._sensitivity = jax.eval_shape(
                self._add, params, params, examples, mask, *self.constants
            ).sensitivity
        return self._sensitivity
