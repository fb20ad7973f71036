"""A `Source` in memory, and the rule that splits one."""

import subprocess
import sys

import numpy as np
import pytest
from data_helpers import labeled_images
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import ArgumentError, DataError, SfumatoError
from sfumato.core.keys import SecretKey
from sfumato.data import ReadOptions, from_arrays
from sfumato.data.split import held_out, partition


def test_pixels_are_scaled_once_and_labels_are_int32() -> None:
    images, labels = labeled_images(12, (5, 4, 3), 3)
    source = from_arrays(images, labels)
    assert (len(source), source.shape, source.class_names) == (12, (5, 4, 3), ("0", "1", "2"))
    assert source.labels.dtype == np.int32
    np.testing.assert_array_equal(source.raw([3, 1, 3]), images[[3, 1, 3]])
    got = source.images(np.arange(12))
    assert got.dtype == np.float32 and got.min() >= 0 and got.max() <= 1
    np.testing.assert_allclose(got, images / 255, atol=1e-7)
    assert source.images([]).shape == (0, 5, 4, 3)
    mask = labels == 1
    np.testing.assert_array_equal(source.raw(mask), images[mask])


def test_gray_images_gain_a_channel_and_floats_pass_with_their_nan() -> None:
    images = np.full((4, 3, 3), 0.25)
    images[2, 1, 1] = np.nan
    source = from_arrays(images, [0, 1, 0, 1])
    assert source.shape == (3, 3, 1)
    got = source.images([0, 2])
    assert np.isnan(got[1, 1, 1, 0]) and np.isnan(got).sum() == 1 and got[0].max() == 0.25


def test_string_labels_are_sorted_or_follow_class_names() -> None:
    images, _ = labeled_images(3, (2, 2), 2)
    source = from_arrays(images, ["dog", "cat", "dog"])
    assert source.class_names == ("cat", "dog") and source.labels.tolist() == [1, 0, 1]
    ordered = from_arrays(
        images, np.array(["dog", "cat", "dog"], object), class_names=["dog", "eel", "cat"]
    )
    assert ordered.labels.tolist() == [0, 2, 0]


def test_a_subset_of_a_subset_keeps_images_with_their_labels() -> None:
    images, labels = labeled_images(20, (2, 2, 1), 4)
    part = from_arrays(images, labels).subset([19, 3, 5, 7], "validation").subset([2, 0], "test")
    assert part.split == "test" and part.labels.tolist() == labels[[5, 19]].tolist()
    np.testing.assert_array_equal(part.raw([0, 1]), images[[5, 19]])


