"""Wavelet scattering of depth two (Mallat 2012; Bruna and Mallat 2013), with nothing learned at
all.

With wavelets psi_(j, k) (scale 2^j, angle pi k / L) and a Gaussian window phi of scale 2^J, one
plane x gives

    S0 = phi * x                               1 channel
    S1 = phi * |psi_(j,k) * x|                 J L channels
    S2 = phi * ||psi_(j,k) * x| * psi_(i,l)|   L^2 J (J - 1) / 2 channels, i > j

on a grid of step 2^J; J = 2 and L = 8 give 1 + 16 + 64 = 81. Every convolution is a product of
Fourier transforms, but for the window, which is separable and wide: a small matrix product. The
grid is mirror-symmetric, unlike the customary one: convolutions at scale 1 are sampled at 1/2, 5/2,
9/2 ... (a shift of half a pixel put into the wavelet) and the cells are centered at 4 k + 3/2, so
the mirror image of an image has the mirrored cells.
"""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from sfumato.features.feature_map import (
    FeatureMap,
    Group,
    at_working_size,
    check_colors,
    spectrum,
    unit,
    working_size,
)

J = 2
ANGLES = 8
CHANNELS = 1 + J * ANGLES + ANGLES * ANGLES
_MARGIN = 4
_WIDTH = 0.8
_PEAK = 3 * math.pi / 4
_SLANT = 4 / ANGLES
# Keeps the square root in the modulus differentiable at 0; its root, 1e-6, is far below one gray
# level.
_TINY = 1e-12
# Added before the logarithm; a quarter of a gray level.
_QUIET = 1e-3
# Norm of a difference of logarithms between an image and its mirror image; photographs and letters
# have 3 to 30, the rounding of symmetric images less than 0.1.
_ALIKE = 1.0


def frequencies(height: int, width: int) -> Float[np.ndarray, "h w 2"]:
    """Angular frequencies (vertical, horizontal) of a transform of this size, in [-pi, pi)."""
    return (
        2
        * np.pi
        * np.stack(
            np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"), axis=-1
        )
    )


def morlet(height: int, width: int, scale: int, angle: float) -> Float[np.ndarray, "h w"]:
    """The Fourier transform of a Morlet wavelet: real, 0 at frequency 0.

    In space it is exp(-|A u|^2 / (2 s^2)) (exp(i xi u') - K), with s = 0.8 * 2^scale, xi = 3/4 pi
    2^-scale, u' along the angle, and A shrinking the direction across by 1/2. Its transform is G(w
    - xi) - K G(w) with a Gaussian G of peak 1 and K = G(xi) / G(0), summed over the periods of the
    sampled spectrum.
    """
    spread, peak = _WIDTH * 2**scale, _PEAK / 2**scale
    direction = np.array([math.sin(angle), math.cos(angle)])
    normal = np.array([math.cos(angle), -math.sin(angle)])

    def gauss(omega: np.ndarray, center: float) -> np.ndarray:
        return np.exp(
            -0.5 * spread**2 * ((omega @ direction - center) ** 2 + (omega @ normal / _SLANT) ** 2)
        )

    def periodic(center: float) -> np.ndarray:
        omega, periods = frequencies(height, width), (-2, -1, 0, 1, 2)
        return np.sum(
            [gauss(omega + 2 * np.pi * np.array([a, b]), center) for a in periods for b in periods],
            axis=0,
        )

    with_carrier, without = periodic(peak), periodic(0.0)
    return with_carrier - without * (with_carrier[0, 0] / without[0, 0])


def bank(height: int, width: int) -> Float[np.ndarray, "j l h w"]:
    """The transforms of all wavelets, scaled so that convolving cannot add energy.

    The scattering is non-expansive if |phi(w)|^2 + 1/2 sum over wavelets (|psi(w)|^2 + |psi(-w)|^2)
    <= 1 for all w (Bruna and Mallat 2013, eq. 4). phi <= 1 is separable, so the largest factor that
    keeps the sum below 1 is taken.
    """
    angles = [math.pi * k / ANGLES for k in range(ANGLES)]
    waves = np.stack(
        [[morlet(height, width, scale, angle) for angle in angles] for scale in range(J)]
    )
    both = waves**2 + np.roll(waves[:, :, ::-1, ::-1], 1, axis=(2, 3)) ** 2
    power = both.sum((0, 1)) / 2
    omega = frequencies(height, width)
    low = np.exp(-((omega * _WIDTH * 2 ** (J - 1)) ** 2).sum(-1))
    factor = np.min(np.where(power > 1e-9, (1 - low) / np.maximum(power, 1e-9), np.inf))
    return waves * math.sqrt(min(factor, 1.0)) if factor > 0 else waves


