"""Noise drawn on the host from the secret key's streams, in float64: the same noise on every device and for
any number of devices.

A leaf is cut into pieces of `PIECE` numbers, each with a stream of its own, so that all threads have work whatever the
sizes of the leaves (NumPy and hashlib let go of the interpreter's lock). A piece is drawn in parts, so that what was drawn
is added while it is in the processor's cache, and no copy of all the noise is held. A stream is drawn in its order
whatever the size of the parts, so they change no bit.

The seal of a large leaf is a hash tree of two levels: keyed hashes of its pieces of `HASHED` bytes, and the hash of these, in
their order, that `binding.py` takes. How many there are follows from the shapes and types in the header of that one, and
pieces are hashed under another personalization of BLAKE2b than what is made of them; so two different leaves of a shape
and type have the same seal only where two different inputs of a keyed hash have the same 256 or 128 bits. Smaller
leaves are told whole.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from sfumato.core.keys import SecretKey
from sfumato.data.workers import spread
from sfumato.noise import lattice as on_lattice

MARK: tuple[str, ...] = ()
"""Tells seals of this kind from others."""

PIECE, HASHED = 2**18, 2**20
"""Numbers, and bytes, of what one thread draws or hashes at a time. Streams and seals depend on them."""

PART = 2**16
"""Numbers drawn at once."""


class Piece(NamedTuple):
    """Of a leaf: its numbers, and the key that their noise is drawn from."""

    leaf: int
    place: slice
    key: SecretKey


def sealed(leaves: Sequence[Any], names: Sequence[str], key: SecretKey) -> list[bytes | memoryview]:
    """All bytes of each leaf, or the hashes of its pieces."""
    told = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data for leaf in leaves]
    large = [each for each in told if len(each) > HASHED]
    starts = [(each, start) for each in large for start in range(0, len(each), HASHED)]
    hashes = spread(lambda at: key.piece_mac(at[0][at[1] : at[1] + HASHED]), starts)
    return [
        b"".join(next(hashes) for _ in range(0, len(each), HASHED)) if len(each) > HASHED else each
        for each in told
    ]


def normals(
    shapes: Sequence[tuple[int, ...]], names: Sequence[str], key: SecretKey
) -> list[Float64[np.ndarray, "..."]]:
    """Independent N(0, 1) numbers, an array for each leaf."""

    def draw(piece: Piece, out: np.ndarray) -> None:
        for place, part in parts(piece.key, names[piece.leaf], out.size):
            out[place] = part

    return list(_filled(draw, [np.empty(shape) for shape in shapes], key))


def gaussian(
    leaves: Sequence[Any],
    names: Sequence[str],
    key: SecretKey,
    multiplier: float,
    sensitivity: float,
) -> list[jax.Array]:
    """Each leaf with noise of a deviation of multiplier * sensitivity, summed in float64 and rounded to float32."""
    scale = multiplier * sensitivity
    values = [np.asarray(leaf).reshape(-1) for leaf in leaves]

    def draw(piece: Piece, out: np.ndarray) -> None:
        own = values[piece.leaf][piece.place]
        for place, part in parts(piece.key, names[piece.leaf], out.size):
            part *= scale
            part += own[place]
            out[place] = part

    return _where_they_were(draw, leaves, key)


def lattice(
    leaves: Sequence[Any], names: Sequence[str], key: SecretKey, g: float, deviation: float
) -> list[jax.Array]:
    """Each leaf, rounded to multiples of g, with discrete Gaussian noise of so many g. g: a power of two."""
    values = [np.asarray(leaf).reshape(-1) for leaf in leaves]

    def draw(piece: Piece, out: np.ndarray) -> None:
        own = values[piece.leaf][piece.place].astype(np.float64)
        stream = piece.key.stream("noise", names[piece.leaf])
        noise = on_lattice.discrete_gaussian(stream, deviation, out.size)
        out[:] = (on_lattice.whole_steps(own, g) + noise) * g

    return _where_they_were(draw, leaves, key)


def parts(key: SecretKey, name: str, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Independent N(0, 1) numbers for a piece of a leaf, float64, part by part: where they belong, and they, until
    the next part is asked for."""
    stream, room = key.stream("noise", name), np.empty(min(PART, size))
    for start in range(0, size, PART):
        count = min(PART, size - start)
        yield slice(start, start + count), stream.standard_normal(out=room[:count])


def pieces(sizes: Sequence[int], key: SecretKey) -> list[Piece]:
    """Of leaves of so many numbers. The first piece of a leaf has the key itself."""
    return [
        Piece(
            leaf,
            slice(start, min(start + PIECE, size)),
            key.at("piece", start // PIECE) if start else key,
        )
        for leaf, size in enumerate(sizes)
        for start in range(0, size, PIECE)
    ]


Draw = Callable[[Piece, np.ndarray], None]
"""Fills the numbers of a piece."""


def _filled(draw: Draw, drawn: list[Any], key: SecretKey) -> Iterator[np.ndarray]:
    """The arrays, filled on all threads; one that was given is not held here any longer."""
    sizes = [each.size for each in drawn]

    def one(piece: Piece) -> None:
        draw(piece, drawn[piece.leaf].reshape(-1)[piece.place])

    few = sum(sizes) <= PIECE  # drawn before a thread is awake
    done = (map if few else spread)(one, pieces(sizes, key))
    for leaf, size in enumerate(sizes):
        for _ in range(0, size, PIECE):
            next(done)
        given, drawn[leaf] = drawn[leaf], None
        yield given


def _where_they_were(draw: Draw, leaves: Sequence[Any], key: SecretKey) -> list[jax.Array]:
    """Float32, laid out as the leaves are."""
    drawn = _filled(draw, [np.empty(leaf.shape, np.float32) for leaf in leaves], key)
    return [
        jax.device_put(each, leaf.sharding)
        if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1
        else jnp.asarray(each)
        for each, leaf in zip(drawn, leaves, strict=True)
    ]
