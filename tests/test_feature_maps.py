"""The free feature maps: shapes, the norm privacy relies on, symmetry, and a slow independent
scattering."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pace import paced

from sfumato.core.errors import ArgumentError
from sfumato.features.centered import Centered, public_mean
from sfumato.features.dead_leaves import dead_leaves
from sfumato.features.encoder import Encoder
from sfumato.features.feature_map import (
    Joined,
    at_working_size,
    cosines,
    low_frequencies,
    spectrum,
    working_size,
)
from sfumato.features.patches import Patches, windows
from sfumato.features.scattering import (
    Handed,
    PlainScattering,
    Scattering,
    bank,
    frequencies,
    mirrored,
    padded,
    scatter,
    window,
)

KINDS = ["patches", "scattering", "handed", "centered", "joined", "plain", "encoder"]


@pytest.fixture(scope="module")
def patches():
    return {colors: Patches(colors, filters=16, pictures=30) for colors in (1, 3)}


def build(kind, colors, patches, size=(32, 32)):
    if kind == "encoder":
        return Encoder(colors)
    if kind == "patches":
        return patches[colors]
    if kind == "scattering":
        return Scattering(colors)
    if kind == "handed":
        return Handed(colors)
    if kind == "centered":
        return Centered(Scattering(colors), public_mean("scattering", colors))
    if kind == "plain":
        return PlainScattering(*size, colors)
    return Joined((patches[colors], Scattering(colors)), (0.6, 0.4))


@eqx.filter_jit
def row_of(each, image):
    return each(image)


fast_scatter = jax.jit(scatter)


def pictures(shape, seed=0):
    random = np.random.default_rng(seed)
    speckled = random.random(shape) < 0.02
    return np.stack([random.random(shape), np.zeros(shape), np.ones(shape), speckled]).astype(
        np.float32
    )


@pytest.mark.parametrize("colors", paced([1, 3], 3))
@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_promised_shape_and_norm(kind, colors, patches):
    each = build(kind, colors, patches)
    rows = np.asarray(jax.jit(jax.vmap(lambda image: each(image)))(pictures((32, 32, colors))))
    assert rows.shape == (4, each.size) and rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (np.linalg.norm(rows.astype(np.float64), axis=1) <= 1).all()
    assert sum(group.weight for group in each.groups) == pytest.approx(1)
    start = 0
    for group in each.groups:
        part = rows[:, start : start + group.size].astype(np.float64)
        assert (np.sum(part**2, axis=1) <= group.weight).all()
        assert np.sum(part[0] ** 2) == pytest.approx(group.weight, rel=1e-3)
        start += group.size


@pytest.mark.parametrize(
    "size", [(8, 8), *(pytest.param(size, marks=pytest.mark.slow) for size in ((29, 31), (64, 48)))]
)
def test_any_size_of_at_least_eight_pixels(size, patches):
    for kind in ("joined", "plain"):
        each = build(kind, 1, patches, size)
        row = row_of(each, pictures((*size, 1))[0])
        assert row.shape == (each.size,) and np.isfinite(row).all()
    assert (
        working_size(28, 28) == (28, 28)
        and working_size(8, 8) == (32, 32)
        and working_size(64, 48) == (42, 32)
    )
    with pytest.raises(ArgumentError):
        working_size(7, 32)


@pytest.mark.parametrize(
    "size",
    [(28, 28), *(pytest.param(size, marks=pytest.mark.slow) for size in ((32, 32), (8, 12)))],
)
@pytest.mark.parametrize("kind", ["patches", "scattering", "centered", "encoder"])
def test_a_mirrored_image_has_the_same_row(kind, size, patches):
    each, image = build(kind, 3, patches), pictures((*size, 3))[0]
    np.testing.assert_allclose(row_of(each, image), row_of(each, image[:, ::-1]), atol=2e-6)


def test_a_seed_fixes_the_filters():
    first, again, other = (Patches(1, 8, seed=seed, pictures=10) for seed in (1, 1, 2))
    assert np.array_equal(first.weights, again.weights) and not np.array_equal(
        first.weights, other.weights
    )
    leaves = [leaf for leaf in jax.tree.leaves(first) if eqx.is_array(leaf)]
    assert len(leaves) == 3, "a saved model must carry its filters"


def test_dead_leaves_are_pictures():
    few = dead_leaves(3, 32, 3, seed=4)
    assert few.shape == (3, 32, 32, 3) and few.min() >= 0 and few.max() <= 1 and few.std() > 0.1


def test_wrong_arguments_are_refused():
    with pytest.raises(ArgumentError):
        Scattering(2)
    with pytest.raises(ArgumentError):
        Patches(4, 8)
    with pytest.raises(ArgumentError):
        Joined((Scattering(1),), (0.5,))


def test_patches_against_the_definition(patches):
    each, image = patches[3], pictures((32, 32, 3))[0].astype(np.float64)
    response = np.zeros((14, 14, 32))
    weights = np.asarray(each.weights, np.float64).reshape(-1, 32)
    for a in range(14):
        for b in range(14):
            patch = image[2 * a : 2 * a + 6, 2 * b : 2 * b + 6].ravel()
            patch = patch - patch.mean()
            response[a, b] = (
                patch / np.sqrt((patch**2).mean() + 10 / 255**2) @ weights - each.offset
            )
    active = np.maximum(
        np.concatenate([response - each.threshold, -response - each.threshold], -1), 0
    )
    cells = np.stack(
        [
            [active[4 * i : 4 * i + 6, 4 * j : 4 * j + 6].mean((0, 1)) for j in range(3)]
            for i in range(3)
        ]
    )
    positive, positive_mirror, negative, negative_mirror = np.split(cells, 4, axis=-1)
    expected = (
        np.concatenate(
            [positive + positive_mirror[:, ::-1], negative + negative_mirror[:, ::-1]], -1
        )
        / 2
    )
    np.testing.assert_allclose(each.pooled(jnp.asarray(image, jnp.float32)), expected, atol=1e-4)


@pytest.mark.parametrize("length", [11, 12, 14, 15])
def test_windows_are_symmetric_means(length):
    rows = windows(length)
    np.testing.assert_allclose(rows.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(rows, rows[::-1, ::-1], atol=1e-7)
    if length == 14:
        np.testing.assert_allclose(rows[1], [0] * 4 + [1 / 6] * 6 + [0] * 4, atol=1e-7)


def test_the_lowest_frequencies_are_an_orthonormal_part_of_the_cosine_transform():
    for cells in (3, 7, 8):
        np.testing.assert_allclose(
            cosines(cells, cells) @ cosines(cells, cells).T, np.eye(cells), atol=1e-6
        )
    assert low_frequencies(2) == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)]
    cells = jnp.asarray(np.random.default_rng(0).random((7, 8, 5)), jnp.float32)
    assert np.sum(np.asarray(spectrum(cells, 4)) ** 2) <= np.sum(np.asarray(cells) ** 2)
    np.testing.assert_allclose(spectrum(cells, 2)[0], cells.mean((0, 1)) * np.sqrt(56), rtol=1e-5)


# -- scattering
# -------------------------------------------------------------------------------------------------


def slow_wave(size, scale, angle, at):
    """A Morlet wavelet in space, wrapped around `size`; its transform has a peak of 1."""
    spread, peak = 0.8 * 2**scale, 0.75 * np.pi / 2**scale
    waves = []
    for a in range(-3, 4):
        for b in range(-3, 4):
            y, x = np.meshgrid(at + a * size, at + b * size, indexing="ij")
            along, across = (
                np.cos(angle) * x + np.sin(angle) * y,
                np.cos(angle) * y - np.sin(angle) * x,
            )
            envelope = np.exp(-(along**2 + (across / 2) ** 2) / (2 * spread**2))
            waves.append((envelope, envelope * np.exp(1j * peak * along)))
    envelope, carrier = sum(each[0] for each in waves), sum(each[1] for each in waves)
    return (carrier - envelope * carrier.sum() / envelope.sum()) / (2 * np.pi * spread**2 * 2)


def circular(image, wave):
    """Plain circular convolution, position by position."""
    size = len(image)
    out = np.zeros((size, size), complex)
    for a in range(size):
        for b in range(size):
            out += image[a, b] * np.roll(wave, (a, b), (0, 1))
    return out


def test_scattering_against_sums_in_space():
    size = 12
    image = np.random.default_rng(1).random((size, size))
    framed = np.pad(image, 4, mode="symmetric")
    full = len(framed)
    got = np.asarray(fast_scatter(jnp.asarray(image[None], jnp.float32)))[:, :, 0]
    # The factor that keeps the bank non-expansive is read off the bank; its other tests are below.
    offsets = (np.arange(full) + full // 2) % full - full // 2
    plain = slow_wave(full, 0, 0.0, offsets)
    factor = bank(full, full)[0, 0].max() / np.fft.fft2(plain).real.max()

    def wave(scale, k):
        # Positions half a pixel on: exact for a wave whose spectrum ends below the Nyquist
        # frequency, nearly so here.
        return factor * slow_wave(full, scale, np.pi * k / 8, offsets + (0.5 if scale else 0.0))

    def averaged(what, step):
        weights = window(size, step)
        return weights @ what[::step, ::step] @ weights.T

    np.testing.assert_allclose(got[..., 0], averaged(framed, 1), atol=1e-5)
    for k in (0, 1, 6):
        first = np.abs(circular(framed, wave(0, k)))
        np.testing.assert_allclose(got[..., 1 + k], averaged(first, 1), atol=1e-4)
        np.testing.assert_allclose(
            got[..., 9 + k], averaged(np.abs(circular(framed, wave(1, k))), 2), atol=1e-3
        )
        for m in (0, 3):
            second = np.abs(circular(first, wave(1, m)))
            np.testing.assert_allclose(got[..., 17 + 8 * k + m], averaged(second, 2), atol=1e-3)


@pytest.mark.parametrize("size", [36, 40, 52])
def test_the_bank_adds_no_energy(size):
    waves = bank(size, size)
    assert np.abs(waves[:, :, 0, 0]).max() < 1e-9, "a wavelet has mean 0"
    opposite = np.roll(waves[:, :, ::-1, ::-1], 1, axis=(2, 3))
    low = np.exp(-((frequencies(size, size) * 1.6) ** 2).sum(-1))
    total = low + (waves**2 + opposite**2).sum((0, 1)) / 2
    assert total.max() <= 1 + 1e-9 and total.max() > 0.99


def test_scattering_brings_images_no_further_apart():
    random = np.random.default_rng(2)
    one, other = random.random((2, 3, 32, 32)).astype(np.float32)
    step = 4  # a coefficient stands for 4 x 4 pixels
    apart = step * np.linalg.norm(fast_scatter(jnp.asarray(one)) - fast_scatter(jnp.asarray(other)))
    framed = np.pad(one - other, ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    assert apart <= np.linalg.norm(framed)


def test_mirroring_permutes_the_channels():
    image = jnp.asarray(pictures((28, 32, 1))[0][..., 0][None])
    partner, kept = mirrored()
    assert len(kept) == 45 and np.array_equal(partner[partner], np.arange(81))
    np.testing.assert_allclose(
        fast_scatter(image[:, :, ::-1]), fast_scatter(image)[:, ::-1][..., partner], atol=1e-5
    )


def test_resizing_is_left_to_images_that_need_it():
    image = pictures((30, 30, 1))[0]
    assert at_working_size(jnp.asarray(image)).shape == (30, 30, 1) and padded(30) == 38
