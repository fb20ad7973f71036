"""Units of several images on the command line: sides, sums, words, refusals, resuming and audits by
unit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from pace import paced
from PIL import Image
from run_helpers import FILES, ctrl_c_after, refused, sfumato, succeeds, tree
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

from sfumato import DPImageClassifier, DPLinearClassifier, data
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.data.source import DataInfo, Source, from_arrays
from sfumato.plan import unit_batches
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig, UnitConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.privacy.ledger import Ledger
from sfumato.runs.jobs import Job, build
from sfumato.runs.progress import Quiet

KEY = SecretKey.from_insecure_seed(8)
PEOPLE, CLASSES = 30, 3
PATTERN = r"^(p\d+)_"
UNIT = ("--unit", PATTERN, "--unit-name", "patient", "--images-per-unit", 3)
FEATURES = ("--model", "scattering", "--log", "quiet")
NETWORK = ("--method", "dp-sgd", "--model", "cnn", "--steps", 3, "--physical", 5, "--log", "quiet")


def digits() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(8 x 8 pixels, classes, file names): digits of 30 people, who wrote 1 to 6 each, of all
    classes."""
    bunch, stream = load_digits(n_class=CLASSES), np.random.default_rng(1)
    counts = stream.integers(1, 7, PEOPLE)
    owners = np.repeat(np.arange(PEOPLE), counts)
    chosen = stream.choice(len(bunch.target), len(owners), replace=False)
    names = [f"p{owner:02}_{k}.png" for k, owner in enumerate(owners)]
    return np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8), bunch.target[chosen], names


PIXELS, LABELS, NAMES = digits()
OWNERS = np.array([name.split("_")[0] for name in NAMES])


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as a folder. Copy it before changing anything."""
    root = tmp_path_factory.mktemp("data") / "people"
    for pixels, label, name in zip(PIXELS, LABELS, NAMES, strict=True):
        folder = root / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return root


@pytest.fixture(scope="module")
def run(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run by DP-SGD whose units are patients. Copy it before changing anything."""
    out = tmp_path_factory.mktemp("runs") / "run"
    succeeds("train", "--data", people, *NETWORK, *UNIT, "--batch", trained(people), "--out", out)
    return out


def trained(people: Path) -> int:
    """Units on the training side."""
    found = data.describe(people, options=data.ReadOptions(unit=PATTERN)).units
    assert found is not None
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# -- sides


def test_all_images_of_a_unit_are_on_one_side_and_the_facts_count_units(people: Path) -> None:
    options = data.ReadOptions(unit=PATTERN)
    splits, facts = (
        data.open(people, validation=0.3, options=options),
        data.describe(people, validation=0.3, options=options),
    )
    sides = [splits.train, splits.validation, splits.test]
    owners = [
        set(side.owners.tolist()) for side in sides if side is not None and side.owners is not None
    ]
    assert len(owners) == 3 and all(owners)
    assert sum(map(len, owners)) == len(set.union(*owners)) == PEOPLE, (
        "nobody is on two sides, nobody is left out"
    )
    assert facts.units == splits.train.examples == len(owners[0])
    assert facts.counts == {side.split: len(side) for side in sides if side is not None}
    alone = data.open(people, validation=0.3)
    assert alone.train.owners is None and alone.train.examples == len(alone.train)


def test_nobody_changes_sides_or_images_when_a_unit_leaves(people: Path, tmp_path: Path) -> None:
    fewer = shutil.copytree(people, tmp_path / "fewer")
    options = data.ReadOptions(unit=PATTERN)
    before = data.open(people, options=options).train
    assert before.owners is not None
    gone = str(before.owners[0])
    for path in fewer.glob(f"*/{gone}_*"):
        path.unlink()
    after = data.open(fewer, options=options).train
    stay = before.owners != gone
    assert after.owners is not None and after.owners.tolist() == before.owners[stay].tolist()
    assert np.array_equal(after.raw(np.arange(len(after))), before.raw(stay))


def test_a_fingerprint_knows_whose_images_they_are() -> None:
    source = replace(from_arrays(PIXELS, LABELS), owners=OWNERS)
    others = OWNERS.copy()
    others[0] = others[-1]
    found = {
        each.fingerprint(KEY.mac)
        for each in (source, replace(source, owners=None), replace(source, owners=others))
    }
    assert len(found) == 3


# -- sums

