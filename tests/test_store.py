"""Feature rows in files: the store that `sfumato features` writes, matrices that users have, and
`sfumato fit` on them."""

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from pace import paced
from run_helpers import CLASSES, FILES, ctrl_c_after, refused, sfumato, succeeds
from safetensors.numpy import load_file, save_file

from sfumato import data
from sfumato.core.errors import DataError
from sfumato.data.split import ReadOptions
from sfumato.privacy.ledger import Ledger

CHEAP = ("--model", "scattering", "--gray", "--log", "quiet")


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("store") / "feats"
    told = succeeds("features", "--data", folder, *CHEAP, "--out", out)
    assert "as private as the images" in told
    return out


def copy(store: Path, to: Path) -> Path:
    to.mkdir()
    for file in store.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def toy(n: int = 300, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    labels = stream.integers(classes, size=n)
    return (3 * np.eye(6)[labels] + stream.normal(size=(n, 6))).astype(np.float32), labels


def opened(path: Path) -> data.Splits:
    return data.open_rows(path, 0.0, ReadOptions())


# -- the store


def test_a_store_holds_the_rows_privately_and_says_so(store: Path, folder: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    assert "as private as the images" in manifest["private"] and manifest["dtype"] == "float16"
    assert manifest["classes"] == sorted(CLASSES) or set(manifest["classes"]) == set(CLASSES)
    assert len(manifest["map_hash"]) == 64 and manifest["counts"] == {"train": 24, "test": 12}
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in store.glob("*.npy"))
    rows = np.load(store / "train.features.npy")
    assert rows.shape == (24, manifest["features"]) and np.all(
        np.linalg.norm(rows.astype(float), axis=1) < 1.001
    )
    splits = opened(store)
    assert splits.test is not None and isinstance(splits.train.rows, np.memmap)
    np.testing.assert_array_equal(splits.train.labels, data.open(folder).train.labels)


def test_a_stopped_store_is_continued_to_the_same_bytes(
    store: Path, folder: Path, tmp_path: Path
) -> None:
    half = copy(store, tmp_path / "half")
    manifest = json.loads((half / "manifest.json").read_text())
    manifest["digests"] = {}
    (half / "manifest.json").write_text(json.dumps(manifest))
    rows = np.load(half / "train.features.npy", mmap_mode="r+")
    rows[10:] = 0
    rows.flush()
    (half / "progress.json").write_text(json.dumps({"train": 10}))
    (half / "test.features.npy").unlink()
    with pytest.raises(DataError, match="not complete"):
        opened(half)
    succeeds("features", "--data", folder, *CHEAP, "--out", half)
    for name in ("train.features.npy", "test.features.npy", "manifest.json"):
        assert (half / name).read_bytes() == (store / name).read_bytes()
    assert not (half / "progress.json").exists()


@pytest.mark.parametrize(
    "harm", ["rows cut short", "another shape", "[1]", '{"train": 9999}', '{"train": -5}']
)
def test_what_cannot_be_resumed_is_made_again(
    harm: str, store: Path, folder: Path, tmp_path: Path
) -> None:
    """NumPy would fill a file that is cut short with zeros, which would then be signed as features."""
    half = copy(store, tmp_path / "half")
    manifest = json.loads((half / "manifest.json").read_text())
    manifest["digests"] = {}
    (half / "manifest.json").write_text(json.dumps(manifest))
    file, progress = half / "train.features.npy", json.dumps({"train": 20})
    match harm:
        case "rows cut short":
            os.truncate(file, file.stat().st_size // 2)
        case "another shape":
            np.save(file, np.load(file)[:22])
        case _:
            np.save(file, np.zeros_like(np.load(file)))
            progress = harm
    (half / "progress.json").write_text(progress)
    succeeds("features", "--data", folder, *CHEAP, "--out", half)
    for name in ("train.features.npy", "manifest.json"):
        assert (half / name).read_bytes() == (store / name).read_bytes()


def test_a_full_disk_is_told_before_a_map_is_written_and_the_same_command_goes_on(
    store: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a memory map it would kill the process."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        outcome = sfumato("features", "--data", folder, *CHEAP, "--out", tmp_path / "new")
    assert outcome.code == 2 and "No space left" in outcome.err and outcome.err.count("\n") == 1
    succeeds("features", "--data", folder, *CHEAP, "--out", tmp_path / "new")
    for name in ("train.features.npy", "test.features.npy", "manifest.json"):
        assert (tmp_path / "new" / name).read_bytes() == (store / name).read_bytes()


def test_another_store_is_not_overwritten(store: Path, folder: Path, tmp_path: Path) -> None:
    refused(
        store,
        "features",
        "--data",
        folder,
        *CHEAP,
        "--dtype",
        "float32",
        "--out",
        store,
        says=("dtype", "--out"),
    )
    (tmp_path / "other").mkdir()
    refused(
        tmp_path,
        "features",
        "--data",
        folder,
        *CHEAP,
        "--out",
        tmp_path / "other",
        says=("not a feature store",),
    )
    refused(
        tmp_path,
        "features",
        "--data",
        folder,
        "--model",
        "cnn",
        "--out",
        tmp_path / "new",
        says=("model='cnn'",),
    )


@pytest.mark.parametrize(
    "damage",
    ["truncated", "foreign rows", "foreign labels", "manifest", "no labels", "no manifest"],
)
def test_damage_is_found(store: Path, tmp_path: Path, damage: str) -> None:
    spoiled = copy(store, tmp_path / "spoiled")
    rows, labels = spoiled / "train.features.npy", spoiled / "train.labels.npy"
    match damage:
        case "truncated":
            rows.write_bytes(rows.read_bytes()[:-7])
        case "foreign rows":
            np.save(rows, np.zeros_like(np.load(rows)))
        case "foreign labels":
            np.save(labels, np.roll(np.load(labels), 1))
        case "manifest":
            text = json.loads((spoiled / "manifest.json").read_text())
            (spoiled / "manifest.json").write_text(
                json.dumps(text | {"features": text["features"] + 1})
            )
        case "no labels":
            labels.unlink()
        case "no manifest":
            (spoiled / "manifest.json").unlink()
    refused(spoiled, "fit", "--features", spoiled, "--out", spoiled / "run", says=(str(spoiled),))


# -- fit


@pytest.mark.slow
def test_fit_makes_a_run_directory_like_train(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeeds(
        "fit", "--features", store, "--method", "ls", "--epsilon", 8, "--out", run, "--log", "quiet"
    )
    assert {file.name for file in run.iterdir()} == FILES
    plan = json.loads((run / "plan.json").read_text())
    assert plan["method"] == "ls" and plan["features"] == plan["shape"][2]
    spent = Ledger.read(run).epsilon()
    assert 7.9 < spent <= 8.0
    assert json.loads((run / "evaluation.json").read_text())["n"] == 12
    assert all(np.isfinite(array).all() for array in load_file(run / "model.safetensors").values())
    before = (run / "evaluation.json").read_bytes()
    succeeds("evaluate", run)
    assert (run / "evaluation.json").read_bytes() == before
    statement = succeeds("report", run)
    assert (
        "as they were given" in statement
        and "number of features" in statement
        and "How the features were" in statement
    )
    (tmp_path / "a.png").write_bytes(b"")
    refused(tmp_path, "predict", run, tmp_path / "a.png", says=("no feature rows", ".npz"))


@pytest.mark.slow
def test_rows_are_predicted_from_files_without_labels(tmp_path: Path) -> None:
    rows, labels = toy()
    np.savez(tmp_path / "toy.npz", X=rows, y=labels)
    succeeds(
        "fit",
        "--features",
        tmp_path / "toy.npz",
        "--method",
        "ls",
        "--epsilon",
        8,
        "--out",
        tmp_path / "run",
        "--log",
        "quiet",
    )
    np.save(tmp_path / "new.npy", rows[:150].astype(np.float16))
    np.savez(tmp_path / "new.npz", x_test=rows[:150])
    lines = [
        line.split("\t")
        for line in succeeds("predict", tmp_path / "run", tmp_path / "new.npy").splitlines()
    ]
    assert [int(line[1]) for line in lines] == list(range(150)) and lines[0][0].endswith("new.npy")
    assert (
        np.mean([int(line[2]) == label for line, label in zip(lines, labels[:150], strict=True)])
        > 0.8
    )
    told = [
        json.loads(line)
        for line in succeeds(
            "predict", tmp_path / "run", tmp_path / "new.npz", "--json"
        ).splitlines()
    ]
    assert [each["class"] for each in told] == [line[2] for line in lines] and told[7]["row"] == 7
    np.save(tmp_path / "wide.npy", np.zeros((2, 7)))
    refused(
        tmp_path,
        "predict",
        tmp_path / "run",
        tmp_path / "wide.npy",
        says=("rows of 7 features", "needs 6"),
    )
    np.save(tmp_path / "whole.npy", np.zeros((2, 6), int))
    refused(
        tmp_path,
        "predict",
        tmp_path / "run",
        tmp_path / "whole.npy",
        says=("n rows of d floats", "int64"),
    )


def test_rows_of_a_store_are_predicted(store: Path, tmp_path: Path) -> None:
    succeeds(
        "fit",
        "--features",
        store,
        "--method",
        "means",
        "--epsilon",
        8,
        "--out",
        tmp_path / "run",
        "--log",
        "quiet",
    )
    assert len(succeeds("predict", tmp_path / "run", store).splitlines()) == 12


# -- public rows


@pytest.fixture
def with_public(tmp_path: Path) -> Path:
    """toy.npz, its rows turned into a common direction, and public.npy of the same kind without
    labels."""
    rows, labels = toy()
    np.savez(tmp_path / "toy.npz", X=rows + 5, y=labels)
    np.save(
        tmp_path / "public.npy",
        (5 + 2 * np.random.default_rng(1).normal(size=(90, 6))).astype(np.float32),
    )
    return tmp_path


@pytest.mark.slow
def test_public_rows_are_stated_and_make_the_classifier(with_public: Path) -> None:
    run, fit = (
        with_public / "run",
        ("fit", "--features", with_public / "toy.npz", "--epsilon", 8, "--log", "quiet"),
    )
    succeeds(*fit, "--public", with_public / "public.npy", "--rooted", "--out", run)
    plan = json.loads((run / "plan.json").read_text())
    assert plan["rooted"] and plan["public"]["count"] == 90 and plan["public"]["directions"] == 6
    for file in ("report.html", "model_card.md"):
        assert (
            "90 public examples" in (run / file).read_text()
            and plan["public"]["sha256"][:16] in (run / file).read_text()
        )
    assert str(with_public) not in (run / "report.html").read_text()
    found = json.loads((run / "evaluation.json").read_text())["accuracy"]
    assert found > 0.8
    succeeds("evaluate", run)  # the saved model has the public map and the roots
    assert json.loads((run / "evaluation.json").read_text())["accuracy"] == found
    for method in ("fc,ls", "means"):
        succeeds(
            "sweep",
            "--features",
            with_public / "toy.npz",
            "--public",
            with_public / "public.npy",
            "--epsilon",
            "8",
            "--method",
            method,
            "--out",
            with_public / method,
            "--log",
            "quiet",
        )
    succeeds(
        "tune",
        "--features",
        with_public / "toy.npz",
        "--public",
        with_public / "public.npy",
        "--rooted",
        "--fits",
        2,
        "--epsilon",
        8,
        "--out",
        with_public / "best",
        "--log",
        "quiet",
    )
    assert "90 public examples" in succeeds("report", with_public / "best")


def test_public_rows_that_do_not_fit_are_refused(with_public: Path) -> None:
    fit = ("fit", "--features", with_public / "toy.npz", "--out", with_public / "run")
    np.save(with_public / "wide.npy", np.zeros((5, 9)))
    np.save(with_public / "bad.npy", np.full((5, 6), np.nan))
    refused(
        with_public,
        *fit,
        "--public",
        with_public / "wide.npy",
        says=("public=", "9 features", "have 6"),
    )
    refused(
        with_public, *fit, "--public", with_public / "bad.npy", says=("public=", "0 usable rows")
    )
    refused(
        with_public,
        *fit,
        "--public",
        with_public / "missing.npy",
        says=("missing.npy", "no feature rows"),
    )
    refused(
        with_public,
        "train",
        "--data",
        "digits",
        "--method",
        "dp-fc",
        "--rooted",
        "--out",
        with_public / "run",
        says=("rooted=True", "dp-fc"),
    )
    refused(with_public, *fit, "--method", "fc", "--per-class", says=("per_class=True", "fc"))


def test_a_resumed_run_refuses_public_rows_that_changed(
    with_public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfumato.runs.recorder import Recorder

    def press_ctrl_c(self: Recorder, done: int, state: object) -> None:
        raise KeyboardInterrupt

    run = with_public / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "after_step", press_ctrl_c)
        assert (
            sfumato(
                "fit",
                "--features",
                with_public / "toy.npz",
                "--public",
                with_public / "public.npy",
                "--log",
                "quiet",
                "--out",
                run,
            ).code
            == 130
        )
    public = np.load(with_public / "public.npy")
    np.save(with_public / "public.npy", public + 1)
    assert (
        "changed since the run was planned" in sfumato("resume", run).err
        and not (run / "result.json").exists()
    )
    np.save(with_public / "public.npy", public)
    succeeds("resume", run)


@pytest.mark.slow
def test_a_stopped_fit_resumes_to_the_same_bits(tmp_path: Path) -> None:

    rows, labels = toy()
    np.savez(tmp_path / "toy.npz", X=rows, y=labels)
    command = (
        "fit",
        "--features",
        tmp_path / "toy.npz",
        "--method",
        "fc",
        "--epsilon",
        4,
        "--log",
        "quiet",
        "--checkpoint-seconds",
        1e-6,
        "--insecure-seed",
        3,
    )
    succeeds(*command, "--out", tmp_path / "whole")
    with ctrl_c_after(7):
        assert sfumato(*command, "--out", tmp_path / "stopped").code == 130
    succeeds("resume", tmp_path / "stopped")
    assert (tmp_path / "stopped/model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    "method",
    paced(["ls", "ls --per-class", "newton", "sgd", "adam", "lamb", "means"], "newton", "sgd"),
)
def test_every_method_fits_from_the_command_line(tmp_path: Path, method: str) -> None:
    """Margin: 19 standard deviations."""
    rows, labels = toy()
    np.savez(
        tmp_path / "toy.npz",
        x_train=rows[:200],
        y_train=labels[:200],
        x_test=rows[200:],
        y_test=labels[200:],
    )
    told = succeeds(
        "fit",
        "--features",
        tmp_path / "toy.npz",
        "--method",
        *method.split(),
        "--epsilon",
        8,
        "--log",
        "quiet",
        "--out",
        tmp_path / "run",
    )
    assert json.loads((tmp_path / "run/evaluation.json").read_text())["accuracy"] > 0.6, told


@pytest.mark.slow
def test_one_go_from_images_with_poisson_batches(folder: Path, tmp_path: Path) -> None:
    succeeds(
        "train",
        "--data",
        folder,
        "--method",
        "sgd",
        "--model",
        "scattering",
        "--batch",
        12,
        "--gray",
        "--steps",
        1,
        "--epsilon",
        1,
        "--log",
        "quiet",
        "--out",
        tmp_path / "run",
    )
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["sampler"] == {"kind": "Poisson", "rate": 0.5, "expected_batch_size": 12}
    assert Ledger.read(tmp_path / "run").releases == 2


def test_a_vanishing_epsilon_is_told(tmp_path: Path) -> None:
    rows, labels = toy()
    np.savez(tmp_path / "toy.npz", X=rows, y=labels)
    fit = (
        "fit",
        "--features",
        tmp_path / "toy.npz",
        "--method",
        "means",
        "--log",
        "quiet",
        "--out",
        tmp_path / "run",
    )
    assert "little better than chance" in succeeds(*fit, "--epsilon", 0.01)
    assert "little better than chance" in succeeds(*fit, "--epsilon", 0.01, "--dry-run")
    assert "warning" not in succeeds(*fit, "--epsilon", 8, "--dry-run")


def test_wrong_settings_for_fit_are_named(tmp_path: Path) -> None:
    rows, labels = toy()
    np.savez(tmp_path / "toy.npz", X=rows, y=labels)
    fit = ("fit", "--features", tmp_path / "toy.npz", "--out", tmp_path / "run")
    refused(tmp_path, *fit, "--method", "dp-fc", says=("--method dp-fc", "newton"))
    refused(tmp_path, *fit, "--method", "ls", "--steps", 3, says=("steps=3", "ls"))
    refused(tmp_path, *fit, "--method", "sgd", "--batch", 3000, says=("batch=3000", "n="))
    refused(
        tmp_path,
        "train",
        "--data",
        "digits",
        "--method",
        "fc",
        "--model",
        "cnn",
        "--out",
        tmp_path / "run",
        says=("model='cnn'", "scattering"),
    )


# -- matrices that users have


def write(kind: str, path: Path, rows: np.ndarray, labels: np.ndarray) -> Path:
    file = path / f"toy.{kind}"
    match kind:
        case "npy":
            np.save(file, rows)
            np.save(path / "toy.labels.npy", labels)
        case "npz":
            np.savez(file, X=rows, y=labels)
        case "safetensors":
            save_file({"X": rows, "y": labels}, file)
        case "parquet":
            pyarrow = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            columns = {f"f{k}": rows[:, k] for k in range(rows.shape[1])} | {"label": labels}
            parquet.write_table(pyarrow.table(columns), file)
    return file


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors", "parquet"])
def test_matrices_of_users_are_read(kind: str, tmp_path: Path) -> None:
    rows, labels = toy()
    splits = data.open_rows(
        write(kind, tmp_path, rows, labels), 0.0, ReadOptions(test_fraction=0.0)
    )
    np.testing.assert_allclose(splits.train.images(np.arange(5))[:, 0, 0], rows[:5])
    np.testing.assert_array_equal(splits.train.labels, labels)
    assert splits.train.class_names == ("0", "1", "2")


def test_parquet_without_its_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        opened(tmp_path / "a.parquet")


def test_strings_name_their_classes_and_halves_stay_halves(tmp_path: Path) -> None:
    rows, labels = toy()
    np.savez(tmp_path / "a.npz", X=rows.astype(np.float16), y=np.array(["x", "y", "z"])[labels])
    train = data.open_rows(tmp_path / "a.npz", 0.0, ReadOptions(test_fraction=0.0)).train
    assert (
        train.class_names == ("x", "y", "z")
        and train.rows is not None
        and train.rows.dtype == np.float16
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"X": np.zeros((4, 2, 2))}, "n rows"),
        ({"X": np.zeros((4, 2), int)}, "floats"),
        ({"y": np.zeros(3, int)}, "one label"),
        ({"y": np.zeros(4, int)}, "only one class"),
        ({"y": np.full(4, 2**63, np.uint64)}, "only one class"),
        ({"y": np.array([0.5, 1, 1, 2])}, "y=0.5.*whole numbers or strings"),
        ({"y": None}, "has no y"),
        ({"X": None}, "has no X"),
        ({"X_test": np.eye(2)}, "X_test would not be read"),
        ({"y_test": np.arange(4)}, "y_test would not be read"),
    ],
)
def test_unusable_matrices_are_refused(change: dict, says: str, tmp_path: Path) -> None:
    arrays = {"X": np.zeros((4, 2)), "y": np.array([0, 1, 0, 1])} | change
    np.savez(
        tmp_path / "a.npz", **{name: array for name, array in arrays.items() if array is not None}
    )
    with pytest.raises(DataError, match=says):
        opened(tmp_path / "a.npz")
    for name in ("missing.npy", "missing", "a.txt"):
        with pytest.raises(DataError, match="features="):
            opened(tmp_path / name)


# -- sweep


def test_a_sweep_draws_the_curve_and_pays_for_every_point(tmp_path: Path) -> None:
    rows, labels = toy()
    np.savez(tmp_path / "toy.npz", X=rows, y=labels)
    told = succeeds(
        "sweep",
        "--features",
        tmp_path / "toy.npz",
        "--epsilon",
        "1,8",
        "--method",
        "ls,means",
        "--repeats",
        2,
        "--out",
        tmp_path / "curve",
        "--log",
        "quiet",
    )
    found = json.loads((tmp_path / "curve/sweep.json").read_text())
    assert (tmp_path / "curve/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64" in (tmp_path / "curve/sweep.html").read_text()
    assert [len(point["accuracies"]) for point in found["points"]] == [2] * 4
    assert 8 < found["spent"]["epsilon"] == Ledger.read(tmp_path / "curve").epsilon()
    assert "ε = 1 " in told and "Without privacy" in told and found["without_privacy"] > 0.8
    refused(
        tmp_path,
        "sweep",
        "--features",
        tmp_path / "toy.npz",
        "--epsilon",
        "1,x",
        "--out",
        tmp_path / "b",
        says=("1,x",),
    )
    refused(tmp_path, "sweep", "--out", tmp_path / "b", says=("--features or --data",))
    refused(
        tmp_path,
        "sweep",
        "--data",
        "digits",
        "--method",
        "svm",
        "--out",
        tmp_path / "b",
        says=("method='svm'",),
    )
