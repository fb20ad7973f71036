"""Correlated Gaussian noise: each step cancels part of the noise that earlier steps added. For
DP-SGD.

What counts in a run of gradient steps is not the noise of one step but the noise of their sum. Let
z_0, z_1, ... be independent N(0, (sigma S)^2) and C a lower-triangular Toeplitz matrix with
coefficients c_0 .. c_{b-1} ("bands") and c_0^2 + ... + c_{b-1}^2 = 1. Step t releases

    x_t + y_t        x_t the clipped sum,   C y = z,   so   y_t = (z_t - c_1 y_{t-1} - ... - c_{b-1} y_{t-b+1}) / c_0

Privacy. All releases together are an invertible, causal linear map, C^-1, of C x + z: so they tell
as much as that. An example that takes part in step s moves C x by the column s of C times its
clipped gradient: by at most S in norm, in the rows s .. s+b-1 only. If its next turn is at least b
steps later (`CyclicPoisson` with at least b groups), the rows of its turns do not meet. Every turn
is then one Gaussian mechanism of sensitivity S and deviation sigma S, sampled with the probability
with which the example takes part, and its turns compose as those of DP-SGD do, however later
gradients depend on earlier releases. Choquette-Choo et al. 2023, "(Amplified) Banded Matrix
Factorization" (arXiv 2306.08153, Thm. 4 and Alg. 2). So the event is that of independent noise on
cyclic samples; with 1 band it is independent noise.

Coefficients. For prefix sums, the matrix A of ones, A = C^2 has c_k = binom(2 k, k) / 4^k, and C^-1
of it is near the best factor for the noise of every partial sum; cut to b bands and scaled it stays
so (Kalinin & Lampert 2024, "Banded Square Root Matrix Factorization", arXiv 2405.13763, Sec. 3,
momentum included). With momentum beta the sums of steps are A_beta = A (1 - beta L)^-1, L the shift
by one, and the root is the product of both roots: c_k = sum_i r_{k-i} r_i beta^i.

Noise is bound to what it hides (`binding.py`), and the release of step t hides earlier noise beside
its sum: two copies of a run that went apart in step s may well have the same sum in a later step t
(that of an empty batch), but with the same z_t the difference of their releases would tell that of
y_s, and this the sums of step s. So the seal of a step covers the seal of the step before it, and
thereby all the past. The past noise is drawn again from the key and the seals of its sums; those
travel with the state of the run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.checks import noisy, whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise.base import Mechanism
from sfumato.noise.binding import SEAL_BYTES, Bound, bind, under
from sfumato.noise.gaussian import Gaussian, add, unit_noise
from sfumato.noise.unprotected import Unprotected
from sfumato.privacy import calibration
from sfumato.privacy.events import BandedGaussianEvent, Event, GaussianEvent, Inner
from sfumato.privacy.neighbors import Relation
from sfumato.sampling import DEFAULT, SAMPLERS, Sampler


def square_root_bands(bands: int, momentum: float = 0.0) -> Float[np.ndarray, " bands"]:
    """c_0 .. c_{bands-1}, of norm 1. momentum: the optimizer's, from 0 to less than 1. Raises
    ArgumentError."""
    if not 0 <= momentum < 1:
        raise ArgumentError("momentum", momentum, "give a number from 0 to less than 1")
    k = np.arange(1, whole("bands", bands))
    root = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    product = np.convolve(root, root * momentum ** np.arange(bands))[:bands]
    return product / np.linalg.norm(product)


def error_of_sums(
    coefficients: Float[np.ndarray, " b"], steps: int, momentum: float = 0.0
) -> float:
    """How much of unit noise z is in the parameters: the deviation of A_beta C^-1 z per number,
    root mean square over steps.

    For `[1.0]`, independent noise without momentum, it is sqrt((steps + 1) / 2).
    """
    from scipy.signal import lfilter

    impulse = np.zeros(steps)
    impulse[0] = 1.0
    response = lfilter(
        [1.0], np.convolve(np.convolve(coefficients, [1.0, -1.0]), [1.0, -momentum]), impulse
    )
    return float(np.sqrt(np.mean(np.cumsum(response**2))))


class Following(BoundedSum):
    """A sum that follows others. seals: of the sums of all steps, a row each; those of the steps
    before this one are known."""

    seals: UInt8[Array | np.ndarray, "steps 16"]


class Sealed(eqx.Module):
    """A released value, and the seal of the sum that it came from, for `Following.seals`."""

    value: PyTree
    seal: UInt8[Array | np.ndarray, "16"]


@dataclass(eq=False)
class BandedGaussian(Mechanism):
    """The noise of a whole run, to be asked for step by step with `at`. Holds the last b - 1 steps'
    noise, which is as secret as the key: whoever knows y_t knows x_t. It is never written down;
    after a crash it is drawn again from the key and the seals.

    multiplier: sigma. Raises ArgumentError.
    """

    multiplier: float
    coefficients: Float[np.ndarray, " b"]
    _past: list[list[np.ndarray]] = field(default_factory=list, init=False, repr=False)
    """Noise of the steps before `_next`, the latest first; one array per leaf."""
    _next: int = field(default=0, init=False, repr=False)
    _owner: Any = field(default=None, init=False, repr=False)
    """Whose past that is: the key and the last seal, which covers those before it."""

    def __post_init__(self) -> None:
        noisy("multiplier", self.multiplier)
        norm = float(np.linalg.norm(self.coefficients))
        if not (abs(norm - 1) < 1e-9 and self.coefficients[0] > 0):
            raise ArgumentError(
                "coefficients",
                self.coefficients,
                "give coefficients of norm 1, the first of them positive",
            )

    @property
    def event(self) -> BandedGaussianEvent:
        return BandedGaussianEvent(self.multiplier, len(self.coefficients))

    @property
    def drawn_as(self) -> type[Mechanism]:
        return Gaussian

    def memory(self, steps: int) -> dict[str, UInt8[np.ndarray, "steps 16"]]:
        """For the state of a run at its beginning: no seals yet."""
        return {"seals": np.zeros((steps, SEAL_BYTES), np.uint8)}

    def summed(self, value: PyTree, sensitivity: Sensitivity, state: dict[str, Any]) -> BoundedSum:
        return Following(value, sensitivity, state["seals"])

    def told(
        self, released: PyTree, state: dict[str, Any], step: Any
    ) -> tuple[PyTree, dict[str, Any]]:
        """Of a bare value, as in a rehearsal, nothing is remembered."""
        if not isinstance(released, Sealed):
            return released, {}
        return released.value, {
            "seals": state["seals"].at[step.astype(np.int32)].set(released.seal)
        }

    def correlation(self) -> Float[np.ndarray, " b"]:
        return self.coefficients

    def at(self, step: int, name_of: Callable[[int], str]) -> "BandedStep":
        """The mechanism of one step. name_of: step -> the name of its release, which its key is
        seen under."""
        return BandedStep(self, step, name_of)

    def unit_noise(self, step: int, bound: Bound, keys: list[SecretKey]) -> list[np.ndarray]:
        """y_step for sigma S = 1, a float64 array per leaf of the sum. A function of the keys,
        whatever was asked for before.

        keys: of the noise z of all steps up to this one.
        """
        owner = [keys[step - 1].fingerprint, keys[step - 1].name] if step else None
        if (step, owner) != (self._next, self._owner):
            self._past, self._next = [], 0
        for each in range(self._next, step + 1):
            fresh = unit_noise(bound.total.value, keys[each])  # z
            for c, earlier in zip(self.coefficients[1:], self._past, strict=False):
                fresh = [z - c * y for z, y in zip(fresh, earlier, strict=True)]
            fresh = [z / self.coefficients[0] for z in fresh]
            self._past = [fresh, *self._past][: len(self.coefficients) - 1]
        self._next, self._owner = step + 1, [keys[step].fingerprint, keys[step].name]
        return fresh


@dataclass(frozen=True)
class BandedStep(Mechanism):
    """What adds the noise of one step; `key` is that step's own, under `name_of(step)`."""

    noise: BandedGaussian
    step: int
    name_of: Callable[[int], str]

    @property
    def event(self) -> BandedGaussianEvent:
        return self.noise.event

    @property
    def drawn_as(self) -> type[Mechanism]:
        return Gaussian

    def bind(self, total: BoundedSum, key: SecretKey) -> Bound:
        """Raises ArgumentError for a sum that does not know those before it."""
        past = self._seals(total)
        coefficients = [float(c) for c in self.noise.coefficients]
        return bind(
            total,
            key,
            "banded",
            self.noise.multiplier,
            *coefficients,
            past[-1] if past else "first",
        )

    def release(self, bound: Bound) -> Sealed:
        """The released value, float32."""
        seals = [*self._seals(bound.total), bound.seal]
        keys = [
            under(bound.release.beside(self.name_of(step)), seal) for step, seal in enumerate(seals)
        ]
        scale = self.noise.multiplier * bound.total.sensitivity.add_or_remove
        value = add(bound.total.value, self.noise.unit_noise(self.step, bound, keys), scale)
        return Sealed(value, np.frombuffer(bytes.fromhex(bound.seal), np.uint8))

    def _seals(self, total: BoundedSum) -> list[str]:
        """Of the steps before this one."""
        if not isinstance(total, Following):
            raise ArgumentError(
                "total",
                type(total).__name__,
                "correlated noise needs earlier sums' seals; give a Following",
            )
        return [row.tobytes().hex() for row in np.asarray(total.seals)[: self.step]]


