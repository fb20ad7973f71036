"""Pictures that nobody took, drawn by the thousand on the device from a public seed: what the
shipped encoder learns from.

Four kinds, after Baradad et al. 2021 and 2022 (arXiv 2106.05963, 2211.16412), who found that
variety matters more than realism:

* leaves      opaque shapes falling on top of one another, radii of density r^-3, plain, shaded, striped or textured
* generators  networks of random convolutions that turn noise into pictures, a style for each picture
* shaders     small random programs of the coordinates: sines, folds, steps, bells
* fields      Gaussian fields with spectra 1 / f^a, plain, folded or cut into regions

Every function maps (key, count) to float32 pictures (count, SIDE, SIDE, 3) in [0, 1]. Nothing here
has seen a photograph.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax, random
from jaxtyping import Array, Float, PRNGKeyArray

SIDE = 48
CHUNK = 1024
SHARES = {"leaves": 0.5, "generators": 0.2, "shaders": 0.2, "fields": 0.1}
LEAVES = 96
"""Shapes in a picture; those drawn first may be hidden."""

Pictures = Float[Array, "n s s 3"]


def contrasted(maps: Float[Array, "n s s 3"], key: PRNGKeyArray) -> Pictures:
    """Any real-valued maps -> pictures of a random mean color and contrast."""
    keys = random.split(key, 5)
    count = len(maps)
    # Light varies more than hue does, in photographs too.
    light = random.normal(keys[0], (count, 3, 1)) * jnp.ones(3)
    hue = random.uniform(keys[3], (count, 1, 1)) * random.normal(keys[4], (count, 3, 3))
    mixed = jnp.einsum("nhwc,ncd->nhwd", maps, light + 0.6 * hue)
    mean, std = mixed.mean((1, 2), keepdims=True), mixed.std((1, 2, 3), keepdims=True)
    color = 0.5 + 0.15 * random.normal(keys[1], (count, 1, 1, 3))
    spread = random.uniform(keys[2], (count, 1, 1, 1), minval=0.08, maxval=0.3)
    return jnp.clip(color + spread * (mixed - mean) / (std + 1e-6), 0, 1)


def grid() -> tuple[Float[Array, "s 1"], Float[Array, "1 s"]]:
    """Coordinates of the pixels' centers, in [-1, 1]."""
    line = (jnp.arange(SIDE) + 0.5) * 2 / SIDE - 1
    return line[:, None], line[None, :]


# Fields


def fields(key: PRNGKeyArray, count: int) -> Pictures:
    """|F(f)| = f^-a with a from 0.6 to 2.4, stretched in a random direction; a third folded by a
    sine, a third cut by steps."""
    keys = random.split(key, 8)
    down, across = jnp.fft.fftfreq(SIDE)[:, None] * SIDE, jnp.fft.fftfreq(SIDE)[None] * SIDE
    angle = random.uniform(keys[0], (count, 1, 1), maxval=jnp.pi)
    stretch = jnp.exp(random.uniform(keys[1], (count, 1, 1), maxval=1.2))
    along = jnp.cos(angle) * across + jnp.sin(angle) * down
    aside = jnp.cos(angle) * down - jnp.sin(angle) * across
    power = random.uniform(keys[2], (count, 1, 1), minval=0.6, maxval=2.4)
    size = jnp.maximum((along * stretch) ** 2 + (aside / stretch) ** 2, 0.5) ** (-power / 2)
    noise = random.normal(keys[3], (count, SIDE, SIDE, 3))
    spectrum = jnp.fft.fft2(noise, axes=(1, 2)) * size[..., None]
    plain = jnp.fft.ifft2(spectrum, axes=(1, 2)).real
    plain = plain / plain.std((1, 2, 3), keepdims=True)
    folded = jnp.sin(plain * random.uniform(keys[4], (count, 1, 1, 1), minval=1.5, maxval=6.0))
    cut = jnp.tanh(8 * (plain + 0.3 * random.normal(keys[5], (count, 1, 1, 3))))
    kind = random.randint(keys[6], (count, 1, 1, 1), 0, 3)
    return contrasted(jnp.where(kind == 0, plain, jnp.where(kind == 1, folded, cut)), keys[7])


# Shaders

WIDTH, DEPTH = 24, 4
BENDS: tuple[Callable[[Array], Array], ...] = (
    jnp.sin,
    jnp.abs,
    jnp.tanh,
    lambda x: jnp.exp(-x * x),
    lambda x: jnp.tanh(10 * jnp.sin(2 * x)),
    lambda x: x,
)


