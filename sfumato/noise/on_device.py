"""Noise drawn where the sum lies, by ChaCha20 in 32-bit integers: each device draws for the numbers it
holds, and no other copy of the noise exists anywhere.

A number's 16 words (a block of `chacha20.py`) are a function of a 256-bit key that belongs to release, sum and
leaf, and of the number's own place in the whole leaf. So they do not depend on how a leaf is laid
out over devices; and as no two numbers have both key and place in common, no two have words in
common. From them comes a whole number of the discrete Gaussian law (`whole_gaussian.py`), in integers:
the noise is the same to the bit on a CPU and an accelerator. Only the last step, a whole number times a
public power of two as float32, is a matter of floats, and is made of what is released anyway.

The seal. The sum need not leave the device for it: what is hashed is a universal hash of each leaf, made there. With h_i the
halves (16 bits) of its numbers, and k_i words of a secret key that is this release's and this leaf's own,

    H_j = sum over i of k_ij h_i  mod 2^32,        j = 1 .. 8        (multilinear hashing; Carter & Wegman 1979)

Two different sums of equal shapes have, in some leaf, halves that differ: by d_i, |d_i| < 2^16, so 2^15 at most divides one of
them. Whatever the other words of the key are, k_ij d_i takes each multiple of a power of two up to 2^15 equally often, so H_j is
equal with a probability of at most 2^-17, and all eight are with one of at most 2^-136. The seal is a keyed BLAKE2b of the H_j (a Wegman-Carter code), so
nobody who lacks the key learns anything about them, or about k. Addition mod 2^32 can be done in any order: so the
parts of a leaf that lie on several devices are hashed there, and added.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Float64, UInt32

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.noise import chacha20, whole_gaussian
from sfumato.noise import lattice as on_lattice
from sfumato.noise.whole_gaussian import Whole

MARK: tuple[str, ...] = ("multilinear", "rounding is paid for")
"""Tells seals of this kind from others, and noise of other widths from this: the same words must not be
released in two widths."""

MOST = 2**32
"""A leaf has fewer numbers, as one word counts them."""

Program = Callable[..., Any]


# -- the four things that a way of drawing does


def sealed(leaves: Sequence[Any], names: Sequence[str], key: SecretKey) -> list[bytes]:
    """For each leaf 32 bytes that two different leaves of a shape share with a probability of at most 2^-136.
    Leaves whose numbers do not have 32 bits are told whole."""
    found: list[Any] = []
    for leaf, name in zip(leaves, names, strict=True):
        if np.dtype(leaf.dtype).itemsize == 4:
            found.append(_run(_hashed, jnp.asarray(leaf), key.cipher_key("seal", name)))
        else:
            found.append(np.ascontiguousarray(leaf))
    return [np.asarray(each).tobytes() for each in found]


def normals(
    shapes: Sequence[tuple[int, ...]], names: Sequence[str], key: SecretKey
) -> list[Float64[np.ndarray, "..."]]:
    """Independent N(0, 1) numbers on the host, an array for each leaf."""
    m = whole_gaussian.multiple(2.0**31)
    found = []
    for shape, name in zip(shapes, names, strict=True):
        own = key.cipher_key("noise", name)
        high, low = map(np.asarray, _run(_drawn, jnp.zeros(shape, jnp.float32), own, np.int32(m)))
        number = high.astype(np.int32).astype(np.int64) << 32 | low
        found.append(number / whole_gaussian.deviation_of(m))
    return found


def gaussian(
    leaves: Sequence[Any],
    names: Sequence[str],
    key: SecretKey,
    multiplier: float,
    sensitivity: float,
) -> list[jax.Array]:
    """Each leaf, float32, with noise of a deviation of multiplier * sensitivity (up to 10^-4 more). All is rounded to
    multiples of 2^-30 of it, by which neighboring sums may come to lie further apart: so, as in `lattice.py`,
    the noise is wider by what that may be."""
    g, deviation = on_lattice.lattice(multiplier, sensitivity, sum(leaf.size for leaf in leaves))
    return lattice(leaves, names, key, g, deviation)


def lattice(
    leaves: Sequence[Any], names: Sequence[str], key: SecretKey, g: float, deviation: float
) -> list[jax.Array]:
    """Each leaf, rounded to multiples of g, with discrete Gaussian noise of at least that many g. g: a power of
    two."""
    if (m := whole_gaussian.multiple(deviation)) > whole_gaussian.MOST:
        raise ArgumentError(
            "noise_rng", key.rng, f"cannot draw noise of {deviation:.3g} steps; take another one"
        )
    exponent = round(math.log2(g))
    half = exponent // 2  # two factors, so that none of them leaves the range of float32
    steps = np.exp2(np.array([half, exponent - half])).astype(np.float32)
    return [
        _run(_added, jnp.asarray(leaf), key.cipher_key("noise", name), np.int32(m), steps)
        for leaf, name in zip(leaves, names, strict=True)
    ]


# -- a leaf on its devices


def _run(program: Program, leaf: Any, *numbers: Any) -> Any:
    """What the program makes of a leaf, on the devices that hold it."""
    if math.prod(leaf.shape) >= MOST:
        raise ArgumentError("params", leaf.shape, "a leaf may have 2^32 - 1 numbers; divide it")
    if len(leaf.sharding.device_set) == 1:
        (device,) = leaf.sharding.device_set
        where = placed(leaf.shape, leaf.shape, [0] * leaf.ndim)
        return program(leaf, jnp.asarray(where, jnp.uint32), largest(device), *numbers)
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding):
        raise ArgumentError("sharding", sharding, "lay leaves out by a mesh (NamedSharding)")
    divided = _divided(program, sharding.mesh, sharding.spec, leaf.shape, len(numbers))
    return divided(leaf, *numbers)


@lru_cache
def _divided(
    program: Program, mesh: Mesh, spec: PartitionSpec, shape: tuple[int, ...], numbers: int
) -> Callable[..., Any]:
    """The program, run by each device on its part of a leaf."""
    axes = [*spec, *[None] * (len(shape) - len(spec))]
    divided = tuple(
        name for axis in axes if axis for name in ([axis] if isinstance(axis, str) else axis)
    )
    most = largest(mesh.devices.flat[0])

    def own(part: jax.Array, *given: jax.Array) -> Any:
        starts = [
            jax.lax.axis_index(axis) * size if axis else 0
            for axis, size in zip(axes, part.shape, strict=True)
        ]
        where = placed(shape, part.shape, starts)
        rows = jnp.stack([jnp.stack([jnp.asarray(n, jnp.uint32) for n in row]) for row in where])
        made = program(part, rows, most, *given)
        return jax.lax.psum(made, divided) if program is _hashed and divided else made

    result = PartitionSpec() if program is _hashed else spec
    specs = (spec, *[PartitionSpec()] * numbers)
    # Equal parts on several devices are made of equal words; JAX cannot see that in a loop.
    return jax.jit(jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=result, check_vma=False))


def largest(device: jax.Device) -> int:
    """The numbers whose words are held at once, 64 bytes each, in the cache that all cores share. It
    changes no bit."""
    return 2**12 if device.platform == "cpu" else 2**17


def placed(
    shape: tuple[int, ...], own: tuple[int, ...], starts: Sequence[Any]
) -> list[tuple[int, Any, int]]:
    """Where a part of a leaf lies in the whole leaf: for each axis, the last one first, how many numbers the
    part has, where they begin, and how far apart neighbors are in the whole leaf. Axes that the part has whole
    are joined with the one before them, so most parts have a single one."""
    axes: list[tuple[int, Any, int]] = [(1, 0, 1)]
    whole, step = True, 1
    for here, begins, size in zip(reversed(own), reversed(starts), reversed(shape), strict=True):
        if whole:
            count, _, apart = axes[-1]
            axes[-1] = (here * count, begins * count, apart)
        else:
            axes.append((here, begins, step))
        whole, step = here == size, step * size
    return axes


# -- programs: (a part of a leaf, where it lies, the most numbers of a block, key, ...)


def _by_blocks(
    make: Callable[[jax.Array, list[jax.Array]], Any], part: jax.Array, where: jax.Array, most: int
) -> Any:
    """make(numbers, counter and nonce of each), block by block; the last one is filled up with zeros."""
    flat = part.reshape(-1)
    size = max(1, min(flat.size, most))
    blocks = jnp.pad(flat, (0, -flat.size % size)).reshape(-1, size)

    def one(given: tuple[jax.Array, jax.Array]) -> Any:
        numbers, block = given
        return make(numbers, places(block, size, where))

    return jax.lax.map(one, (blocks, jnp.arange(len(blocks), dtype=jnp.uint32)))


def places(block: Any, size: int, where: jax.Array) -> list[jax.Array]:
    """Counter and nonce of each number of this block: its place in the whole leaf."""
    place, index = block * np.uint32(size) + jnp.arange(size, dtype=jnp.uint32), np.uint32(0)
    for count, begins, apart in where[:-1]:
        index += (begins + place % count) * apart
        place = place // count
    _, begins, apart = where[-1]
    index += (begins + place) * apart
    return [index, *[jnp.zeros_like(place)] * 3]


def _like(blocks: jax.Array, part: jax.Array) -> jax.Array:
    return blocks.reshape(-1)[: part.size].reshape(part.shape)


@partial(jax.jit, static_argnums=2)
def _added(
    part: Array, where: Array, most: int, key: Array, m: Array, steps: Float32[Array, "2"]
) -> Float32[Array, "..."]:
    def make(numbers: jax.Array, own: list[jax.Array]) -> jax.Array:
        exact = whole_gaussian.rounded(numbers.astype(jnp.float32) / steps[0] / steps[1])
        released = whole_gaussian.plus(exact, _noise(own, key, m))
        return whole_gaussian.as_float(released) * steps[0] * steps[1]

    return _like(_by_blocks(make, part, where, most), part)


@partial(jax.jit, static_argnums=2)
def _drawn(part: Array, where: Array, most: int, key: Array, m: Array) -> Whole:
    drawn = _by_blocks(lambda _, own: _noise(own, key, m), part, where, most)
    return Whole(*(_like(word, part) for word in drawn))


def _noise(own: list[jax.Array], key: jax.Array, m: jax.Array) -> Whole:
    words = chacha20.block(key, own, at_once=False)
    return whole_gaussian.wide(words, m, whole_gaussian.table())


@partial(jax.jit, static_argnums=2)
def _hashed(part: Array, where: Array, most: int, key: Array) -> UInt32[Array, "8"]:
    def make(numbers: jax.Array, own: list[jax.Array]) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(numbers, jnp.uint32)
        low, high = bits & np.uint32(0xFFFF), bits >> np.uint32(16)
        words = chacha20.block(key, own)
        hashes = [low * words[2 * j] + high * words[2 * j + 1] for j in range(8)]
        # One operation sums all eight, so that the words are computed once.
        return jnp.stack(jax.lax.reduce(hashes, [np.uint32(0)] * 8, _plus, (0,)))

    return jnp.sum(_by_blocks(make, part, where, most), axis=0, dtype=jnp.uint32)


def _plus(a: list[jax.Array], b: list[jax.Array]) -> list[jax.Array]:
    return [x + y for x, y in zip(a, b, strict=True)]
