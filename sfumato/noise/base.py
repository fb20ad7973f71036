"""What a mechanism is: what adds noise to a sum, the event that may be claimed for it, and its words.

Whoever asks for words alone, such as a report, needs no JAX: mechanisms import it where they draw.
"""

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise.binding import Bound, bind
from sfumato.privacy.events import Event, GaussianEvent, Inner, to_json

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from sfumato.clip import BoundedSum, Sensitivity
    from sfumato.sampling.base import Sampler
else:  # JAX is imported where noise is drawn, so that words can be had without it
    BoundedSum = Sampler = Sensitivity = PyTree = Any

ROUNDING = (
    "Rounding before the noise. What one {unit} may add is bounded with an allowance for rounding that is tested, not "
    "proven; and one {unit} more in a sum may change how the whole sum is rounded, by about a ten-millionth of it."
)


class Mechanism:
    """Base of all mechanisms, which are frozen dataclasses; those that a flag names have the one
    field `multiplier`. Noise is for a sum that it was bound to (`binding.py`), so no two sums can be
    given the same; called, it does both: `release(bind(total, key))`.

    name: in words, before "noise". where: after it. limits: where the promise ends, for the report,
    with {unit}. keeps_bands: it can draw correlated noise, too. An instance is the noise of a run
    (`at`, `memory`, `summed`, `told`), or of one step: the same, but where noise is correlated.
    """

    name: ClassVar[str] = "Gaussian"
    where: ClassVar[str] = ""
    limits: ClassVar[tuple[str, ...]] = (ROUNDING,)
    keeps_bands: ClassVar[bool] = False

    if TYPE_CHECKING:

        @property
        def multiplier(self) -> float: ...

    @property
    def event(self) -> Inner:
        """What may be claimed for a release."""
        return GaussianEvent(self.multiplier)

    def claim(self, sampler: Sampler, step: int) -> Event:
        """What a step with this noise costs, of examples that the sampler chose."""
        return sampler.event(self.event, step)

    def bind(self, total: BoundedSum, key: SecretKey) -> Bound:
        """key: this release's own, as `key.at("dp-sgd/17")`."""
        made = type(self)
        return bind(
            total, key, f"{made.__module__}:{made.__qualname__}", json.dumps(to_json(self.event))
        )

    def release(self, bound: Bound) -> PyTree:
        """The released value, float32. Noise is drawn from `bound.key` alone."""
        raise NotImplementedError

    def __call__(self, total: BoundedSum, key: SecretKey) -> PyTree:
        return self.release(self.bind(total, key))

    # -- the noise of a run

    def at(self, step: int, name_of: Callable[[int], str]) -> "Mechanism":
        """Of one step of a run. name_of: step -> the name of its release."""
        return self

    def memory(self, steps: int) -> dict[str, Any]:
        """What the state of a run of so many steps must hold for it: arrays by name."""
        return {}

    def summed(self, value: PyTree, sensitivity: Sensitivity, state: dict[str, Any]) -> BoundedSum:
        """A step's sum as this noise wants it. state: of the run, with the arrays of `memory`."""
        from sfumato.clip import BoundedSum

        return BoundedSum(value, sensitivity)

    def told(
        self, released: PyTree, state: dict[str, Any], step: Any
    ) -> tuple[PyTree, dict[str, Any]]:
        """(the value in what was released, the arrays of `memory` after this step). May be traced by
        JAX."""
        return released, {}

    def correlation(self) -> Float[np.ndarray, " b"]:
        """Coefficients c of c_0 y_t + c_1 y_(t-1) + ... = z_t, y the noise of steps, z independent."""
        return np.ones(1)

    # -- as a flag names it

    @property
    def drawn_as(self) -> "type[Mechanism]":
        """The class that a flag names for noise of this kind."""
        return type(self)

    @classmethod
    def keeping(cls, promised: "Mechanism") -> "Mechanism":
        """What keeps the promise of another mechanism; itself where that promises nothing. Raises
        ArgumentError for correlated noise."""
        if promised.drawn_as is cls or not promised.event.private:
            return promised
        if promised.event.bands > 1:
            raise ArgumentError(
                "noise",
                cls.__name__,
                f"correlated noise is not drawn like this ({cls.name}{cls.where}); take --noise gaussian, or leave out "
                "--noise-bands",
            )
        return cls(promised.event.noise_multiplier)  # type: ignore[call-arg]

    @classmethod
    def words(cls, events: Iterable[Event]) -> str:
        """For the report, before "noise": of a run that releases these events."""
        return cls.name