def shaders(key: PRNGKeyArray, count: int) -> Pictures:
    """A perceptron of the coordinates, its weights drawn anew for each picture; a unit's
    nonlinearity is one of BENDS."""
    keys = iter(random.split(key, 2 * DEPTH + 8))
    y, x = grid()
    y, x = jnp.broadcast_to(y, (SIDE, SIDE)).ravel(), jnp.broadcast_to(x, (SIDE, SIDE)).ravel()
    zoom = jnp.exp(random.uniform(next(keys), (count, 1, 1), minval=0.0, maxval=1.8))
    shift = random.normal(next(keys), (count, 1, 3))
    units = zoom * (jnp.stack([y, x, jnp.sqrt(x * x + y * y)], -1)[None] + shift)
    for _ in range(DEPTH):
        weight = (
            random.normal(next(keys), (count, units.shape[-1], WIDTH))
            * (2.2 / units.shape[-1]) ** 0.5
        )
        units = bent(jnp.einsum("npi,nij->npj", units, weight), next(keys))
    color = random.normal(next(keys), (count, WIDTH, 3)) / WIDTH**0.5
    return contrasted(
        jnp.einsum("npi,nij->npj", units, color).reshape(count, SIDE, SIDE, 3), next(keys)
    )


def bent(units: Float[Array, "n p d"], key: PRNGKeyArray) -> Float[Array, "n p d"]:
    kinds = random.randint(key, (units.shape[0], 1, units.shape[2]), 0, len(BENDS))
    return sum(jnp.where(kinds == k, bend(units), 0) for k, bend in enumerate(BENDS))


# Generators

CHANNELS, LEVELS = 32, 3


def generators(key: PRNGKeyArray, count: int) -> Pictures:
    """Noise of 6 x 6 cells, doubled three times. All pictures of one call share the kernels; their
    styles differ."""
    keys = iter(random.split(key, 6 * LEVELS + 8))
    side = SIDE >> LEVELS
    maps = random.normal(next(keys), (count, side, side, CHANNELS))
    maps = convolved(maps, next(keys), next(keys))
    for _ in range(LEVELS):
        side *= 2
        maps = jax.image.resize(maps, (count, side, side, CHANNELS), "linear")
        maps = convolved(maps, next(keys), next(keys))
        loud = 0.5 * jnp.exp(random.normal(next(keys), (count, 1, 1, CHANNELS)) - 1)
        maps = maps + loud * random.normal(next(keys), (count, side, side, 1))
        maps = convolved(maps, next(keys), next(keys))
    color = random.normal(next(keys), (count, CHANNELS, 3)) / CHANNELS**0.5
    return contrasted(jnp.einsum("nhwi,nij->nhwj", maps, color), next(keys))


