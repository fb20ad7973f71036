"""Examples of NaN and infinity: refused or told before anything is paid, by whichever door they
come."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_helpers import refused, sfumato, succeeds

from sfumato.cli import one_line
from sfumato.core.errors import DataError
from sfumato.data import finite
from sfumato.data.source import Source, Splits, from_arrays

N, D = 90, 6
LABELS = np.arange(N) % 3
ROWS = (9 * np.eye(D)[LABELS] + np.random.default_rng(0).normal(size=(N, D))).astype(np.float32)
SPOILED = {"NaN": np.nan, "infinity": np.inf, "too large": 1e300}
DOORS = {
    "fit": ("fit", "--method", "means", "--features"),
    "train": ("train", "--model", "rows", "--method", "sgd", "--data"),
    "tune": ("tune", "--method", "means", "--features"),
    "sweep": ("sweep", "--method", "means", "--epsilon", "8", "--features"),
}


def write(path: Path, rows: np.ndarray, shown: np.ndarray = ROWS) -> Path:
    np.savez(path, x_train=rows, y_train=LABELS, x_test=shown, y_test=LABELS)
    return path


def with_column(value: float, first: int = N) -> np.ndarray:
    """Column 4 of the first rows is `value`."""
    rows = ROWS.astype(np.float64)
    rows[:first, 4] = value
    return rows


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("value", SPOILED)
def test_rows_that_say_nothing_are_refused_before_anything_is_written(
    value: str, door: str, tmp_path: Path
) -> None:
    source = write(tmp_path / "sales.npz", with_column(SPOILED[value]))
    said = refused(
        tmp_path,
        *DOORS[door],
        source,
        "--out",
        tmp_path / "run",
        says=("sales", "count as nothing"),
    )
    assert "column 4" in said or value == "too large"
    assert "90 of 90 training rows" in said or (
        door == "tune" and "training rows" in said
    )  # which holds some out


@pytest.mark.parametrize("door", ["fit", "tune", "sweep"])
def test_a_few_are_told_and_so_are_those_that_are_predicted(door: str, tmp_path: Path) -> None:
    source = write(tmp_path / "rows.npz", with_column(np.nan, 2), with_column(np.inf))
    told = succeeds(*DOORS[door], source, "--log", "json", "--out", tmp_path / "run")
    said = [
        line["warning"]
        for line in map(json.loads, filter(lambda line: line.startswith("{"), told.splitlines()))
        if "warning" in line
    ]
    assert (
        "training rows hold NaN or infinity, the first at" in said[0]
        and "count as nothing" in said[0]
    )
    assert door == "tune" or "90 of 90 test rows" in said[1]
    if door == "fit":
        np.save(tmp_path / "more.npy", np.full((3, D), np.nan, np.float32))
        with pytest.warns(UserWarning, match="3 of 3 rows") as warned:
            sfumato("predict", tmp_path / "run", tmp_path / "more.npy")
        said = one_line(warned[0].message, UserWarning, warned[0].filename, warned[0].lineno)
        assert said.startswith("sfumato: warning: 3 of 3 rows hold NaN") and said.count("\n") == 1


def test_images_of_floats_go_through_the_same_door(tmp_path: Path) -> None:
    images = np.full((N, 8, 8), np.nan, np.float32)
    np.savez(tmp_path / "images.npz", x_train=images, y_train=LABELS, x_test=images, y_test=LABELS)
    refused(
        tmp_path,
        "train",
        "--data",
        tmp_path / "images.npz",
        "--model",
        "scattering",
        "--out",
        tmp_path / "run",
        says=("90 of 90 training images",),
    )


def splits(train: Source) -> Splits:
    return Splits(train, None, None)


def test_what_is_a_number_in_every_row_is_said_nothing_of() -> None:
    constant = np.hstack([ROWS, np.zeros((N, 1)), np.full((N, 1), 1e30)])
    assert not finite.of_rows(constant) and not finite.of_rows(constant.astype(np.float32))
    assert finite.checked(splits(from_arrays(np.zeros((N, 8, 8), np.uint8), LABELS)), None) == ()


@pytest.mark.parametrize(("first", "most"), [(45, False), (46, True)])
def test_the_line_is_at_half_of_the_examples(first: int, most: bool) -> None:
    images = np.zeros((N, 8, 8))
    images[:first, 3, 3] = np.nan
    source = from_arrays(images, LABELS)
    assert finite.of_rows(with_column(np.nan, first)).most is most is finite.of_source(source).most
    if most:
        with pytest.raises(DataError, match=r"46 of 90 training images .* the first at 0"):
            finite.checked(splits(source), None)
    else:
        assert "45 of 90 training images" in finite.checked(splits(source), None)[0]


def test_public_rows_past_float32_are_left_out() -> None:
    from sfumato.solve.public_rows import public_sphere

    public = np.vstack([ROWS.astype(np.float64), np.full((1, D), 1e300)])
    np.testing.assert_array_equal(
        public_sphere(public, 3).shift, public_sphere(public[:-1], 3).shift
    )


def test_one_image_spoils_its_unit() -> None:
    images = np.zeros((N, 8, 8))
    images[::3, 0, 0] = np.inf
    source = replace(
        from_arrays(images, LABELS), owners=np.array([f"patient {k // 3}" for k in range(N)])
    )
    with pytest.raises(DataError, match="30 of 30 training units"):
        finite.checked(splits(source), None)


@pytest.mark.slow
def test_a_large_delta_is_told_by_tune_and_sweep(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.npz", ROWS)
    for door in ("tune", "sweep"):
        told = succeeds(
            *DOORS[door], source, "--delta", "0.01", "--log", "quiet", "--out", tmp_path / door
        )
        assert told.count("warning   delta=0.01") == 1
        told = succeeds(
            *DOORS[door], source, "--log", "quiet", "--out", tmp_path / f"{door} by default"
        )
        assert "warning   delta" not in told