# -- flags, words


def step_event(bands: int | None) -> Callable[[float], Inner]:
    """`--noise-bands` -> (noise multiplier -> what a step's noise may claim)."""
    return GaussianEvent if bands is None else lambda sigma: BandedGaussianEvent(sigma, bands)


def noise_of_run(event: Event, momentum: float) -> Mechanism:
    """What keeps the promise of the steps of a run, the first of which is `event`, or does what is done
    where nothing is promised. momentum: of the optimizer's own sums, see `square_root_bands`."""
    if not event.private:
        return Unprotected(event.noise_multiplier, noise_of_run(event.promised, momentum))
    if event.bands == 1:
        return Gaussian(event.noise_multiplier)
    return BandedGaussian(event.noise_multiplier, square_root_bands(event.bands, momentum))


def worth(
    event: Event, momentum: float, sampler: Sampler, promise: tuple[float, float, Relation]
) -> str:
    """What correlation is worth to a run, for the terminal, on one line. promise: (epsilon, delta,
    relation)."""
    if event.bands == 1:
        return "independent in every step"
    ratio = error_ratio(event, momentum, sampler, promise)
    return (
        f"correlated over {event.bands} steps: the parameters hold {ratio:.3g} times the noise that independent noise on "
        "Poisson samples would leave"
    )


def error_ratio(
    event: Event, momentum: float, sampler: Sampler, promise: tuple[float, float, Relation]
) -> float:
    """Noise in the parameters, root mean square over steps, over that of independent noise on
    Poisson samples of the same size for the same promise (epsilon, delta, relation). Below 1 the
    bands pay.
    """
    epsilon, delta, relation = promise
    rate, steps = sampler.expected_batch_size / sampler.examples, sampler.steps
    plain = SAMPLERS[DEFAULT](rate, steps, sampler.examples)
    sigma = calibration.noise_multiplier(
        lambda s: {plain.event(GaussianEvent(s)): steps}, epsilon, delta, relation
    )
    own = error_of_sums(square_root_bands(event.bands, momentum), steps, momentum)
    independent = error_of_sums(np.ones(1), steps, momentum)
    return event.noise_multiplier * own / (sigma * independent)
