"""Units of several images: grouped whole, sampled whole, clipped once."""

import operator

import jax
import numpy as np
import optax
import pytest

from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.keys import SecretKey
from sfumato.data.units import Units, column, owners_by_pattern
from sfumato.noise import Gaussian
from sfumato.sampling import Poisson
from sfumato.train.dpsgd import DPSGD
from sfumato.train.unit_loss import unit_loss

KEY = SecretKey.from_insecure_seed(31)
RNG = np.random.default_rng(3)
OWNERS = [f"p{k}" for k in RNG.integers(0, 12, 60)]
ROWS, LABELS = (
    RNG.standard_normal((60, 4)).astype(np.float32),
    RNG.integers(0, 3, 60).astype(np.int32),
)
PARAMS = {"w": RNG.standard_normal((4, 3)).astype(np.float32)}


def entropy(params, example):
    row, label = example
    return optax.softmax_cross_entropy_with_integer_labels(row @ params["w"], label)


def flat(value):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(value)])


def test_every_image_is_in_its_own_unit_and_in_no_other():
    units = Units.of(OWNERS, most=20)
    seen = [
        int(image)
        for at, here in zip(units.images, units.present, strict=True)
        for image in at[here]
    ]
    assert sorted(seen) == list(range(60)), "nobody is left out, nobody twice"
    for name, at, here in zip(units.names, units.images, units.present, strict=True):
        assert {OWNERS[image] for image in at} == {name}, "padding comes from the unit itself"
        assert list(at[here]) == sorted(at[here])


def test_a_unit_uses_no_more_images_than_allowed_and_the_choice_concerns_itself_alone():
    units = Units.of(OWNERS, most=3)
    assert units.images.shape == (len(set(OWNERS)), 3) and units.present.sum(1).max() == 3
    kept = [k for k, owner in enumerate(OWNERS) if owner != units.names[0]]
    fewer = Units.of([OWNERS[k] for k in kept], most=3)
    again = [[kept[i] for i in at] for at in fewer.images]
    assert fewer.names == units.names[1:] and again == units.images[1:].tolist(), (
        "removing a unit changes no other"
    )


def test_the_images_used_of_a_large_unit_are_spread_over_it():
    units = Units.of(["b"] * 3 + ["a"] * 7 + ["b"], most=3)
    assert units.images.tolist() == [[3, 5, 7], [0, 1, 2]], (
        "7 images of a: places 0, 7 // 3, 14 // 3; 4 of b: 0, 1, 2"
    )
    assert Units.of(["a"] * 2 + ["b"] * 4, most=2).images.tolist() == [[0, 1], [2, 4]]


def test_units_come_from_file_names_or_a_column():
    names = ["a/p1_x.png", "b/p1_y.png", "a/p22_x.png"]
    assert owners_by_pattern(names, r"p(\d+)_") == ["1", "1", "22"]
    assert owners_by_pattern(names, r"^p\d+") == ["p1", "p1", "p22"]
    assert owners_by_pattern(["a/x.png", *names], r"p(\d+)_", every=False) == ["", "1", "1", "22"]
    assert (
        column(np.array([7, 7, 9]), 3, "c")
        == ["7", "7", "9"]
        == column(np.array([b"7", b"7", b"9"]), 3, "c")
    )
    with pytest.raises(ArgumentError, match="matches nothing in"):
        owners_by_pattern(names, "p1")
    with pytest.raises(ArgumentError, match="not a regular expression"):
        owners_by_pattern(names, "(")
    for pattern in ("(q)?", "q*"):
        with pytest.raises(
            ArgumentError, match="matches nothing in"
        ):  # an empty match names nobody
            owners_by_pattern(names, pattern)
    for values, problem in (
        (np.array([1.0, np.nan]), "1 missing entries, the first at position 1"),
        (np.array(["a", ""]), "missing entries"),
        (np.array([3, 4, 5]), "shape"),
        (np.array([1j, 2]), "complex"),
        (np.array(["a", None], object), "missing entries"),
    ):
        with pytest.raises(DataError, match=problem):
            column(values, 2, "c")
    for wrong in (lambda: Units.of([], 2), lambda: Units.of(OWNERS, 0)):
        with pytest.raises((DataError, ArgumentError)):
            wrong()


def procedure(units, rows=ROWS):
    return DPSGD(
        unit_loss(entropy),
        PARAMS,
        clip_norm=0.05,
        sampler=Poisson(1.0, 1, len(units)),
        noise=Gaussian(1.0),
        optimizer=optax.sgd(1.0),
        fetch=units.fetch(lambda at, step: (rows[at], LABELS[at])),
        physical_batch_size=5,
    )


def sum_of(made):
    return flat(made.measure(made.start(), 0, KEY).value)


def test_all_images_of_a_unit_together_move_the_sum_by_no_more_than_one_example_may():
    units = Units.of(OWNERS, most=8)
    whole = sum_of(procedure(units))
    for gone in range(len(units)):
        kept = [k for k, owner in enumerate(OWNERS) if owner != units.names[gone]]
        rows, labels = ROWS[kept], LABELS[kept]
        fewer = Units.of([OWNERS[k] for k in kept], most=8)
        made = DPSGD(
            unit_loss(entropy),
            PARAMS,
            clip_norm=0.05,
            sampler=Poisson(1.0, 1, len(fewer)),
            noise=Gaussian(1.0),
            optimizer=optax.sgd(1.0),
            fetch=fewer.fetch(lambda at, step, rows=rows, labels=labels: (rows[at], labels[at])),
            physical_batch_size=5,
        )
        moved = np.linalg.norm(whole - sum_of(made))
        assert 0.04 < moved <= 0.05 * (1 + 1e-4)
    spoiled = ROWS.copy()
    spoiled[OWNERS.index(units.names[0])] = np.nan
    assert np.linalg.norm(whole - sum_of(procedure(units, spoiled))) <= 0.05 * (1 + 1e-4), (
        "a broken image spoils its unit only"
    )


def test_the_loss_of_a_unit_is_the_mean_over_its_images_whatever_the_padding():
    units = Units.of(OWNERS, most=20)
    fetched, present = units.fetch(lambda at, step: (ROWS[at], LABELS[at]))(
        np.arange(len(units)), 0
    )
    for k in range(len(units)):
        own = [entropy(PARAMS, (ROWS[i], LABELS[i])) for i in units.images[k][units.present[k]]]
        found = unit_loss(entropy)(
            PARAMS, (jax.tree.map(operator.itemgetter(k), fetched), present[k])
        )
        assert float(found) == pytest.approx(float(np.mean(own)), rel=1e-5)


def test_mean_rows_stay_within_the_ball_and_take_the_commonest_class():
    units = Units.of(OWNERS, most=8)
    rows = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    mean, labels = units.mean_rows(rows, LABELS)
    assert mean.shape == (len(units), 4) and np.linalg.norm(mean, axis=1).max() <= 1 + 1e-6
    at = units.images[2][units.present[2]]
    np.testing.assert_allclose(mean[2], rows[at].mean(0), rtol=1e-5, atol=1e-6)
    assert labels[2] == np.bincount(LABELS[at]).argmax()