def padded(length: int) -> int:
    """Even length with at least a margin of 4 on either side."""
    return length + 2 * _MARGIN + length % 2


def window(length: int, step: int) -> Float[np.ndarray, "cells n"]:
    """Gaussian averages (standard deviation 1.6 pixels), a row per cell of 4 pixels, over padded
    samples `step` apart.

    Cells are placed symmetrically: centers 3/2, 11/2, 19/2 ... for lengths divisible by 4. Rows sum
    to 1.
    """
    cells = max(length >> J, 1)
    center = (length - 1) / 2 + (np.arange(cells) - (cells - 1) / 2) * 2**J
    position = np.arange(padded(length) // step) * step + (step - 1) / 2 - _MARGIN
    weights = np.exp(-0.5 * ((position[None] - center[:, None]) / (_WIDTH * 2 ** (J - 1))) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def scatter(planes: Float[Array, "c h w"]) -> Float[Array, "a b c 81"]:
    """Scattering coefficients of each plane: 1 + 16 + 64 channels on a grid of h // 4 x w // 4
    cells."""
    _, height, width = planes.shape
    rows, columns = padded(height), padded(width)
    waves = bank(rows, columns).astype(np.float32)
    # exp(i w / 2) moves the sampling point by half a pixel; at the Nyquist frequency of an even
    # length, where +pi and -pi are one, the shift of a real signal is the average of both: 0.
    shift = np.prod(
        [
            np.where(np.abs(part + np.pi) < 1e-9, 0, np.exp(0.5j * part))
            for part in np.moveaxis(frequencies(rows, columns), -1, 0)
        ],
        axis=0,
    )
    coarse = (waves[1] * shift / 4).astype(np.complex64)
    extra = ((_MARGIN, _MARGIN + height % 2), (_MARGIN, _MARGIN + width % 2))
    image = jnp.pad(planes, ((0, 0), *extra), mode="symmetric")
    transform = jnp.fft.fft2(image)
    first = _modulus(jnp.fft.ifft2(transform[:, None] * waves[0]))
    second = _modulus(jnp.fft.ifft2(_halved(transform[:, None] * coarse)))
    both = _modulus(jnp.fft.ifft2(_halved(jnp.fft.fft2(first)[:, :, None] * coarse)))
    fine = jnp.concatenate([image[:, None], first], axis=1)
    small = jnp.concatenate([second[:, None], both], axis=1).reshape(
        len(planes), -1, rows // 2, columns // 2
    )
    averages = [
        jnp.einsum("ia,jb,ckab->ijck", window(height, step), window(width, step), what)
        for what, step in ((fine, 1), (small, 2))
    ]
    return jnp.concatenate(averages, axis=-1)


def _modulus(z: Complex[Array, "*any"]) -> Float[Array, "*any"]:
    return jnp.sqrt(z.real**2 + z.imag**2 + _TINY)


def _halved(z: Complex[Array, "*any h w"]) -> Complex[Array, "*any h/2 w/2"]:
    """Keeping every second sample folds the spectrum: the sum over the four periods."""
    top, bottom = jnp.split(z, 2, axis=-2)
    left, right = jnp.split(top + bottom, 2, axis=-1)
    return left + right


def mirrored() -> tuple[np.ndarray, np.ndarray]:
    """For each of the 81 channels the one its image in the mirror has; and one channel of each pair
    (45 channels).

    The mirror takes the angle pi k / L to pi - pi k / L, that is k to -k modulo L.
    """
    turned = [-k % ANGLES for k in range(ANGLES)]
    pairs = [1 + J * ANGLES + ANGLES * k + m for k in turned for m in turned]
    partner = np.array([0] + [1 + ANGLES * j + k for j in range(J) for k in turned] + pairs)
    return partner, np.flatnonzero(np.arange(CHANNELS) <= partner)


def normalized(cells: Float[Array, "a b k"], groups: int) -> Float[Array, "a b k"]:
    """Group normalization (Wu and He 2018) of one map: channels in `groups` runs, each to mean 0
    and variance 1."""
    rows, columns, channels = cells.shape
    runs = cells.reshape(rows, columns, groups, channels // groups)
    centered = runs - runs.mean((0, 1, 3), keepdims=True)
    variance = (centered * centered).mean((0, 1, 3), keepdims=True)
    return (centered / jnp.sqrt(variance + 1e-5)).reshape(cells.shape)


class Scattering(FeatureMap):
    """The logarithms of the scattering coefficients, averaged over the mirror, at the lowest
    frequencies: a unit row.

    The logarithm turns contrast and illumination into a sum, and spreads weak and strong channels
    evenly; on held-out CIFAR-10 and Fashion-MNIST images it is worth 1 to 2 points over the plain
    coefficients. The average over an image and its mirror image leaves 45 different channels of the
    81 per plane (exactly invariant for even width). Then the DCT coefficients u + v <= lowest: 15
    frequencies for 4, 45 * colors channels.
    """

    lowest: int = eqx.field(static=True)
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, colors: int, lowest: int = 4):
        _check(colors)
        self.lowest = lowest
        self.groups = (Group((lowest + 1) * (lowest + 2) // 2, len(mirrored()[1]) * colors, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        logs, turned = _logarithms(image)
        return unit(_lowest((logs + turned) / 2, self.lowest)).ravel()


class Sides(FeatureMap):
    """What `Scattering` averages away: half the difference between an image's logarithms and its
    mirror image's, of the same channels at the same frequencies, a unit row. The mirror image has
    the same row with the other sign, so that a linear score tells left from right: b from d.

    Where the difference is below all that a picture has, it is the rounding of an image that is its
    own mirror image, and the row is left shorter.
    """

    lowest: int = eqx.field(static=True)
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, colors: int, lowest: int = 4):
        self.lowest, self.groups = lowest, Scattering(colors, lowest).groups

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        logs, turned = _logarithms(image)
        return unit(_lowest((logs - turned) / 2, self.lowest), _ALIKE).ravel()


class Handed(FeatureMap):
    """`Scattering` and what its average throws away, in the proportion in which the image has them: the
    even and the odd half of the logarithms at the same frequencies, together a unit row. The mirror
    image has the same even half, and the odd half with the other sign.

    So the odd half has much of the norm where the mirror image looks different, 45 % of what varies
    between letters or digits, and little where it does not, 12 % for clothes. Scenes are as likely as their
    mirror images, so there it is large and tells nothing. doubted: it has to be shown that the odd half
    tells something (`solve/doubted.py`).
    """

    lowest: int = eqx.field(static=True)
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, colors: int, lowest: int = 4, doubted: bool = False):
        (half,) = Scattering(colors, lowest).groups
        odd = half.frequencies if doubted else 0
        self.lowest, self.groups = lowest, (Group(2 * half.frequencies, half.channels, 1.0, odd),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        logs, turned = _logarithms(image)
        halves = (_lowest(each / 2, self.lowest) for each in (logs + turned, logs - turned))
        return unit(jnp.concatenate(list(halves))).ravel()


def _logarithms(
    image: Float[Array, "h w c"],
) -> tuple[Float[Array, "a b c 45"], Float[Array, "a b c 45"]]:
    """Of the image's coefficients, and of its mirror image's: one channel of each pair."""
    partner, kept = mirrored()
    logs = jnp.log(jnp.maximum(scatter(jnp.moveaxis(at_working_size(image), -1, 0)), 0) + _QUIET)
    return logs[..., kept], logs[:, ::-1][..., partner[kept]]


def _lowest(logs: Float[Array, "a b c 45"], limit: int) -> Float[Array, "f k"]:
    return spectrum(logs.reshape(*logs.shape[:2], -1), limit)


class PlainScattering(FeatureMap):
    """All scattering coefficients, group-normalized: the features of Tramer and Boneh (2021) for a
    linear model.

    Each cell counts as one "frequency". The height and width must be told, because they decide the
    number of cells.
    """

    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, height: int, width: int, colors: int):
        _check(colors)
        rows, columns = (side >> J for side in working_size(height, width))
        self.groups = (Group(rows * columns, CHANNELS * colors, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        cells = scatter(jnp.moveaxis(at_working_size(image), -1, 0))
        return unit(normalized(cells.reshape(*cells.shape[:2], -1), 27)).ravel()


def _check(colors: int) -> None:
    check_colors(colors)
