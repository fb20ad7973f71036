"""DP-SGD as a procedure. Abadi et al. 2016, Alg. 1, with De et al. 2022: normalized clipping,
views, parameter averaging.

    release_t = sum over the sampled examples of clip(g_i) + N(0, (sigma * S)^2)
    params   <- optimizer(params, release_t / B)          B = expected batch size, a public constant
    ema      <- mu_t ema + (1 - mu_t) params              mu_t = min(mu, (1 + t) / (10 + t))

A batch is processed in physical batches of one fixed shape, the last one padded and masked, so XLA
compiles the gradient once per run whatever sizes the sampler draws; a batch of nobody is a legal
step that releases noise alone. Physical batches are dealt to the devices of a layout, which changes
no bit of the sum (`train/spread.py`).
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from sfumato.clip import BoundedSum, ClippedGrad, Sensitivity, clipped_grad
from sfumato.clip.arithmetic import platform
from sfumato.clip.microbatch import SHARE, free_memory
from sfumato.clip.trace import check_params
from sfumato.core.checks import AUTO, fraction, whole, whole_or_auto
from sfumato.core.devices import ALONE, BATCH, Layout
from sfumato.core.errors import ArgumentError, said
from sfumato.core.keys import SecretKey
from sfumato.data import Data
from sfumato.noise import Gaussian, Mechanism
from sfumato.noise.unprotected import Unprotected
from sfumato.privacy.events import Event
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.releases import Release
from sfumato.sampling import Sampler
from sfumato.train import described, physical
from sfumato.train.feed import Feed, Fetch, Indexed
from sfumato.train.loop import release_name
from sfumato.train.physical import Asked
from sfumato.train.spread import SpreadSum

Loss = Callable[..., Float[Array, ""]]
Sum = Callable[..., BoundedSum]
"""(params, examples, mask) -> the clipped sum, and a fourth argument if there are frozen arrays."""
ANEW = "write DPSGD(loss, params, data, ...)"
OF_LOSS_OR_DATA = ("loss", "clip_norm", "augment", "clipped", "augmented", "data", "fetch")
Augment = Callable[[PyTree, jax.Array], PyTree]
"""(ONE example, key of jax.random) -> the example as the loss sees it; its keys are secret."""


@dataclass
class DPSGD:
    """DP-SGD for any JAX loss: `DPSGD(loss, params, data, optimizer=..., sampler=...)`.

    loss: loss(params, example) -> scalar, of ONE example, a tree of arrays; or `clipped_grad(loss,
    ...)` where its options matter. params: the trained tree at step 0, any tree of arrays. data:
    has a length and is indexed by an int64 vector (`sf.data.Arrays`, a `Source`). optimizer: of
    optax. sampler: learns n from the data. clip_norm: C, or one for each group; what an example may
    add to the sum. noise: any `Mechanism`; `sf.calibrate` sets its multiplier (None: `sf.Gaussian`). physical_batch_size: examples on the device at
    once, or "auto" for as many as fit and a batch needs (`train/physical.py`), on a CPU `most_at_once` of them; does not
    change the result beyond rounding. ema_decay: mu above; 0 turns averaging off.
    augment: (example, key) -> example, before the loss, drawn anew in every step. frozen: arrays
    that the loss takes as a third argument, the same for all examples (see `ClippedGrad`).
    guarantee: what `sf.calibrate` was asked for. layout: devices that share the work (None: one).

    In place of loss: clipped, (params, examples, mask) -> BoundedSum; in place of data: fetch,
    (indices, step) -> the tree of examples, a function of its arguments only, with a sampler that
    knows n. The state is a dict of params, ema, optimizer state and, for correlated noise, the seals
    of the sums so far. Raises ArgumentError.
    """

    loss: InitVar[Loss | ClippedGrad | None] = None
    params: PyTree = None
    data: InitVar[Data | None] = None
    _: KW_ONLY
    optimizer: optax.GradientTransformation
    sampler: Sampler
    clip_norm: InitVar[float | Mapping[str, float] | None] = None
    noise: Mechanism | None = None
    physical_batch_size: Asked = AUTO
    ema_decay: float = 0.0
    augment: InitVar[Augment | None] = None
    frozen: PyTree = None
    name: str = "dp-sgd"
    guarantee: Guarantee | None = None
    clipped: ClippedGrad | Sum = None  # type: ignore[assignment]
    fetch: Fetch = None  # type: ignore[assignment]
    augmented: bool = False
    most_at_once: int = 256
    layout: Layout | None = None

    def __post_init__(
        self,
        loss: Loss | ClippedGrad | None,
        data: Data | None,
        clip_norm: float | Mapping[str, float] | None,
        augment: Augment | None,
    ) -> None:
        asked = whole_or_auto("physical_batch_size", self.physical_batch_size)
        if not all(callable(getattr(self.optimizer, name, None)) for name in ("init", "update")):
            raise ArgumentError(
                "optimizer",
                type(self.optimizer).__name__,
                "give what has `init` and `update`, such as optax.adam(1e-3)",
            )
        whole("most_at_once", self.most_at_once)
        fraction("ema_decay", self.ema_decay)
        if loss is None:
            for name, value in (("clip_norm", clip_norm), ("augment", augment)):
                if value is not None:
                    raise ArgumentError(name, value, f"belongs to a loss; {ANEW}")
        for name, new, old in (("loss", loss, self.clipped), ("data", data, self.fetch)):
            if new is not None and old is not None:
                raise ArgumentError(name, type(new).__name__, f"this method has its own; {ANEW}")
        if loss is not None:
            self.clipped = _clipped(loss, clip_norm, augment)
            self.augmented = augment is not None
        if data is not None:
            self.fetch = Indexed(data, self.augmented)
        if isinstance(self.fetch, Indexed):
            self.sampler = self.sampler.on(len(self.fetch.data))
        for name, found in (("loss", self.clipped), ("data", self.fetch)):
            if found is None:
                raise ArgumentError(name, None, ANEW)
        if self.contribution == math.inf and self.noise is not None and self.noise.event.private:
            raise ArgumentError(
                "clip_norm",
                math.inf,
                "no noise hides what is not clipped; give a clip norm, or sf.calibrate(method, math.inf)",
            )
        if loss is not None:
            _check_start(self.params)
        layout, sampler = self.layout or ALONE, self.sampler
        self._layout = layout
        self._sum = SpreadSum(
            self.clipped, layout, self.params, self.constants, lambda: sampler.examples
        )
        if self.frozen is not None:
            self.frozen = layout.put(self.frozen, self._sum.constant_specs[0])
        self._add = self._sum.add
        self._absorb = self._absorbing()
        self._update = jax.jit(self._absorb)
        self._sizes = physical.PhysicalSizes(None if isinstance(asked, str) else asked)
        self._rehearsed: int | None = None
        self._feed = Feed(self.fetch, self.sampler, 1, layout)

    def __setattr__(self, name: str, value: Any) -> None:
        """The feed draws by the sampler, and the sum clips by the norm, that were given: events of others
        that came later would be the price of something else."""
        if name in self.__dataclass_fields__ and "_feed" in vars(self):
            another = f"dataclasses.replace(method, {name}=...) makes another"
            raise ArgumentError(
                name,
                type(value).__name__,
                f"a method stays as it was made; {ANEW if name in OF_LOSS_OR_DATA else another}",
            )
        object.__setattr__(self, name, value)

    @property
    def steps(self) -> int:
        return self.sampler.steps

    @property
    def n(self) -> int:
        """The number of private examples."""
        return self.sampler.examples

    @property
    def contribution(self) -> float | None:
        """What one example may add to a step's sum, in norm, before it is normalized; None of a sum
        that does not tell."""
        if not isinstance(self.clipped, ClippedGrad):
            return None
        return replace(self.clipped, normalized=False).sensitivity.add_or_remove

    @property
    def releases(self) -> tuple[Release, ...]:
        how = "" if self.contribution == math.inf else "clipped "
        what = f"the sum of the {how}gradients of the examples that take part in a step"
        return (Release("gradient", self.steps, self.event(0), what),)

    @property
    def constants(self) -> tuple[PyTree, ...]:
        """What `clipped` takes after the mask; for augmentation with a seed that nobody keeps
        secret."""
        return self._constants(np.zeros(2, np.uint32))

    def _constants(self, seed: np.ndarray) -> tuple[PyTree, ...]:
        own = () if self.frozen is None else (self.frozen,)
        return (*own, seed) if self.augmented else own

    def with_noise(self, noise_multiplier: float, guarantee: Guarantee | None = None) -> "DPSGD":
        """The same with noise of this many sensitivities. guarantee: for which it was chosen."""
        noise: Any = self.noise or Gaussian(1.0)
        noise = replace(noise, multiplier=noise_multiplier)
        return replace(self, noise=noise, guarantee=guarantee)

    def unprotected(self, guarantee: Guarantee | None = None) -> "DPSGD":
        """The same without noise and clip, for `sf.calibrate`. Raises ArgumentError for a sum of the user's
        own."""
        if not isinstance(self.clipped, ClippedGrad):
            raise ArgumentError(
                "clipped",
                "a sum of your own",
                "its clip cannot be taken away; give the loss instead",
            )
        noise = Unprotected(0.0, self.noise or Gaussian(1.0))
        return replace(self, clipped=self.clipped.unclipped(), noise=noise, guarantee=guarantee)

    def released(self, state: dict[str, Any]) -> PyTree:
        """The parameters to publish: averaged, if they are."""
        return state["ema" if self.ema_decay else "params"]

    def fingerprint(self, mac: Callable[[bytes], str]) -> str | None:
        return self.fetch.fingerprint(mac) if isinstance(self.fetch, Indexed) else None

    def stamp(self, mac: Callable[[bytes], str]) -> str | None:
        return self.fetch.stamp(mac) if isinstance(self.fetch, Indexed) else None

    @property
    def decoder(self) -> str | None:
        return self.fetch.decoder if isinstance(self.fetch, Indexed) else None

    @property
    def example(self) -> PyTree:
        """Shapes and types of ONE example."""
        return self._feed.example()

    @property
    def at_once(self) -> int:
        """Examples on a device at once in the first step, as far as is known: memory is looked at by
        `rehearse`."""
        if self._sizes.known:
            return self._sizes.at(0)
        return physical.evenly(self._shares, self.most_at_once)

    @property
    def _shares(self) -> list[int]:
        """What a device has of a batch, of a few batches."""
        return physical.batches(self.sampler, self._layout.count)

    def _physical(self, size: int) -> tuple[PyTree, jax.ShapeDtypeStruct]:
        """Shapes and types of a physical batch of each device, side by side, and of their mask."""
        size = size * self._layout.local
        examples = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), self.example
        )
        batch = examples, jax.ShapeDtypeStruct((size,), bool)
        return self._layout.shaped(batch, jax.tree.map(lambda leaf: BATCH, batch))

    def describe(self) -> dict[str, Any]:
        """Public facts that must be the same when a run goes on. It cannot see numbers in arrays
        that loss or optimizer close over, nor those of `params` and `frozen`."""
        state, example = jax.eval_shape(self.start), self.example
        if isinstance(self.clipped, ClippedGrad):
            own = self.clipped
            loss = described.program(own.loss, state["params"], example, *self.constants)
            clipping = {**described.facts(own), "loss": loss}
        else:
            batch = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), example
            )
            mask = jax.ShapeDtypeStruct((1,), bool)
            loss = described.program(
                lambda *args: self.clipped(*args).value,
                state["params"],
                batch,
                mask,
                *self.constants,
            )
            clipping = {"kind": "own", "loss": loss}
        step = jax.ShapeDtypeStruct((), np.float32)
        return {
            "example": described.shapes(example),
            "frozen": described.shapes(self.frozen),
            "update": described.program(self._absorb, state, step, state["params"]),
            "clipping": clipping,
            "sampler": described.facts(self.sampler),
            "noise": described.facts(self.noise),
            **(
                {}
                if self.physical_batch_size == AUTO
                else {"physical_batch_size": self.physical_batch_size}
            ),
            "ema_decay": self.ema_decay,
        }

    def start(self) -> dict[str, Any]:
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), self.params)
        state = {"params": params, "ema": params, "optimizer": self.optimizer.init(params)}
        memory = {} if self.noise is None else self.noise.memory(self.steps)
        return self._placed(state | jax.tree.map(jnp.asarray, memory))

    def _placed(self, state: dict[str, Any]) -> dict[str, Any]:
        """On the devices of the layout."""
        return self._layout.put(state, self._layout.specs(state, self.params))

    def rehearse(self, state: dict[str, Any]) -> None:
        """Raise ArgumentError for an optimizer that cannot work with released gradients alone, and
        where not even the program for the physical batch, or under "auto" for one example, fits into the
        memory. Nothing is computed; the program is compiled, as it would be in the first step.
        """
        params = state["params"]
        # Physical batches are dealt by their size: of two sizes an example would be summed twice.
        self._layout.agree("put examples together in other physical batches", self._sizes.entries)
        try:
            after = jax.eval_shape(self._absorb, state, np.float32(0), params)["params"]
            shapes = [jax.tree.map(jnp.shape, tree) for tree in (params, after)]
        except Exception as error:  # each optimizer has its own
            raise ArgumentError(
                "optimizer",
                type(self.optimizer).__name__,
                f"cannot be run on released gradients ({said(error)}); "
                "take one that needs nothing else, such as optax.sgd or optax.adam",
            ) from None
        if shapes[0] != shapes[1]:
            raise ArgumentError(
                "optimizer",
                type(self.optimizer).__name__,
                "changes the shapes of parameters; take another",
            )
        if any(jnp.issubdtype(leaf.dtype, jax.dtypes.extended) for leaf in jax.tree.leaves(state)):
            raise ArgumentError(
                "optimizer",
                type(self.optimizer).__name__,
                "keeps a key of jax.random in its state, which no checkpoint holds; take one without randomness",
            )
        free = free_memory()
        if not self._sizes.known:
            most = self.most_at_once if platform() == "cpu" else None
            size = physical.fitting(
                lambda each: self.needs(params, each), SHARE * free, self._shares, most
            )
            self._sizes.take(self._layout.least(size))
        elif (
            self._rehearsed != self.at_once and (needed := self.needs(params, self.at_once)) > free
        ):
            raise ArgumentError(
                "physical_batch_size",
                self.at_once,
                f"a batch of this size needs {needed / 1e9:.1f} GB of the "
                f"{free / 1e9:.1f} GB that are free; take fewer at once, or auto",
            )
        self._rehearsed = self.at_once

    def needs(self, params: PyTree, size: int) -> float:
        """Bytes of the program for `size` examples, its arguments included, by XLA's own analysis;
        infinity where compiling alone takes more than there is, 0 where the device does not tell."""
        try:
            found: Any = self._add.lower(*self._shapes(params, size)).compile().memory_analysis()
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if not physical.exhausted(error):
                raise
            return math.inf
        if found is None:
            return 0.0
        return float(
            found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
        )

    def remember(self, file: Path) -> None:
        self._sizes.remember(file, self._layout.first)

    def event(self, step: int) -> Event:
        return self._noise.claim(self.sampler, step)

    def mechanism(self, step: int) -> Mechanism:
        return self._noise.at(step, lambda each: release_name(self, each))

    @property
    def _noise(self) -> Mechanism:
        if self.noise is None:
            raise ArgumentError(
                "noise",
                None,
                "calibrate the method (sf.calibrate), or give it, as sf.Gaussian(2.0)",
            )
        return self.noise

    def measure(self, state: dict[str, Any], step: int, key: SecretKey) -> BoundedSum:
        """The sum, whatever it takes: where the memory is exhausted after all, the physical batch is
        halved and the same release is measured again. Nothing has left the device by then. (Several
        processes would have to agree on that; they end, and are resumed with a smaller batch.)"""
        if not self._sizes.known:
            self._sizes.take(self.at_once)
        while True:
            size = self._sizes.at(step)
            self._feed.resize(size)
            try:
                return self._measured(state, step, key)
            except (jax.errors.JaxRuntimeError, ValueError) as error:
                alone = self._layout.processes == 1
                if not physical.exhausted(error) or size == 1 or not alone:
                    raise
            self._sizes.take(max(1, size // 2), step)
            warnings.warn(
                f"step {step + 1}: out of memory with {size} examples at once; going on with {self._sizes.at(step)}",
                stacklevel=2,
            )

    def _measured(self, state: dict[str, Any], step: int, key: SecretKey) -> BoundedSum:
        params, total = self._layout.put(state["params"], self._sum.specs), self._sum.start()
        seed = key.stream("augment", step).integers(2**32, size=2, dtype=np.uint32)
        constants = self._constants(seed)
        for examples, mask in self._feed.step(key, step):
            total = self._add(total, params, examples, mask, *constants)
        found = self._sum.value(total, lambda: self._shapes(params, self._sizes.at(step)))
        jax.block_until_ready(found.value)  # what fails on the device fails here
        return self.summed(state, found.value, found.sensitivity)

    def stop(self) -> None:
        """Read nothing more ahead of the steps."""
        self._feed.stop()

    def summed(self, state: dict[str, Any], value: PyTree, sensitivity: Sensitivity) -> BoundedSum:
        """A step's sum as its noise wants it."""
        return (self.noise or Gaussian(1.0)).summed(value, sensitivity, state)

    def absorb(self, state: dict[str, Any], step: int, released: PyTree) -> dict[str, Any]:
        return self._update(self._placed(state), np.float32(step), released)

    def _absorbing(self) -> Callable[[dict[str, Any], jax.Array, PyTree], dict[str, Any]]:
        """The step from a release to the next state, which does not hold the data."""
        noise, divisor = self.noise or Gaussian(1.0), self.sampler.expected_batch_size
        optimizer, most, layout, shapes = self.optimizer, self.ema_decay, self._layout, self.params

        def absorbed(state: dict[str, Any], step: jax.Array, released: PyTree) -> dict[str, Any]:
            value, memory = noise.told(released, state, step)
            gradient = jax.tree.map(lambda leaf: leaf / divisor, value)
            updates, moments = optimizer.update(gradient, state["optimizer"], state["params"])
            params = optax.apply_updates(state["params"], updates)
            decay = jnp.minimum(most, (1 + step) / (10 + step))
            ema = jax.tree.map(
                lambda old, new: decay * old + (1 - decay) * new, state["ema"], params
            )
            after = {"params": params, "ema": ema, "optimizer": moments} | memory
            return layout.kept(after, layout.specs(after, shapes))

        return absorbed

    def _shapes(self, params: PyTree, size: int) -> tuple[PyTree, ...]:
        """What the sum of physical batches is told."""
        return self._sum.total(), params, *self._physical(size), *self.constants


