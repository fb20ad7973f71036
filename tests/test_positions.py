"""Who has no name is known by its position: the reader says so, the report repeats it, and names
are carried along."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from run_helpers import CLASSES, refused, sfumato, succeeds, write_images

from sfumato import data
from sfumato.data.rows import open_rows
from sfumato.data.split import ReadOptions
from sfumato.plan.config import DataConfig, MethodConfig, TrainConfig
from sfumato.runs.training import plan_for

CAVEAT = "removing one means leaving its position empty"


def told(path: Path, model: str = "rows", **where: float) -> bool:
    """Whether the plan of a run on these examples carries the caveat."""
    plan = plan_for(TrainConfig(DataConfig(str(path), **where), method=MethodConfig(model=model)))  # type: ignore[arg-type]
    return any(CAVEAT in each for each in plan.not_covered)


def matrix(path: Path, with_test: bool = False) -> Path:
    """120 rows of three classes in a file of any kind."""
    rows, labels = np.eye(6, dtype=np.float32)[np.arange(120) % 6], np.arange(120) % 3
    arrays = {"x_train": rows, "y_train": labels} | (
        {"x_test": rows, "y_test": labels} if with_test else {}
    )
    if path.suffix == ".npy":
        np.save(path, rows)
        np.save(path.with_suffix(".labels.npy"), labels)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {f"f{k}": rows[:, k] for k in range(6)} | {"label": labels}
        parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".safetensors", ".parquet"])
def test_rows_in_files_are_known_by_their_position(ending: str, tmp_path: Path) -> None:
    assert told(matrix(tmp_path / f"rows{ending}"))


def test_positions_matter_only_where_some_were_chosen_by_them(tmp_path: Path) -> None:
    path = matrix(tmp_path / "rows.npz", with_test=True)
    assert not told(path) and told(path, validation=0.1) and told(path, share=0.5)


@pytest.mark.slow
def test_a_tuned_run_says_it_too(tmp_path: Path) -> None:
    run = tmp_path / "best"
    succeeds(
        "tune",
        "--features",
        matrix(tmp_path / "rows.npy"),
        "--fits",
        2,
        "--log",
        "quiet",
        "--out",
        run,
    )
    assert CAVEAT in succeeds("report", run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of each class, without a test part."""
    root = tmp_path_factory.mktemp("photos") / "photos"
    for number, name in enumerate(CLASSES[:2]):
        write_images(root / name, 40, 20 + 100 * number)
    return root


@pytest.fixture(scope="module")
def store(photos: Path) -> Path:
    out = photos.parent / "store"
    succeeds("features", "--data", photos, "--model", "scattering", "--out", out, "--log", "quiet")
    return out


@pytest.mark.slow
def test_a_store_of_a_folder_holds_out_by_the_names_of_its_files(photos: Path, store: Path) -> None:
    assert not told(photos, "scattering", validation=0.2) and not told(store, validation=0.2)
    names = store / "train.names.npy"
    assert (
        names.stat().st_mode & 0o777 == 0o600
        and "names of" in json.loads((store / "manifest.json").read_text())["private"]
    )
    splits = data.open(str(photos), validation=0.3)
    rows = open_rows(store, 0.3, ReadOptions())
    assert (
        splits.train.names is not None
        and splits.validation is not None
        and rows.validation is not None
    )
    held_out = [each.validation.names.tolist() for each in (splits, rows)]  # type: ignore[union-attr]
    assert held_out[0] == held_out[1] and len(held_out[0]) > 5
    assert rows.train.names is not None and not set(rows.train.names.tolist()) & set(held_out[0])


def test_a_run_on_a_store_tells_no_name(store: Path, tmp_path: Path) -> None:
    succeeds(
        "fit",
        "--features",
        store,
        "--validation",
        0.2,
        "--method",
        "means",
        "--out",
        tmp_path / "run",
        "--log",
        "quiet",
    )
    for file in (tmp_path / "run").iterdir():
        assert b".png" not in file.read_bytes(), file


def test_names_that_are_lost_or_exchanged_are_noticed(store: Path, tmp_path: Path) -> None:
    for harm in ("lost", "exchanged"):
        broken = tmp_path / harm
        shutil.copytree(store, broken)
        names = broken / "train.names.npy"
        if harm == "lost":
            names.unlink()
        else:
            np.save(names, np.load(names)[::-1])
        refused(
            tmp_path,
            "fit",
            "--features",
            broken,
            "--out",
            tmp_path / "run",
            says=("make the store again",),
        )


@pytest.mark.slow
def test_a_store_of_arrays_is_known_by_position(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images, y_train=np.arange(60) % 2)
    succeeds(
        "features",
        "--data",
        tmp_path / "images.npz",
        "--model",
        "scattering",
        "--out",
        tmp_path / "store",
        "--log",
        "quiet",
    )
    assert not (tmp_path / "store/train.names.npy").exists()
    assert told(tmp_path / "store", validation=0.2)


@pytest.mark.slow
def test_how_many_files_cannot_be_read_is_told_to_their_owner_alone(
    photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "data")
    for k in range(1, 4):
        (tmp_path / "data" / CLASSES[0] / f"{k}.png").write_text("no image")
    succeeds("data", "check", tmp_path / "data", "--out", tmp_path / "list", "--log", "quiet")
    outcome = sfumato(
        "train",
        "--data",
        tmp_path / "data",
        "--method",
        "means",
        "--model",
        "scattering",
        "--skip-unreadable",
        tmp_path / "list",
        "--log",
        "json",
        "--out",
        tmp_path / "run",
    )
    assert outcome.code == 0, outcome.err
    assert "3 unreadable images" in outcome.out and "skipped" not in json.loads(
        (tmp_path / "run/result.json").read_text()
    )
    assert "unreadable" not in (tmp_path / "run/report.html").read_text().replace(
        "skip unreadable", ""
    )