@pytest.mark.parametrize(
    ("images", "labels", "names", "says"),
    [
        (np.zeros((4, 2)), [0, 1, 0, 1], None, "images"),
        (np.zeros((4, 2, 2, 2)), [0, 1, 0, 1], None, "c = 1 or 3"),
        (np.zeros((4, 2, 2), np.int64), [0, 1, 0, 1], None, "uint8"),
        (np.zeros((4, 2, 2)), [0, 1, 0], None, "3 labels for 4 images"),
        (np.zeros((4, 2, 2)), [0, -1, 0, 1], ["a", "b"], "labels=-1"),
        (np.zeros((4, 2, 2)), [0, 9, 0, 1], ["a", "b"], "labels=9"),
        (np.zeros((4, 2, 2)), [0.0, 0.5, 0, 1], None, "labels=0.5: Unknown label type"),
        (np.zeros((2, 2, 2)), ["a", "c"], ["a", "b"], "'c'"),
        (np.zeros((2, 2, 2)), [0, 1], ["a", "a"], "once"),
        (np.zeros((2, 2, 2)), [0, 0], None, "only one class"),
        (np.zeros((0, 2, 2)), [], None, "there are none"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(images, labels, names, says: str) -> None:
    with pytest.raises(SfumatoError) as caught:
        from_arrays(images, labels, names)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [[4], [-1], [0.5], [[0]], np.array([True])])
def test_indices_outside_the_split_are_refused(indices) -> None:
    with pytest.raises(ArgumentError, match="indices"):
        from_arrays(np.zeros((4, 2, 2)), [0, 1, 0, 1]).images(indices)


def test_the_fingerprint_sees_every_pixel_label_and_name_and_needs_the_key() -> None:
    images, labels = labeled_images(1030, (2, 2), 2)  # more than one chunk
    key = SecretKey.from_insecure_seed(1)
    base = from_arrays(images, labels).fingerprint(key.mac)
    assert from_arrays(images.copy(), labels).fingerprint(key.mac) == base
    pixel, label = images.copy(), labels.copy()
    pixel[1029, 1, 1] ^= 1
    label[7] ^= 1
    others = [
        from_arrays(pixel, labels).fingerprint(key.mac),
        from_arrays(images, label).fingerprint(key.mac),
        from_arrays(images, labels, ["x", "y"]).fingerprint(key.mac),
        from_arrays(images[:-1], labels[:-1]).fingerprint(key.mac),
        from_arrays(images, labels).fingerprint(SecretKey.from_insecure_seed(2).mac),
    ]
    assert len({base, *others}) == 6


names_of_files = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=30, unique=True)


@settings(max_examples=60, deadline=None)
@given(
    names=names_of_files,
    extra=st.text(min_size=1),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 5),
)
def test_nobody_changes_sides_when_another_joins_or_leaves(names, extra, fraction, seed) -> None:
    def sides(of: list[str]) -> dict[str, tuple[bool, bool]]:
        test, validation = (
            held_out(of, fraction, seed, purpose).tolist() for purpose in ("test", "validation")
        )
        return dict(zip(of, zip(test, validation, strict=True), strict=True))

    before, joined = sides(names), sides([extra, *names])
    assert all(joined[name] == before[name] for name in names)
    left = sides(names[1:])
    assert all(left[name] == before[name] for name in names[1:])


def test_the_share_held_out_is_the_one_asked_for_and_purposes_are_independent() -> None:
    names = [str(k) for k in range(40_000)]
    test, validation = held_out(names, 0.2, 0, "test"), held_out(names, 0.25, 0, "validation")
    # Standard errors: 0.0020 and 0.0022; their product 0.05 has 0.0011. Five of them.
    assert abs(test.mean() - 0.2) < 0.01 and abs(validation.mean() - 0.25) < 0.011
    assert abs((test & validation).mean() - 0.05) < 0.0055
    assert (held_out(names, 0.2, 1, "test") != test).any()
    assert not held_out(names, 0.0, 0, "test").any()
    assert (test <= held_out(names, 0.3, 0, "test")).all()  # a larger share only adds


def test_partition_covers_everyone_exactly_once() -> None:
    names = [str(k) for k in range(1000)]
    sides = partition(names, False, 0.1, ReadOptions())
    assert list(sides) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(sides.values())).tolist()) == list(range(1000))
    assert list(partition(names, True, 0.0, ReadOptions())) == ["train"]
    # Splitting validation off leaves the test side as it was.
    np.testing.assert_array_equal(
        sides["test"], partition(names, False, 0.0, ReadOptions())["test"]
    )


def test_an_empty_side_and_bad_options_are_refused() -> None:
    with pytest.raises(ArgumentError, match="too few"):
        partition(["a", "b"], False, 0.0, ReadOptions(test_fraction=1e-9))
    for options in ({"resize": 0}, {"test_fraction": 1.0}, {"test_fraction": float("nan")}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            ReadOptions(**options)
    with pytest.raises(DataError, match="only one class"):
        from_arrays(np.zeros((2, 2, 2)), ["a", "a"])


def test_neither_jax_nor_pillow_is_imported_by_the_room() -> None:
    check = "import sys, sfumato.data; sys.exit(bool({'jax', 'PIL', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
