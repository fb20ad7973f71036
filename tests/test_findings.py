"""Several findings an image: how they are read, what one row can do, what is measured, from the command
line to a served model."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pace import paced
from PIL import Image
from run_helpers import sfumato, succeeds
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import sfumato as sf
from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError, SfumatoError
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import MULTI, SINGLE, Task
from sfumato.data import ReadOptions, from_arrays
from sfumato.data.source import DataInfo, Source
from sfumato.data.units import Units
from sfumato.features.heads import Sphere
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.privacy.ledger import Ledger
from sfumato.report.facts import RunFacts
from sfumato.runs.jobs import build
from sfumato.runs.progress import Quiet
from sfumato.solve.fc import FeatureCovariance
from sfumato.solve.labeled_rows import Rows
from sfumato.solve.linear_settings import HEADS, linear_rule
from sfumato.solve.quadratic import Balance, gradient, least_clip, quadratic
from sfumato.solve.statistics import softmax_gradient
from sfumato.train.finding_metrics import auc_interval, measure_findings

N, D, L = 30, 5, 3
KEY = SecretKey.from_insecure_seed(9)
STREAM = np.random.default_rng(0)
ROWS = STREAM.normal(size=(N, D)).astype(np.float32)
KNOWN = (ROWS[:, :L] > 0).astype(np.int32)
LABELS = np.where(STREAM.random((N, L)) < 0.2, -1, KNOWN).astype(np.int32)
NOTHING = np.full(L, -1, np.int32)
EXTRA = [np.array(each, np.int32) for each in ([1] * L, [0] * L, [1, 0, 1], [1, -1, -1])] + [
    NOTHING
]
ABSURD = [np.full(D, np.nan), np.full(D, np.inf), np.full(D, 3e38), np.zeros(D), -5 * np.eye(D)[0]]


def flat(tree: object) -> np.ndarray:
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)]
    )


# -- what one row can do


def unit(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)).astype(
            np.float32
        )


def method(name: str, rows: np.ndarray, labels: np.ndarray) -> Any:
    """As if n were public and N."""
    if name == "dp-fc":
        return FeatureCovariance(unit(rows) if len(rows) == N else rows, labels, L, mu=3.0)
    from sfumato.solve.linear import solver

    ruled = linear_rule(name, N, D, L, 3.0, MULTI)
    return solver(Rows(rows, labels, L), Sphere.plain(D), ruled, ruled.releases(3.0))


@pytest.mark.parametrize("name", paced([*HEADS, "dp-fc"], "ls", "newton", "adam", "dp-fc"))
def test_one_row_with_all_its_findings_moves_every_release_by_at_most_its_sensitivity(
    name: str,
) -> None:
    """Over the registry of heads, at states of a run, for rows and findings made to hurt; and a row of
    which nothing is known moves no gradient."""
    whole = method(name, ROWS, LABELS)
    state, base = whole.start(), unit(ROWS) if name == "dp-fc" else ROWS
    for step in range(min(whole.steps, 4)):
        without, far = whole.measure(state, step, KEY), 0.0
        rows = [*ABSURD, *STREAM.normal(size=(2, D))]
        for extra in [unit(row[None])[0] for row in rows] if name == "dp-fc" else rows:
            for label in EXTRA:
                more = method(
                    name, np.vstack([base, extra]).astype(np.float32), np.vstack([LABELS, label])
                )
                moved = flat(more.measure(state, step, KEY).value) - flat(without.value)
                far = max(far, float(np.linalg.norm(moved)))
                if whole.event(step) == whole.event(whole.steps - 1) and step > 1:
                    assert label is not NOTHING or not moved.any(), "what is not known is counted"
        bound = without.sensitivity.add_or_remove
        assert far <= bound * (1 + 1e-4), "a row moves more than the noise is for"
        noise = whole.mechanism(step)(without, KEY.at(f"{name}/{step}"))
        state = whole.absorb(state, step, noise)


@pytest.mark.parametrize("kind", ["gradient", "shared"])
def test_the_worst_findings_reach_the_bound_and_do_not_pass_it(kind: str) -> None:
    """Row, weights and findings are found by optimization: all columns together have one bound."""
    balance = Balance(0.4, least_clip(L, MULTI))
    sums: dict[str, Callable[[Rows, Any], Any]] = {
        "gradient": lambda rows, weight: gradient(rows, Sphere.plain(D), weight, 0.9),
        "shared": lambda rows, weight: quadratic(rows, Sphere.plain(D), weight, balance),
    }
    best = 0.0

    def attack(label: np.ndarray, numbers: np.ndarray) -> float:
        nonlocal best
        weight = jnp.asarray(numbers[D:].reshape(D + 1, L), jnp.float32)
        rows = Rows(numbers[None, :D].astype(np.float32), label[None], L)
        total = sums[kind](rows, weight)
        best = max(best, float(np.linalg.norm(flat(total.value))) / total.sensitivity.add_or_remove)
        return -best

    for k, label in enumerate(EXTRA[:3]):
        start = np.random.default_rng(k).normal(size=D + (D + 1) * L) * 0.3
        minimize(partial(attack, label), start, method="Powell", options={"maxfev": 150})
        zero = np.concatenate([start[:D], np.zeros((D + 1) * L)])
        attack(label, zero)
    assert 0.97 < best <= 1 + 1e-5


def test_the_fast_gradient_is_that_of_the_loss_example_by_example() -> None:
    weight = jnp.asarray(STREAM.normal(size=(D + 1, L)), jnp.float32)
    rows, mask = jnp.asarray(unit(ROWS)), jnp.arange(N) % 7 > 0

    def loss(params: Any, example: Any) -> Any:
        row, label = example
        long = jnp.append(row * (1 - MULTI.intercept**2) ** 0.5, MULTI.intercept)
        return MULTI.loss(long @ params["weight"], label)

    for normalized in (False, True):
        slow = clipped_grad(loss, 0.3, normalized=normalized)
        fast = softmax_gradient(0.3, normalized, MULTI)
        batch = (rows, jnp.asarray(LABELS))
        one, two = (each({"weight": weight}, batch, mask) for each in (fast, slow))
        assert np.allclose(flat(one.value), flat(two.value), atol=1e-5)
        assert one.sensitivity == two.sensitivity


@pytest.mark.parametrize("task", [SINGLE, MULTI])
def test_a_task_agrees_with_itself(task: Task) -> None:
    """Its error is the gradient of its loss, its bounds hold, its answers go there and back."""
    scores = STREAM.normal(size=(N, L)).astype(np.float32)
    labels = LABELS if task is MULTI else LABELS[:, 0] % L
    one = jax.vmap(jax.grad(lambda each, label: task.loss(each[None], label).sum()))(scores, labels)
    chances = np.asarray(task.chances(jnp.asarray(scores)))
    assert np.allclose(one, task.error(chances, labels), atol=1e-6)
    flat_error = task.error(jnp.full((1, L), task.flat_chance(L)), labels)
    assert np.linalg.norm(flat_error, axis=1).max() <= task.flat_norm(L) + 1e-6
    omega = np.asarray(task.curvature(chances, labels))
    assert omega.shape == (N, 1) and omega.min() >= 0 and omega.max() <= 1
    assert np.array_equal(task.called(scores), task.decided(chances))
    assert np.allclose(task.called(task.scores(chances)), task.decided(chances))
    assert Task.from_json(task.to_json()) is task
    assert task.fits(labels, L) and task.fits(task.random(STREAM, 9, L), L)


def source(labels: np.ndarray = LABELS, n: int = N) -> Source:
    pixels = np.random.default_rng(3).random((N, 8, 8, 1)).astype(np.float32)
    return from_arrays(pixels[:n], labels[:n], ("a", "b", "c"))


def plan_of(config: MethodConfig, given: Source) -> Any:
    counts = {"train": len(given), "test": 5}
    info = DataInfo("arrays", "memory", given.class_names, given.shape, counts, task=given.task)
    return make_plan(TrainConfig(DataConfig("arrays"), PrivacyConfig(epsilon=50.0), config), info)


NETWORK = MethodConfig("dp-sgd", "cnn", steps=2, batch=N, physical_batch_size=16, views=0)
ON_ROWS = MethodConfig("dp-sgd", "scattering", steps=2, batch=N)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(NETWORK, marks=pytest.mark.slow, id="network"),
        pytest.param(ON_ROWS, id="features"),
    ],
)
def test_dp_sgd_clips_all_findings_as_one_and_leaves_out_the_unknown(config: MethodConfig) -> None:
    """With an image whose findings are all there, with one of which nothing is known, and without it."""
    labels = {
        "there": np.vstack([LABELS[:-1], [[1] * L]]),
        "unknown": np.vstack([LABELS[:-1], NOTHING[None]]),
    }
    plan = plan_of(config, source())

    def total(given: Source) -> Any:
        job = build(plan.on(len(given)), given, given, 0, KEY, Quiet())
        assert job.scores is not None and job.confusion is not None
        state = job.procedure.start()
        assert job.scores(state).shape == (len(given), L)
        assert job.confusion(state).shape == (L, 2, 2)
        return job.procedure.measure(state, 0, KEY)

    without = total(source(n=N - 1))
    far = {
        name: flat(total(source(each)).value) - flat(without.value) for name, each in labels.items()
    }
    assert 0.1 < np.linalg.norm(far["there"]) <= without.sensitivity.add_or_remove * (1 + 1e-4)
    assert np.allclose(far["unknown"], 0, atol=1e-6), "what is not known is counted"


def test_a_units_findings_are_its_own_majority_and_settings_for_classes_are_refused() -> None:
    units = Units.of(["a", "a", "b", "b"], 2)
    labels = np.array([[1, 0, -1], [0, 0, -1], [1, -1, -1], [-1, 0, 1]], np.int32)
    _, found = units.mean_rows(np.eye(4, dtype=np.float32), labels)
    assert found.tolist() == [[1, 0, -1], [1, 0, 1]]
    for name in ("ls", "newton"):
        with pytest.raises(ArgumentError, match="per_class=True: is for images of one class"):
            sf.linear_head(ROWS, LABELS, name, per_class=True)(1.0)  # type: ignore[operator]
    with pytest.raises(ArgumentError, match="per_class"):
        plan_of(MethodConfig("ls", "scattering", per_class=True), source())
    with pytest.raises(ArgumentError, match="columns of 0, 1 and -1"):
        Rows(ROWS, LABELS + 1, L)


def test_findings_are_in_the_fingerprint() -> None:
    def mac(given: bytes) -> str:
        return given.hex()

    other = LABELS.copy()
    other[4, 1] = 1 - abs(other[4, 1])
    assert source().fingerprint(mac) != source(other).fingerprint(mac)
    assert source().fingerprint(mac) == source(LABELS.copy()).fingerprint(mac)


# -- measures


def test_areas_are_those_of_sklearn_and_intervals_hold() -> None:
    """DeLong's variance against all pairs; the interval holds the true area in 1,000 samples about 95
    times of 100. False alarms: 1e-9, a binomial of share at least 0.93."""
    stream = np.random.default_rng(1)
    p, labels = (
        np.round(stream.random((200, 2)), 1),
        stream.integers(-1, 2, size=(200, 2)).astype(np.int32),
    )
    for k, each in enumerate(measure_findings(p, labels)):
        known = labels[:, k] >= 0
        assert each.n == known.sum() and each.positives == (labels[:, k] == 1).sum()
        assert abs(each.roc_auc - roc_auc_score(labels[known, k], p[known, k])) < 1e-5
    a, b = stream.normal(size=30) + 1, stream.normal(size=40)
    pairs = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    deviation = (pairs.mean(1).var(ddof=1) / 30 + pairs.mean(0).var(ddof=1) / 40) ** 0.5
    area, low, high = auc_interval(a, b)
    logit = np.log(area / (1 - area))
    ends = logit + np.array([-1.959964, 1.959964]) * deviation / (area * (1 - area))
    assert np.allclose([low, high], 1 / (1 + np.exp(-ends)))
    true, held = 0.760250, 0  # Phi(1 / sqrt 2)
    for _ in range(1_000):
        _, low, high = auc_interval(stream.normal(size=30) + 1, stream.normal(size=40))
        held += low <= true <= high
    assert held > 877
    area, low, high = auc_interval(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0]))
    assert (area, high) == (1.0, 1.0) and abs(low - 0.025**0.5) < 1e-12


def test_a_finding_that_is_always_or_never_known_to_be_there_has_no_area() -> None:
    labels = np.array([[1, -1], [1, -1], [1, -1]], np.int32)
    one, two = measure_findings(np.array([[0.9, np.nan]] * 3), labels)
    assert one.roc_auc is None and (one.n, one.found, two.n, two.roc_auc) == (3, 3, 0, None)


# -- files


def entries() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    y = digits.target
    findings = np.stack([y % 2 == 0, y > 4, np.isin(y, [0, 6, 8, 9])], 1).astype(np.int32)
    unknown = np.random.default_rng(2).random(findings.shape) < 0.1
    return (digits.images * 15.9).astype(np.uint8), np.where(unknown, -1, findings)


NAMES = ("even", "large", "loop")


def table(folder: Path, rows: list[list[Any]], images: np.ndarray, name: str = "t.csv") -> Path:
    for k in range(len(rows)):
        Image.fromarray(images[k]).save(folder / f"{k}.png")
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(
            [["file", *NAMES], *([f"{k}.png", *row] for k, row in enumerate(rows))]
        )
    return folder / name


def test_columns_matrices_and_lists_are_the_same_findings(tmp_path: Path) -> None:
    images, labels = entries()
    images, labels = images[:20], labels[:20]
    written = [["" if v < 0 else v for v in row] for row in labels.tolist()]
    written[0] = [{-1: "nan", 0: "0.0", 1: "1.0"}[v] for v in labels[0].tolist()]
    written[1] = labels[1].tolist()
    path = table(tmp_path, written, images)
    options = ReadOptions(findings=",".join(NAMES), test_fraction=0.0)
    read = sf.data.open(path, options=options).train
    assert read.class_names == NAMES and np.array_equal(read.labels, labels)
    assert read.task is MULTI and sf.data.describe(path, options=options).task is MULTI
    floats = np.where(labels < 0, np.nan, labels)
    np.savez(tmp_path / "t.npz", x_train=images, y_train=floats)
    again = sf.data.open(tmp_path / "t.npz", options=options).train
    assert again.class_names == NAMES and np.array_equal(again.labels, labels)
    numbered = sf.data.open(tmp_path / "t.npz", options=replace(options, findings=None)).train
    assert numbered.class_names == ("0", "1", "2")
    there = [
        [name for name, v in zip(NAMES, row, strict=True) if v == 1] for row in labels.tolist()
    ]
    lines = [{"file": f"{k}.png", "labels": each} for k, each in enumerate(there)]
    lines[3]["labels"] = None  # type: ignore[assignment]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    listed = sf.data.open(tmp_path / "t.jsonl", options=ReadOptions(test_fraction=0.0)).train
    assert listed.class_names == NAMES and listed.labels[3].tolist() == [-1, -1, -1]
    assert np.array_equal(np.delete(listed.labels, 3, 0), np.delete(labels == 1, 3, 0))
    kept = listed.subset(np.arange(5, 9), "validation")
    assert np.array_equal(kept.labels, listed.labels[5:9]) and kept.task is MULTI


@pytest.mark.parametrize(
    "entry, findings, said",
    [
        ("2", "even,large,loop", "row 3, column 'large' is '2'; a finding is 1 or 0"),
        ("yes", "even,large,loop", "row 3, column 'large' is 'yes'"),
        ("1", "even,big", "findings='big'"),
        ("1", "even,even", "each once"),
        ("1", "", "name columns with commas"),
    ],
)
def test_what_is_no_finding_is_refused_in_one_line(
    tmp_path: Path, entry: str, findings: str, said: str
) -> None:
    images, _ = entries()
    path = table(tmp_path, [[1, 0, 1], [0, entry, 1], [1, 1, 0], [0, 0, 0]], images)
    with pytest.raises(SfumatoError) as refused:
        sf.data.open(path, options=ReadOptions(findings=findings))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_other_doors_refuse_findings_in_one_line(tmp_path: Path) -> None:
    images, labels = entries()
    np.savez(tmp_path / "t.npz", x_train=images[:40], y_train=labels[:40])
    data, out = ("--data", tmp_path / "t.npz"), ("--out", tmp_path / "out")
    for command in (
        ("sweep", *data, *out, "--method", "ls", "--epsilon", "1", "--model", "scattering"),
        ("tune", *data, *out, "--method", "ls", "--validation", "0.3", "--model", "scattering"),
        ("features", *data, *out, "--model", "scattering"),
        ("train", *data, *out, "--show-images"),
        ("train", "--data", "digits", *out, "--findings", "a,b"),
    ):
        refused = sfumato(*command)
        assert refused.code and len(refused.err.strip().splitlines()) == 1, (command, refused.err)
        assert "findings" in refused.err and not (tmp_path / "out").exists()


# -- from end to end


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("findings")
    images, labels = entries()
    n = 1_400
    np.savez(
        folder / "d.npz",
        x_train=images[:n],
        y_train=labels[:n],
        x_test=images[n:],
        y_test=labels[n:],
    )
    told = succeeds(
        *("train", "--data", folder / "d.npz", "--findings", ",".join(NAMES), "--epsilon", 8),
        *("--out", folder / "run", "--log", "quiet", "--method", "fc", "--model", "scattering"),
    )
    assert "mean ROC AUC" in told and "loop: ROC AUC" in told
    return folder / "run"


@pytest.mark.slow
def test_findings_of_digits_are_learned_reported_and_served(run: Path) -> None:
    """Chance is an area of 0.5; without privacy these features reach 0.99."""
    facts = RunFacts.load(run)
    assert facts.evaluation is not None and facts.plan.task is MULTI
    found = facts.evaluation.findings
    assert len(found) == L and all((each.roc_auc or 0) > 0.85 for each in found)
    assert all(each.n < facts.evaluation.n for each in found)
    assert Ledger.read(run).epsilon() <= 8.0
    page, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    for name in NAMES:
        assert name in page and f"{name}: ROC AUC" in card
    assert "classifier of 3 findings" in page and "the finding names (3)" in page
    images, _ = entries()
    model = sf.load(run)
    chances, called = model.predict_proba(images[:30]), model.predict(images[:30])
    assert chances.shape == called.shape == (30, L) and set(np.unique(called)) <= {0, 1}
    assert np.array_equal(called, chances >= 0.5) and abs(chances.sum(1) - 1).max() > 0.1
    told = succeeds("evaluate", run, "--data", run.parent / "d.npz")
    assert told.count("ROC AUC") == 1 + L
    refused = sfumato("evaluate", run, "--calibrate", "--split", "validation")
    assert refused.code and "findings" in refused.err


@pytest.mark.slow
def test_the_model_of_findings_is_exported_and_answers_an_image(run: Path, tmp_path: Path) -> None:
    images, _ = entries()
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    answer = json.loads(succeeds("predict", run, tmp_path / "0.png", "--json"))
    assert set(answer["findings"]) <= set(NAMES) and list(answer["probabilities"]) == list(NAMES)
    succeeds("export", run, "--to", "jax", "--out", tmp_path / "jax")
    told = json.loads((tmp_path / "jax" / "config.json").read_text())
    assert told["problem_type"] == "multi_label_classification" and told["num_labels"] == L
