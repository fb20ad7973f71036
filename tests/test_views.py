"""Views are functions of (key, step, index, view) alone: neither the other examples of a batch nor a
resumed run change them."""

import jax
import numpy as np
import pytest
from scipy import stats

from sfumato.augment.shift import Shift
from sfumato.augment.views import ITSELF, Views
from sfumato.core.keys import SecretKey

RNG = np.random.default_rng(0)
IMAGES = RNG.random((40, 9, 7, 3), np.float32)
INDICES = RNG.permutation(1000)[:40]


def words_of(key):
    return lambda name, step, at, count: key.words(("views", step, *name), at, count)


def views_of(count, shift=4, flip=True, seed=0):
    """(images, indices, step) -> views, drawn on the host, made in a program."""

    def made(images, indices, step):
        shape = images.shape[1:]
        own = (Shift(shape, shape[:2], shift, flip),) if count else ()
        views = Views(words_of(SecretKey.from_insecure_seed(seed)), count, own)
        return np.asarray(jax.jit(jax.vmap(views))(images, views.draws(indices, step)))

    return made


def as_before(images, indices, step, count, shift, flip, seed=0):
    """The views as NumPy makes them: the oracle of what the program makes."""
    words = SecretKey.from_insecure_seed(seed).words(("views", step), indices, count)
    span = np.uint64(2 * shift + 1)
    down = (words % np.uint64(2**32) % span).astype(np.int64) - shift
    right = (words // np.uint64(2**32) % np.uint64(2**31) % span).astype(np.int64) - shift
    columns = np.arange(images.shape[2])
    turned = ((words >= np.uint64(2**63)) & flip)[..., None]
    columns = np.where(turned, columns[::-1], columns) + right[..., None]
    rows = np.arange(images.shape[1]) + down[..., None]
    rows, columns = (
        folded(at, size) for at, size in zip((rows, columns), images.shape[1:3], strict=True)
    )
    example = np.arange(len(images))[:, None, None, None]
    return images[example, rows[:, :, :, None], columns[:, :, None, :]]


def folded(position, size):
    """Positions outside are mirrored at the border pixels."""
    period = max(2 * (size - 1), 1)
    position = np.abs(position) % period
    return np.where(position >= size, period - position, position)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("shape, shift", [((9, 7, 3), 4), ((5, 4, 1), 1), ((3, 12, 3), 6)])
def test_views_in_the_program_have_the_pixels_of_those_on_the_host(shape, shift, kind):
    images = (255 * np.random.default_rng(1).random((6, *shape))).astype(kind)
    for flip in (True, False):
        found = views_of(5, shift, flip)(images, np.arange(6) * 7, 3)
        assert found.dtype == kind
        assert np.array_equal(found, as_before(images, np.arange(6) * 7, 3, 5, shift, flip))


def test_a_view_depends_on_key_step_index_and_number_only():
    views = views_of(3, 2, seed=5)
    whole = views(IMAGES, INDICES, 7)
    assert np.array_equal(whole, views_of(3, 2, seed=5)(IMAGES, INDICES, 7))
    order = np.random.default_rng(1).permutation(40)
    assert np.array_equal(views(IMAGES[order], INDICES[order], 7), whole[order])
    for size in (1, 7, 13):
        parts = [views(IMAGES[i : i + size], INDICES[i : i + size], 7) for i in range(0, 40, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(views_of(2, 2, seed=5)(IMAGES, INDICES, 7), whole[:, :2])


@pytest.mark.parametrize("seed, step, shift_indices", [(6, 7, 0), (5, 8, 0), (5, 7, 1)])
def test_another_key_step_or_index_gives_other_views(seed, step, shift_indices):
    """False alarms: 1e-9: 30 of 120 where 2.4 are expected."""
    one = views_of(3, 2, seed=5)(IMAGES, INDICES, 7)
    two = views_of(3, 2, seed=seed)(IMAGES, INDICES + shift_indices, step)
    same = (one == two).all((2, 3, 4)).mean()
    assert same < 0.25  # 50 equally likely views: 2 % of 120 agree by chance


def test_the_contents_of_an_image_do_not_choose_its_view():
    ramp = np.broadcast_to(np.arange(63.0, dtype=np.float32).reshape(1, 9, 7, 1), (40, 9, 7, 1))
    one = views_of(4, 2)(ramp, INDICES, 3)
    two = views_of(4, 2)(-5 * ramp, INDICES, 3)
    assert np.array_equal(-5 * one, two)


def test_no_views_means_the_image_itself():
    assert np.array_equal(views_of(0)(IMAGES, INDICES, 3), IMAGES[:, None])
    assert np.array_equal(
        ITSELF(jax.numpy.asarray(IMAGES[0]), ITSELF.draws(INDICES, 3)), IMAGES[:1]
    )
    assert np.array_equal(views_of(1, shift=0, flip=False)(IMAGES, INDICES, 3), IMAGES[:, None])


@pytest.mark.parametrize("count, shape", [(1, (5, 4)), (4, (28, 28)), (16, (3, 50))])
def test_shapes_and_pixels_are_those_of_the_image(count, shape):
    images = np.random.default_rng(0).random((6, *shape, 1), np.float32)
    out = views_of(count, shift=4)(images, np.arange(6), 0)
    assert out.shape == (6, count, *shape, 1)
    assert out.dtype == np.float32
    for image, own in zip(images, out, strict=True):
        assert np.isin(own, image).all()


def offsets(count=500, shift=3, flip=True):
    """The shift down, the shift right and the flip of each view, read off an image that spells out
    its coordinates."""
    size = 15
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    image = np.stack([rows, columns], -1).astype(np.float32)
    out = views_of(count, shift, flip)(np.stack([image] * 4), np.arange(4), 0)[
        :, :, 7, 6:9
    ].reshape(-1, 3, 2)
    flipped = out[:, 2, 1] < out[:, 0, 1]
    right = np.where(flipped, 7 - out[:, 1, 1], out[:, 1, 1] - 7)
    return out[:, 1, 0] - 7, right, flipped


def test_shifts_fill_their_range_evenly_and_half_the_views_are_flipped():
    down, right, flipped = offsets()
    for values in (down, right):
        found, counts = np.unique(values, return_counts=True)
        assert found.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert stats.chisquare(counts).pvalue > 1e-6
    assert stats.binomtest(int(flipped.sum()), len(flipped)).pvalue > 1e-6
    table = np.stack([down, right, flipped]).astype(float)
    assert np.abs(np.corrcoef(table)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(len(down))
    assert not offsets(flip=False)[2].any()
    assert set(offsets(shift=0)[0]) == {0}


def test_views_of_one_example_differ_from_each_other():
    down, right, flipped = offsets(count=16)
    assert len(set(zip(down[:16], right[:16], flipped[:16], strict=True))) > 10


def test_shifts_are_independent_across_steps_examples_and_neighbors():
    """What one example is shifted by says nothing of another's, of the next one's, or of its own in
    the next step. 6 standard deviations of a correlation: a false alarm in 1e-8."""
    key, at = SecretKey.from_insecure_seed(3), np.arange(3000)
    words = np.stack([key.words(("views", step), at, 2) for step in range(3)])
    draws = np.concatenate([words % 9, (words >> np.uint64(32)) % 9, words >> np.uint64(63)], 2)
    columns = np.moveaxis(draws, 1, -1).reshape(-1, 3000).astype(float)
    moved = np.concatenate([columns[:, 1:], columns[:, :-1]])
    for table in (columns, moved):
        assert np.abs(np.corrcoef(table)[np.triu_indices(len(table), 1)]).max() < 6 / np.sqrt(2999)


def test_words_are_the_generators_own_and_of_places_far_apart():
    """A place's words are those of the stream itself, further on: no generator of our own."""
    key = SecretKey.from_insecure_seed(4)
    few = key.words(("a", 1), np.array([5, 0, 2**31]), 6)
    assert np.array_equal(few[1], key.stream("a", 1).bit_generator.random_raw(6))
    later = key.stream("a", 1).bit_generator
    later.advance(5 << 32)
    assert np.array_equal(few[0], later.random_raw(6))
    assert len(np.unique(key.words(("a", 1), np.arange(2000), 8))) == 16_000
    assert key.words(("a", 1), np.array([], int), 6).shape == (0, 6)