METHODS = {
    "dp-sgd on images": MethodConfig("dp-sgd", "cnn", views=2, steps=1, physical_batch_size=7),
    "dp-sgd on features": MethodConfig("dp-sgd", "scattering", steps=1),
    "dp-fc": MethodConfig("dp-fc", "scattering"),
    "ls": MethodConfig("ls", "scattering"),
    "fc": MethodConfig("fc", "scattering", steps=2),
    "newton": MethodConfig("newton", "scattering", steps=2),
    "adam": MethodConfig("adam", "scattering", steps=2),
    "means": MethodConfig("means", "scattering"),
}
QUICK = ("dp-fc", "ls")
EACH = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in METHODS]
WHOSE = UnitConfig("owner", 4, "patient")
LONER = "z"


def grouped(most_of_last: int = 6) -> Source:
    """24 images of nine units; the last unit has up to six equal ones of full contrast."""
    stream, n = np.random.default_rng(5), 18 + most_of_last
    labels = np.arange(n) % 3
    pixels = 0.4 + 0.05 * labels[:, None, None, None] + 0.01 * stream.standard_normal((n, 8, 8, 1))
    pixels[18:], labels[18:] = np.indices((8, 8)).sum(0)[..., None] % 2, 1
    owners = np.array([*(f"u{k % 8}" for k in range(18)), *[LONER] * most_of_last])
    return replace(from_arrays(pixels.astype(np.float32), labels), owners=owners)


def plan_of(method: MethodConfig, source: Source) -> Plan:
    info = DataInfo(
        "arrays",
        "memory",
        source.class_names,
        source.shape,
        {"train": len(source)},
        units=source.examples,
    )
    batch = None if method.method not in ("dp-sgd", "adam") else source.examples
    config = TrainConfig(
        DataConfig("arrays"), PrivacyConfig(epsilon=50.0), replace(method, batch=batch), units=WHOSE
    )
    return make_plan(config, unit_batches.named(info, WHOSE))


def job(plan: Plan, source: Source) -> Job:
    return build(plan.on(source.examples), source, None, 0, KEY, Quiet())


def flat(tree: object) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("name", EACH)
def test_one_unit_with_all_its_images_moves_every_release_by_at_most_its_sensitivity(
    name: str,
) -> None:
    """As for single images in test_shipped.py; besides, how many images a unit has does not show:
    one unit of six equal images and one of a single such image make the same sum.
    """
    source, single = grouped(), grouped(1)
    assert source.examples == 9 and source.owners is not None
    plan = plan_of(METHODS[name], source)
    assert plan.n == 9 and plan.unit == "patient" and plan.images_per_unit == 4
    whole, without, one = (
        job(plan, each).procedure
        for each in (source, source.subset(source.owners != LONER, "train"), single)
    )
    state, moved = whole.start(), []
    for step in range(min(whole.steps, 3)):
        key = KEY.at(whole.name)
        total, other, same = (each.measure(state, step, key) for each in (whole, without, one))
        bound = total.sensitivity.add_or_remove
        distance = float(np.linalg.norm(flat(total.value) - flat(other.value)))
        assert distance <= bound * (1 + 1e-4), (
            f"step {step}: one unit moves the sum by {distance}, the noise is for {bound}"
        )
        moved.append(distance / bound)
        if name != "dp-sgd on images":  # there, views of the images differ
            np.testing.assert_allclose(flat(total.value), flat(same.value), atol=1e-4 * bound)
        state = whole.absorb(
            state, step, whole.mechanism(step)(total, KEY.at(f"{whole.name}/{step}"))
        )
    assert max(moved) > 0.1, "control: the unit is seen"


def test_a_plan_for_units_refuses_images_of_unknown_units() -> None:
    source = grouped()
    with pytest.raises(ArgumentError, match="--unit"):
        job(plan_of(METHODS["dp-sgd on images"], source), replace(source, owners=None))


# -- a run


