"""What a run that promises nothing adds to its sums (`privacy/not_private.py`): no noise, or, in a
rehearsal, that of a smaller batch. It has no flag and is no `--noise`: the events that it claims are
paid for by a ledger without budget alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise.base import Mechanism
from sfumato.noise.binding import Bound, bind
from sfumato.noise.gaussian import Gaussian
from sfumato.privacy.events import Event
from sfumato.privacy.not_private import NotPrivateEvent
from sfumato.sampling.base import Sampler

if TYPE_CHECKING:
    from jaxtyping import PyTree

    from sfumato.clip import BoundedSum
else:  # JAX is imported where a sum is released, so that words can be had without it
    BoundedSum = PyTree = Any


@dataclass(frozen=True)
class Unprotected(Mechanism):
    """Gaussian noise of this multiplier, 0 for none, in the place of the `promised` mechanism."""

    name: ClassVar[str] = "no"
    limits: ClassVar[tuple[str, ...]] = ()

    multiplier: float
    promised: Mechanism

    @property
    def event(self) -> Any:
        """What is claimed for a release of all examples: nothing."""
        return NotPrivateEvent(self.promised.event, self.multiplier)

    def claim(self, sampler: Sampler, step: int) -> Event:
        """No sample makes private what is not."""
        return NotPrivateEvent(self.promised.claim(sampler, step), self.multiplier)

    def bind(self, total: BoundedSum, key: SecretKey) -> Bound:
        return bind(total, key, "unprotected", self.multiplier, bounded=self.multiplier > 0)

    def release(self, bound: Bound) -> PyTree:
        """The sum in float32, with noise if there is any."""
        import jax
        import jax.numpy as jnp

        if self.multiplier > 0:
            return Gaussian(self.multiplier).release(bound)
        return jax.tree.map(
            lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float32), bound.total.value
        )

    @property
    def drawn_as(self) -> type[Mechanism]:
        return self.promised.drawn_as

    @classmethod
    def keeping(cls, promised: Mechanism) -> Mechanism:
        raise ArgumentError("noise", cls.__name__, "keeps no promise; ask for --epsilon inf")

    @classmethod
    def words(cls, events: Iterable[Event]) -> str:
        return cls.name
