"""Noise is bound to what it hides: its stream is PRF(key, release, seal of the sum), as in
deterministic signatures (RFC 6979).

Noise that were a function of (key, release) alone would be the same on two sums of one name, and
their difference would be free of noise. Two such sums need no malice: copy the directory of a
stopped run and go on with both copies on machines that round differently, restore a backup,
upgrade, lose the file of the replay guard. So the noise depends on all that the released value
does: the numbers of the sum with their names, shapes and types, its sensitivity, the mechanism and
its scale. Then

    the same sum     repeats the same release, to the bit, and tells nothing new;
    another sum      gets noise that is independent of the first, as it does from a fresh key.

The seal is a keyed BLAKE2b of the sum, or of a keyed hash of it (`on_device.py`): whoever lacks the
key learns nothing from it, so it may be kept beside the run.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise.drawing import drawing_of

if TYPE_CHECKING:
    from sfumato.clip import BoundedSum
else:  # JAX is imported where noise is drawn, so that words can be had without it
    BoundedSum = Any

SEAL_BYTES = 16


@dataclass(frozen=True)
class Bound:
    """A sum with the key of the noise that is its own. release: the key as seen from under the
    release's name."""

    total: BoundedSum
    release: SecretKey
    seal: str

    @property
    def key(self) -> SecretKey:
        """What noise is drawn from."""
        return under(self.release, self.seal)


def under(release: SecretKey, seal: str) -> SecretKey:
    """The key of the noise that a release has for the sum of this seal."""
    return release.at("sum", seal)


def bind(
    total: BoundedSum, release: SecretKey, how: str, *numbers: float | str, bounded: bool = True
) -> Bound:
    """how, numbers: the mechanism, and all that its noise depends on beside the sum. bounded: it hides
    a contribution. Raises ArgumentError for a sum of which nothing bounds one: no noise is enough."""
    import jax

    from sfumato.core.trees import leaf_names

    _check_sum(total)
    leaves, names = jax.tree.leaves(total.value), leaf_names(total.value)
    if bounded:
        _check_bounded(total, leaves)
    shapes = [[name, str(leaf.dtype), leaf.shape] for name, leaf in zip(names, leaves, strict=True)]
    drawing = drawing_of(release)
    # It tells how long each leaf is, so no two lists of parts are the same bytes.
    header = json.dumps(
        [how, *numbers, *drawing.MARK, total.sensitivity.add_or_remove, shapes]
    ).encode()
    parts = drawing.sealed(leaves, names, release)
    return Bound(total, release, release.mac(len(header).to_bytes(8, "big"), header, *parts))


def _check_sum(total: Any) -> None:
    """Raises ArgumentError for what is no `BoundedSum` of real numbers."""
    import jax
    import jax.numpy as jnp

    from sfumato.clip.bounded_sum import BoundedSum

    if not isinstance(total, BoundedSum):
        told, way_out = type(total).__name__, "let it return sf.BoundedSum(value, sensitivity)"
        raise ArgumentError("measure", told, way_out)
    for leaf in jax.tree.leaves(total.value):
        dtype = getattr(leaf, "dtype", type(leaf))
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise ArgumentError("measure", f"a sum of {dtype}", "let it be of real numbers")


def _check_bounded(total: BoundedSum, leaves: list[Any]) -> None:
    """Raises ArgumentError where noise that is scaled by `add_or_remove` does not hide one contribution
    under every relation, as prices assume (`privacy/neighbors.py`), or where there is no bound at all.
    """
    own = total.sensitivity
    if not math.isfinite(own.add_or_remove):
        raise ArgumentError(
            "sensitivity",
            own.add_or_remove,
            "no noise hides what is not clipped; give a clip norm, or ask for --epsilon inf",
        )
    if not (own.zero_out <= own.add_or_remove and own.replace_one <= 2 * own.add_or_remove):
        raise ArgumentError(
            "sensitivity",
            own,
            "prices hold where zero_out is at most add_or_remove, by which noise is scaled, and replace_one at most "
            "twice that; state a larger add_or_remove",
        )
    if not _all_finite(leaves):
        raise ArgumentError(
            "measure",
            "NaN or infinity",
            "no noise hides that an example is NaN or infinite; let such a contribution count as nothing",
        )


def _all_finite(leaves: list[Any]) -> bool:
    """Looked at where they are: those on an accelerator by one program, whose answer alone is fetched."""
    import jax
    import numpy as np

    far = [leaf for leaf in leaves if isinstance(leaf, jax.Array) and not _near(leaf)]
    near = (np.asarray(leaf) for leaf in leaves if not isinstance(leaf, jax.Array) or _near(leaf))
    return all(np.isfinite(leaf).all() for leaf in near) and (not far or bool(_program()(far)))


def _near(leaf: Any) -> bool:
    return bool(next(iter(leaf.devices())).platform == "cpu")


@cache
def _program() -> Any:
    import jax
    import jax.numpy as jnp

    return jax.jit(lambda leaves: jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all())
