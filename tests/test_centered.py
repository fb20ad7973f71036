"""What is subtracted from all rows: the mean of pictures that nobody took, and of nothing else."""

import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from sfumato.features import by_name
from sfumato.features.centered import MEANS, Centered, public_mean
from sfumato.features.dead_leaves import dead_leaves
from sfumato.features.feature_map import Joined

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "encoder"))
from means import COUNT, PARTS, SEED, SIDE, mean

SHAPE = (SIDE, SIDE, 1)


def test_the_means_are_those_of_drawn_pictures_and_of_all_parts() -> None:
    stored = load_file(MEANS)
    assert set(stored) == {f"{part}/{colors}" for part in PARTS for colors in (1, 3)}
    for name, found in stored.items():
        part, colors = name.split("/")
        assert np.linalg.norm(found) <= 1
        if part != "patches":  # to draw these takes seconds; `test_exporting.py` does
            own = by_name.features(part, (SIDE, SIDE, int(colors)))
            assert found.shape == (own.size,)
    parts = {part for name in by_name.FEATURES for part in name.split("+") if "centered-" in name}
    own = {part.removeprefix("centered-").removesuffix(by_name.IF_SHOWN) for part in parts}
    assert own == set(PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["handed", "cells"])
def test_fewer_pictures_have_nearly_the_same_mean(part: str) -> None:
    """100 of the 1,000 pictures, whose mean differs by some of their spread over the root of 100."""
    few, all_of_them = mean(part, 1, COUNT // 10), public_mean(part, 1)
    apart = np.sum((few - all_of_them) ** 2)
    spread = 1 - np.sum(all_of_them.astype(np.float64) ** 2)  # of unit rows about their mean
    assert apart < 3 * spread / (COUNT // 10)


def test_a_row_is_what_is_left_of_its_part() -> None:
    image = dead_leaves(1, SIDE, 1, SEED + 1)[0]
    plain, got = (
        np.asarray(eqx.filter_jit(by_name.features(name, SHAPE))(image), np.float64)
        for name in ("handed", "centered-handed")
    )
    left = plain - public_mean("handed", 1)
    np.testing.assert_allclose(got, left / np.linalg.norm(left), atol=2e-5)


def test_little_of_other_pictures_is_their_mean_afterwards() -> None:
    """Of pictures of larger shapes than those that the mean is of, in other places."""
    pictures = dead_leaves(60, SIDE, 1, SEED + 1, shapes=40, radii=(8, 40))

    def share(name: str) -> float:
        each = by_name.features(name, SHAPE)
        rows = np.asarray(jax.jit(jax.vmap(lambda image: each(image)))(pictures), np.float64)
        return float(np.sum(rows.mean(0) ** 2) / np.mean(np.sum(rows**2, 1)))

    assert share("scattering") > 0.97 and share("centered-scattering") < 0.7


def test_every_centered_part_has_its_public_mean() -> None:
    for colors in (1, 3):
        own = by_name.features("centered-cells+scattering", (SIDE, SIDE, colors))
        assert isinstance(own, Joined)
        for part, name in zip(own.maps, ("cells", "scattering"), strict=True):
            assert isinstance(part, Centered)
            np.testing.assert_array_equal(part.mean, public_mean(name, colors))