@pytest.mark.slow
def test_a_run_counts_units_and_says_what_a_unit_is(run: Path, people: Path) -> None:
    plan, n = read(run / "plan.json"), trained(people)
    assert (plan["n"], plan["unit"], plan["images_per_unit"], plan["grouping"]) == (
        n,
        "patient",
        3,
        PATTERN,
    )
    assert {path.name for path in run.iterdir()} == FILES
    assert plan["settings"]["physical_batch_size"] == 5, "as given"
    assert (
        Ledger.read(run).unit
        == read(run / "model.json")["privacy"]["unit"]
        == "patient with up to 3 images"
    )
    assert "unit: patient with up to 3 images" in succeeds("account", run)
    said = succeeds("report", run).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        f"trained on {n} private patients (people), on at most 3 images of each",
        "one patient with up to 3 images is in the training set or is not",
        "once for all images of a patient",
        "of the patients that were not used",
        "Test and validation images. Accuracy",
        "training patients only",
        "Images of one patient beyond 3. They are not used at all",
        "under two names are two patients",
        "Several patients that are really one",
        f"the number of training patients ({n})",
        f"patients are told apart by {PATTERN!r}",
        "gradients of a random batch of training patients",
    ):
        assert words in said, words
    for words in ("of one person", "training images only", "The order of the"):
        assert words not in said, words
    assert "unit: one patient with up to 3 images" in (run / "model_card.md").read_text().replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "patient with up to" in (run / "report.html").read_text().replace(
        "\N{NO-BREAK SPACE}", " "
    )


