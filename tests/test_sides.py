"""Left and right: which features tell them apart, which do not, and what is default when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato.features import by_name
from sfumato.features.encoder import Encoder, EncoderCells
from sfumato.features.feature_map import FeatureMap
from sfumato.features.scattering import Handed, Scattering, Sides
from sfumato.plan.choice import resolve
from sfumato.plan.config import MethodConfig
from sfumato.solve.covariance_settings import FEW, MANY, CovarianceSettings

RANDOM = np.random.default_rng(3)
IMAGE = RANDOM.random((32, 28, 3)).astype(np.float32)


def row(of: FeatureMap, image: np.ndarray | jax.Array) -> np.ndarray:
    return np.asarray(jax.jit(lambda image: of(image))(image), np.float64)


def test_the_mirror_image_has_the_same_cells_and_the_opposite_sides() -> None:
    cells, sides = EncoderCells(3), Sides(3)
    np.testing.assert_allclose(row(cells, IMAGE), row(cells, IMAGE[:, ::-1]), atol=2e-6)
    np.testing.assert_allclose(row(sides, IMAGE), -row(sides, IMAGE[:, ::-1]), atol=2e-6)
    for each in (cells, sides):
        assert 0.999 < np.linalg.norm(row(each, IMAGE)) <= 1


def test_handed_rows_are_both_halves_in_the_image_s_proportion() -> None:
    """The even half points where `Scattering` does, the odd where `Sides` does; together they are a unit
    row; the mirror image turns the odd one. Twice the contrast on one side of the picture's middle makes
    the odd half longer, not only another one."""
    got = row(Handed(3), IMAGE)
    even, odd = np.split(got, 2)
    for half, own in ((even, Scattering(3)), (odd, Sides(3))):
        np.testing.assert_allclose(half / np.linalg.norm(half), row(own, IMAGE), atol=5e-5)
    np.testing.assert_allclose(
        row(Handed(3), IMAGE[:, ::-1]), np.concatenate([even, -odd]), atol=2e-6
    )
    assert 0.999 < np.linalg.norm(got) <= 1
    uneven = np.where(np.arange(28)[:, None] < 14, IMAGE, 0.5 + (IMAGE - 0.5) / 8)
    assert np.linalg.norm(row(Handed(3), uneven)[len(even) :]) > 2 * np.linalg.norm(odd)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_an_image_that_is_its_own_mirror_image_has_no_sides(shape: tuple[int, int, int]) -> None:
    """Not even those of rounding, which differ between machines."""
    image = RANDOM.random(shape).astype(np.float32)
    for symmetric in (image + image[:, ::-1], np.ones(shape, np.float32), np.zeros(shape)):
        symmetric = np.float32(symmetric / 2)
        assert np.linalg.norm(row(Sides(shape[2]), symmetric)) < 0.05


def test_cells_against_sums_written_out() -> None:
    """A frequency of a channel of the last stage, from the maps of the network."""
    each = EncoderCells(1)
    image = jnp.asarray(IMAGE[:28, :, :1])
    last = np.asarray(jax.jit(lambda image: each.both(image)[-1])(image), np.float64)
    span = last.shape[1]
    width = span * 3 / 7
    starts = [0, (span - width) / 2, span - width]
    overlap = np.array(
        [[max(min(i + 1, s + width) - max(i, s), 0) / width for i in range(span)] for s in starts]
    )
    cells = np.sqrt(np.einsum("ua,vb,nabk->nuvk", overlap, overlap, last)).mean(0)
    plain = cells.sum((0, 1)) / 3
    wave = np.array([1, -2, 1]) / np.sqrt(6)
    got = row(each, image).reshape(4, -1)[:, -last.shape[-1] :]
    across = np.einsum("uvk,v->k", cells, wave) / np.sqrt(3)
    assert np.corrcoef(got[0], plain)[0, 1] > 0.999999
    alive = plain > 1e-3
    assert alive.sum() > 50
    np.testing.assert_allclose(
        got[2, alive] / got[0, alive], across[alive] / plain[alive], atol=1e-3
    )


def test_old_and_new_names_share_one_network_and_differ_in_rows() -> None:
    old, new = Encoder(3), EncoderCells(3)
    assert all(np.array_equal(old.kernels[name], new.kernels[name]) for name in old.kernels)
    assert (old.size, new.size) == (2 * 448, 4 * 448)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if "patches" in name else [])
        for name in sorted(by_name.SHARES)
    ],
)
def test_joined_maps_lie_in_the_order_of_their_name(name: str) -> None:
    shape = (28, 28, 1)
    parts = [by_name.features(part, shape) for part in name.split("+")]
    joined = by_name.features(name, shape)
    centered = by_name.CENTERED + name
    if centered in by_name.MAPS:
        assert by_name.features(centered, shape).groups == joined.groups
    weights = [group.weight for group in joined.groups]
    assert np.allclose(weights, by_name.SHARES[name]) and sum(weights) == pytest.approx(1)
    assert [group.size for group in joined.groups] == [part.size for part in parts]
    assert name in by_name.MAPS or by_name.CENTERED + name in by_name.MAPS


def test_joined_maps_keep_to_their_shares() -> None:
    """What the second moments' sensitivity, the root of the sum of squared shares, rests on."""
    joined = by_name.features("centered-cells+handed", IMAGE.shape)
    got, start = row(joined, IMAGE), 0
    for group in joined.groups:
        squared = float(np.sum(got[start : start + group.size] ** 2))
        assert squared <= group.weight, f"{squared}: its group may have {group.weight}"
        start += group.size
    assert start == len(got)


@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("n", [1, FEW - 1, FEW, MANY - 1, MANY, 10**7])
def test_the_default_goes_by_color_and_how_many_images_there_are(n: int, colors: int) -> None:
    shape = (28, 28, colors)
    method, model, trains = resolve(MethodConfig(), n, shape)
    assert (method, trains) == ("dp-fc", None)
    assert model == CovarianceSettings.default_model(n, shape) and model in by_name.FEATURES
    assert ("patches" in model) == (n >= MANY)
    assert ("handed" in model) == (n >= FEW or colors == 1)
    assert model.endswith("-if-shown") == (n >= FEW and colors == 3)
    assert ("+" in model) == (n >= FEW or colors == 1)
    assert resolve(MethodConfig("dp-sgd"), n, shape)[1] == "cnn"