def convolved(
    maps: Float[Array, "n a a d"], weights: PRNGKeyArray, styles: PRNGKeyArray
) -> Float[Array, "n a a d"]:
    """Styled channels -> random or oriented 3 x 3 kernels -> leaky ReLU -> each channel of each
    picture normalized."""
    first, second, third = random.split(weights, 3)
    rough = random.normal(first, (3, 3, CHANNELS, CHANNELS))
    angle = random.uniform(second, (CHANNELS, CHANNELS), maxval=2 * jnp.pi)
    y, x = (jnp.arange(3.0) - 1)[:, None, None, None], (jnp.arange(3.0) - 1)[None, :, None, None]
    oriented = 1.7 * jnp.sin(
        1.5 * (jnp.cos(angle) * x + jnp.sin(angle) * y)
        + random.uniform(third, (CHANNELS,), maxval=6.3)
    )
    kernel = jnp.where(jnp.arange(CHANNELS) % 2 == 0, rough, oriented) / (9 * CHANNELS) ** 0.5
    styled = maps * jnp.exp(0.7 * random.normal(styles, (len(maps), 1, 1, CHANNELS)))
    out = lax.conv_general_dilated(
        styled, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    out = jax.nn.leaky_relu(out, 0.2)
    return (out - out.mean((1, 2), keepdims=True)) / (out.std((1, 2), keepdims=True) + 1e-3)


# Leaves


def leaves(key: PRNGKeyArray, count: int, textures: Pictures) -> Pictures:
    """LEAVES superellipses or polygons fall; the smallest radius of a picture is 1 to 5 pixels, the
    largest 12 to 36.

    A leaf is its own color, shaded across; a fifth carry a sine wave, two fifths a piece of one of
    the `textures`.
    """
    keys = iter(random.split(key, 12))
    least = jnp.exp(random.uniform(next(keys), (count, 1), maxval=jnp.log(5.0))) * 2 / SIDE
    most = random.uniform(next(keys), (count, 1), minval=12.0, maxval=36.0) * 2 / SIDE
    share = random.uniform(next(keys), (count, LEAVES))
    radius = (most**-2 + share * (least**-2 - most**-2)) ** -0.5  # density r^-3: r^-2 is uniform
    palette = (
        0.5
        + 0.15 * random.normal(next(keys), (count, 1, 1))
        + 0.12 * random.normal(next(keys), (count, 1, 3))
    )
    spread = random.uniform(next(keys), (count, 1, 1), minval=0.05, maxval=0.4)
    colored = random.uniform(next(keys), (count, 1, 1), maxval=0.8)
    color = palette + spread * (
        random.normal(next(keys), (count, LEAVES, 1))
        + colored * random.normal(next(keys), (count, LEAVES, 3))
    )
    per_leaf = (
        jnp.moveaxis(radius, 1, 0),
        jnp.moveaxis(color, 1, 0),
        random.split(next(keys), LEAVES),
    )
    background = textures[random.randint(next(keys), (count,), 0, len(textures))]
    fall = lambda picture, leaf: (fallen(picture, *leaf, textures), None)  # noqa: E731
    return jnp.clip(lax.scan(fall, background, per_leaf)[0], 0, 1)


def fallen(
    picture: Pictures,
    radius: Float[Array, " n"],
    color: Float[Array, "n 3"],
    key: PRNGKeyArray,
    textures: Pictures,
) -> Pictures:
    """One more leaf on each picture."""
    keys = iter(random.split(key, 12))
    count = len(picture)

    def each(low: float, high: float) -> Float[Array, "n 1 1"]:
        return random.uniform(next(keys), (count, 1, 1), minval=low, maxval=high)

    y, x = grid()
    radius = radius[:, None, None]
    dy, dx, angle = y - each(-1.1, 1.1), x - each(-1.1, 1.1), each(0, 2 * jnp.pi)
    along = (jnp.cos(angle) * dx + jnp.sin(angle) * dy) / radius
    aside = (jnp.cos(angle) * dy - jnp.sin(angle) * dx) / (radius * jnp.exp(each(-1.5, 0)))
    power = jnp.exp(each(-0.1, 2.0))
    rounded = (jnp.abs(along) ** power + jnp.abs(aside) ** power + 1e-9) ** (1 / power)
    corner = (
        jnp.maximum(-along, jnp.maximum(0.5 * along + 0.87 * aside, 0.5 * along - 0.87 * aside))
        * 1.6
    )
    kind = each(0, 1)
    reach = jnp.where(kind < 0.25, corner, rounded)
    cover = jnp.clip((1 - reach) * radius * SIDE / 2 + 0.5, 0, 1)[..., None]  # edges one pixel soft
    shade = 0.15 * each(-1, 1) * along + 0.15 * each(-1, 1) * aside
    wave = 0.25 * jnp.sin(jnp.exp(each(1.5, 4.0)) * along * radius + each(0, 6.3)) * (kind > 0.8)
    look = color[:, None, None] + (shade + wave)[..., None]
    piece = textures[random.randint(next(keys), (count,), 0, len(textures))]
    textured = 0.6 * (piece - 0.5) + look
    return picture + cover * (
        jnp.where((jnp.abs(kind - 0.4) < 0.2)[..., None], textured, look) - picture
    )


def draw_pool(seed: int, count: int) -> tuple[Array, dict[str, int]]:
    """About `count` uint8 pictures (n, SIDE, SIDE, 3) on the device, all kinds mixed, and how many
    of each there are."""
    chunk = min(CHUNK, count)
    numbers = {kind: max(1, round(count * share / chunk)) for kind, share in SHARES.items()}
    key = random.key(seed)
    basics = {"generators": generators, "shaders": shaders, "fields": fields}
    bytes_of = lambda pictures: jnp.round(pictures * 255).astype(jnp.uint8)  # noqa: E731
    draw = {
        kind: jax.jit(lambda key, make=make: bytes_of(make(key, chunk)))
        for kind, make in basics.items()
    }
    fall = jax.jit(lambda key, textures: bytes_of(leaves(key, chunk, textures)))
    pool, keys = [], iter(random.split(key, sum(numbers.values())))
    for kind, make in draw.items():
        pool += [make(next(keys)) for _ in range(numbers[kind])]
    textures = jnp.concatenate(pool[:: max(1, len(pool) // 8)]).astype(jnp.float32) / 255
    pool += [fall(next(keys), textures) for _ in range(numbers["leaves"])]
    return jnp.concatenate(pool), {kind: number * chunk for kind, number in numbers.items()}