@pytest.mark.slow
def test_a_run_on_features_takes_a_row_for_each_unit(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = succeeds("train", "--data", people, *FEATURES, "--validation", 0.3, *UNIT, "--out", out)
    assert "add or remove one patient with up to 3 images of the training set" in said
    facts = data.describe(people, validation=0.3, options=data.ReadOptions(unit=PATTERN))
    plan, evaluation = read(out / "plan.json"), read(out / "evaluation.json")
    assert plan["method"] == "dp-fc" and plan["n"] == facts.units != facts.counts["train"]
    assert evaluation["n"] == facts.counts["validation"], "evaluated image by image"
    assert "averaged over their images" in succeeds("report", out)
    assert f"{100 * evaluation['accuracy']:.2f} %" in succeeds(
        "evaluate", out, "--split", "validation"
    )


@pytest.mark.slow
def test_a_dry_run_names_the_unit_and_reads_no_image(people: Path, tmp_path: Path) -> None:
    hollow = shutil.copytree(people, tmp_path / "hollow")
    for path in list(hollow.rglob("*.png"))[1:]:
        path.write_bytes(b"")
    first = sorted(hollow.rglob("*.png"))[0]
    shutil.copy(next(iter(people.rglob("*.png"))), first)
    arguments = (
        "train",
        "--data",
        hollow,
        "--model",
        "scattering",
        "--method",
        "ls",
        "--dry-run",
        "--unit",
        PATTERN,
    )
    said = succeeds(*arguments)
    assert f"{trained(people)} training units (at most 8 images of each)" in said
    assert "add or remove one unit with up to 8 images" in said and "images" in said


@pytest.mark.slow
def test_resuming_gives_the_same_bits_and_refuses_another_unit(
    people: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(people, tmp_path / "photos")
    arguments = (
        "train",
        "--data",
        photos,
        *NETWORK,
        *UNIT,
        "--batch",
        trained(photos),
        "--epsilon",
        20,
        "--insecure-seed",
        3,
    )
    with ctrl_c_after(2):
        assert (
            sfumato(*arguments, "--checkpoint-seconds", 1e-6, "--out", tmp_path / "stopped").code
            == 130
        )
    succeeds(*arguments, "--out", tmp_path / "whole")
    config = tmp_path / "stopped" / "config.json"
    asked = config.read_text()
    config.write_text(json.dumps(read(config) | {"unit": r"\d+"}))
    refused(
        tmp_path, "resume", tmp_path / "stopped", says=("config.json or plan.json was changed",)
    )
    config.write_text(asked)
    owners = data.open(photos, options=data.ReadOptions(unit=PATTERN)).train.owners
    assert owners is not None
    image = next(photos.glob(f"*/{owners[0]}_*"))
    given_away = image.rename(image.with_name(image.name.replace("_", "0_")))
    refused(
        tmp_path, "resume", tmp_path / "stopped", says=("training images or secret.key changed",)
    )
    given_away.rename(image)
    succeeds("resume", tmp_path / "stopped")
    whole, resumed = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped")
    )
    for name, array in whole.items():
        assert np.array_equal(array, resumed[name])


# -- columns


@pytest.mark.slow
def test_an_array_says_whose_image_each_is(tmp_path: Path) -> None:
    split = int(np.flatnonzero(OWNERS == "p24")[0])
    parts = {
        "x_train": PIXELS[:split],
        "y_train": LABELS[:split],
        "patient_train": OWNERS[:split],
        "x_test": PIXELS[split:],
        "y_test": LABELS[split:],
        "patient_test": OWNERS[split:],
    }
    np.savez(tmp_path / "a.npz", **parts)
    out = tmp_path / "run"
    settings = ("--model", "scattering", "--method", "means", "--log", "quiet")
    succeeds("train", "--data", tmp_path / "a.npz", *settings, "--unit", "patient", "--out", out)
    assert (read(out / "plan.json")["n"], read(out / "plan.json")["images_per_unit"]) == (24, 8)
    assert "units    24 train" in succeeds("data", "info", tmp_path / "a.npz", "--unit", "patient")
    numbers = np.array([int(owner[1:]) for owner in OWNERS])
    np.savez(tmp_path / "b.npz", x_train=PIXELS, y_train=LABELS, person=numbers)
    found = data.open(tmp_path / "b.npz", options=data.ReadOptions(unit="person"))
    assert (
        found.train.owners is not None and found.test is not None and found.test.owners is not None
    )
    assert not set(found.train.owners.tolist()) & set(found.test.owners.tolist())


@pytest.mark.parametrize("kind", paced(["npz", "npy", "parquet", "safetensors"], "npz", "parquet"))
def test_rows_of_features_have_units_too(tmp_path: Path, kind: str) -> None:
    stream, n = np.random.default_rng(0), len(LABELS)
    rows, labels = stream.standard_normal((n, 5)).astype(np.float32), LABELS.astype(np.int32)
    numbers = np.array([int(owner[1:]) for owner in OWNERS])
    path = tmp_path / f"rows.{kind}"
    if kind == "npz":
        np.savez(path, X=rows, y=labels, who=OWNERS)
    elif kind == "npy":
        for ending, array in (("npy", rows), ("labels.npy", labels), ("who.npy", OWNERS)):
            np.save(tmp_path / f"rows.{ending}", array)
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {f"f{k}": rows[:, k] for k in range(5)} | {"label": labels, "who": OWNERS}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        from safetensors.numpy import save_file

        save_file({"X": rows, "y": labels, "who": numbers}, path)
    out = tmp_path / "run"
    fit = ("fit", "--features", path, "--method", "means", "--log", "quiet")
    succeeds(*fit, "--unit", "who", "--unit-name", "person", "--out", out)
    plan = read(out / "plan.json")
    assert plan["unit"] == "person" and plan["features"] == 5
    assert plan["n"] == data.describe_rows(path, 0.0, data.ReadOptions(unit="who")).units < PEOPLE
    refused(
        tmp_path,
        *fit,
        "--unit",
        "whose",
        "--out",
        tmp_path / "b",
        says=("unit='whose'", "there is no"),
    )


@pytest.mark.slow
def test_a_feature_store_keeps_units_together(people: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    succeeds(
        "features",
        "--data",
        people,
        "--model",
        "scattering",
        "--unit",
        PATTERN,
        "--out",
        store,
        "--log",
        "quiet",
    )
    owners = {split: np.load(store / f"{split}.units.npy") for split in ("train", "test")}
    assert not set(owners["train"].tolist()) & set(owners["test"].tolist())
    assert (
        sum(map(len, owners.values())) == len(OWNERS)
        and (store / "train.units.npy").stat().st_mode & 0o777 == 0o600
    )
    succeeds(
        "fit",
        "--features",
        store,
        "--method",
        "means",
        "--log",
        "quiet",
        "--unit",
        "units",
        "--out",
        tmp_path / "run",
    )
    assert read(tmp_path / "run" / "plan.json")["n"] == len(set(owners["train"].tolist()))


# -- refusals


@pytest.mark.parametrize(
    "given, says",
    [
        (("--unit", "("), ("unit='('", "not a regular expression")),
        (("--unit", r"q(\d+)"), ("matches nothing in", "p")),
        (("--unit", "(x)?"), ("matches nothing in",)),
        (("--unit", "^p"), ("puts all training images into one unit, 'p'",)),
        (("--unit", ""), ("unit=''", "regular expression")),
        (("--unit", PATTERN, "--images-per-unit", 0), ("images_per_unit=0", "at least 1")),
        (("--images-per-unit", 4), ("images_per_unit=4", "--unit")),
        (("--unit-name", "patient"), ("unit_name='patient'", "--unit")),
        (("--unit", PATTERN, "--unit-name", "a\nb"), ("unit_name=", "noun")),
        (
            ("--unit", PATTERN, "--batch", 31, "--method", "dp-sgd", "--model", "cnn"),
            ("batch=31", "training examples"),
        ),
    ],
)
def test_what_cannot_be_a_unit_is_refused_in_one_line(
    people: Path, tmp_path: Path, given: tuple[Any, ...], says: tuple[str, ...]
) -> None:
    refused(tmp_path, "train", "--data", people, "--out", tmp_path / "run", *given, says=says)


def test_columns_that_name_nobody_are_refused_in_one_line(people: Path, tmp_path: Path) -> None:
    base, numbers = (
        {"x_train": PIXELS, "y_train": LABELS},
        np.array([float(owner[1:]) for owner in OWNERS]),
    )
    gaps = np.where(numbers == 3, np.nan, numbers)
    np.savez(tmp_path / "a.npz", **base, gaps=gaps, short=numbers[:-1], same=0 * numbers)
    for unit, says in (
        ("patient", "has no array patient_train or patient (found"),
        ("gaps", "missing entries"),
        ("short", "one entry for each of"),
        ("same", "puts all training images into one unit, '0.0'"),
    ):
        to = ("--out", tmp_path / "run", "--unit", unit)
        refused(tmp_path, "train", "--data", tmp_path / "a.npz", *to, says=(says,))
    for how in (("--out", tmp_path / "run"), ("--dry-run",)):
        refused(
            tmp_path, "train", "--data", "digits", *how, "--unit", "x", says=("has no unit column",)
        )
    halves = tmp_path / "halves"
    for name in ("train", "test"):
        shutil.copytree(people, halves / name)
    refused(
        tmp_path,
        "train",
        "--data",
        halves,
        "--out",
        tmp_path / "run",
        *UNIT,
        says=("both the training and the test",),
    )


# -- audits and Python


@pytest.mark.slow
@pytest.mark.usefixtures("noise_by_name")
def test_runs_by_unit_are_audited_by_unit(run: Path, people: Path, tmp_path: Path) -> None:
    audited = shutil.copytree(run, tmp_path / "run")
    said = succeeds("audit", audited, "--size", 400, "--seed", 0, "--images", 5, "--log", "quiet")
    assert "EXCEEDS" not in said and said.count("within the claim") == 3
    assert "EXCEEDS" not in succeeds(
        "audit", audited, "--attack", "one-run", "--size", 8, "--seed", 0, "--log", "quiet"
    )
    for attack in ("blackbox", "lira"):
        before = tree(audited)
        outcome = sfumato("audit", audited, "--attack", attack)
        assert (
            outcome.code == 2
            and "tests single images" in outcome.err
            and outcome.err.count("\n") == 1
        )
        assert tree(audited) == before
    rows = tmp_path / "rows"
    succeeds("train", "--data", people, *FEATURES, "--method", "means", *UNIT, "--out", rows)
    assert "EXCEEDS" not in succeeds("audit", rows, "--size", 100, "--seed", 1, "--log", "quiet")


@pytest.mark.slow
def test_scikit_learn_groups_are_units() -> None:
    model = DPImageClassifier(epsilon=10.0, method="ls", model="scattering", images_per_group=2)
    model.fit(PIXELS, LABELS, groups=OWNERS)
    assert (
        model.plan_.n == PEOPLE
        and model.plan_.images_per_unit == 2
        and model.predict(PIXELS).shape == LABELS.shape
    )
    rows = PIXELS.reshape(len(PIXELS), -1).astype(np.float32)
    linear = DPLinearClassifier(epsilon=10.0, method="means").fit(rows, LABELS, groups=OWNERS)
    assert linear.plan_.n == PEOPLE and linear.predict(rows).shape == LABELS.shape
    with pytest.raises(ArgumentError, match="groups"):
        DPLinearClassifier().fit(rows, LABELS, sample_weight=np.ones(len(rows)), groups=OWNERS)
    with pytest.raises(ArgumentError, match="one unit"):
        DPImageClassifier(method="ls", model="scattering").fit(
            PIXELS, LABELS, groups=np.zeros(len(LABELS))
        )
