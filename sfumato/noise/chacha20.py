"""ChaCha20 (Bernstein 2008; RFC 8439, Sec. 2.3) in 32-bit integers of JAX: the same words on every device.

    state = constants (4 words) | key (8) | counter and nonce (4)      words(state) = state + 20 rounds of it

As a function of the last four words, with a key that nobody knows, it cannot be told from a random
one: each block of 16 words, whoever computes it and when, is a function of key and place alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

CONSTANTS = np.frombuffer(b"expand 32-byte k", "<u4").astype(np.uint32)
ROUNDS = 20
Words = list[UInt32[Array, "..."]]
_DIAGONALS = tuple(
    tuple(4 * row + (column + shift * row) % 4 for row in range(4))
    for shift in (0, 1)
    for column in range(4)
)


def block(key: UInt32[Array | np.ndarray, "8"], place: Words, at_once: bool = True) -> Words:
    """16 words for each element of the four arrays of `place` (the counter and the nonce), which have one
    shape.

    at_once: the rounds are written out, so that a compiler makes one loop of them and of what uses the words;
    right for one use. Else words are held between rounds, and computed once whatever uses them.
    """
    shape = jnp.shape(place[0])
    fixed = [jnp.broadcast_to(word, shape) for word in (*jnp.asarray(CONSTANTS), *jnp.asarray(key))]
    start = fixed + [jnp.asarray(word, jnp.uint32) for word in place]
    if at_once:
        mixed = start
        for _ in range(ROUNDS // 2):
            mixed = _double_round(mixed)
    else:
        mixed = jax.lax.fori_loop(0, ROUNDS // 2, lambda _, state: _double_round(state), start)
    return [a + b for a, b in zip(mixed, start, strict=True)]


def _double_round(state: Words) -> Words:
    """Down the columns of the 4 x 4 words, then down the diagonals."""
    state = list(state)
    for places in _DIAGONALS:
        a, b, c, d = (state[k] for k in places)
        a = a + b
        d = _rotated(d ^ a, 16)
        c = c + d
        b = _rotated(b ^ c, 12)
        a = a + b
        d = _rotated(d ^ a, 8)
        c = c + d
        b = _rotated(b ^ c, 7)
        for k, word in zip(places, (a, b, c, d), strict=True):
            state[k] = word
    return state


def _rotated(word: jax.Array, bits: int) -> jax.Array:
    return (word << np.uint32(bits)) | (word >> np.uint32(32 - bits))