def _check_start(params: PyTree) -> None:
    """Raises ArgumentError for parameters that cannot be trained. Where one is NaN or infinite, so are
    the gradients of all examples, and the budget would buy noise alone."""
    for name, leaf in zip(check_params(params), jax.tree.leaves(params), strict=True):
        if not isinstance(leaf, jax.ShapeDtypeStruct) and not np.all(np.isfinite(leaf)):
            raise ArgumentError("params", f"{name}: NaN or infinity", "begin with finite numbers")


def _clipped(
    loss: Loss | ClippedGrad, clip_norm: float | Mapping[str, float] | None, augment: Augment | None
) -> ClippedGrad:
    norm = 1.0 if clip_norm is None else clip_norm
    own = loss if isinstance(loss, ClippedGrad) else clipped_grad(loss, norm)
    if own is loss and clip_norm is not None:
        raise ArgumentError("clip_norm", clip_norm, "clipped_grad(...) has its own; leave it out")
    return own if augment is None else replace(own, loss=_after(augment, own.loss))


def _after(augment: Augment, loss: Loss) -> Loss:
    """The loss of an augmented example. Which draws an example has is a function of the step's
    secret seed and its own index, never of the others in its batch."""

    def augmented(params: PyTree, example: tuple[PyTree, Array], *rest: PyTree) -> Float[Array, ""]:
        (own, index), (*frozen, seed) = example, rest
        key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), index)
        return loss(params, augment(own, key), *frozen)

    return augmented
