"""Several findings an image as hospitals have them: from a folder and a table with missing entries, through
every command that a model of findings knows; texts of names; both estimators."""

import csv
import http.client
import json
import re
import socket
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_helpers import succeeds
from sklearn.datasets import load_digits

import sfumato as sf
from sfumato.core.errors import ArgumentError, DataError
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import MULTI
from sfumato.data import ReadOptions
from sfumato.data.findings import as_asked, asked_names, of_lists, untaught
from sfumato.features.heads import Sphere
from sfumato.privacy.ledger import Ledger
from sfumato.report.facts import RunFacts
from sfumato.solve.labeled_rows import Rows, scores_of
from sfumato.solve.linear import solver
from sfumato.solve.linear_settings import HEADS, linear_rule
from sfumato.train.loop import run

NAMES = ("Lungenödem (グ)", "Pleural, other", "in no one")
N, SHOWN = 160, 40
DIGITS = load_digits()


def known() -> np.ndarray:
    """Of N + SHOWN digits: two things to see, one that is nowhere; some entries and two rows unknown."""
    y = DIGITS.target[: N + SHOWN]
    labels = np.stack([y % 2 == 0, y > 4, np.zeros(len(y))], 1).astype(np.int32)
    labels[np.random.default_rng(0).random(labels.shape) < 0.1] = -1
    labels[[3, N + 3]] = -1
    return labels


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Path", *NAMES, "split"])
        for k, row in enumerate(known().tolist()):
            pixels = (DIGITS.images[k] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{k:03}.png")
            blank = ["", "nan", "-1", "-1.0"][k % 4]
            cells = [blank if v < 0 else f"{v}.0" if k % 2 else v for v in row]
            rows.writerow([f"{k:03}.png", *cells, "train" if k < N else "test"])
    return folder / "table.csv"


@pytest.fixture(scope="module")
def finished_run(table: Path) -> Path:
    """A network, every image in every step; what it is told of before it pays."""
    out = table.parent / "run"
    told = succeeds(
        *("train", "--data", table, "--findings", as_asked(NAMES), "--method", "dp-sgd"),
        *("--model", "cnn", "--steps", 4, "--batch", N, "--epsilon", 50, "--out", out),
        *("--log", "json"),
    )
    assert "findings 'in no one' are there in no training image" in told
    return out


@pytest.mark.slow
def test_a_run_says_what_it_knows_of_each_finding(finished_run: Path, tmp_path: Path) -> None:
    """Also at every point of its curve; an area that is not defined is said to be unknown."""
    facts = RunFacts.load(finished_run)
    assert facts.evaluation is not None and facts.plan.classes == NAMES and facts.plan.n == N
    shown = known()[N:]
    for k, each in enumerate(facts.evaluation.findings):
        assert each.n == (shown[:, k] >= 0).sum() and each.positives == (shown[:, k] == 1).sum()
    assert facts.evaluation.findings[2].roc_auc is None
    last = facts.metrics[-1]
    assert last.scored == "mean ROC AUC" and last.roc_aucs[2] is None
    area, low, high = last.roc_aucs[0] or (0, 1, 0)
    assert low <= area <= high and area == facts.evaluation.findings[0].roc_auc
    assert last.score == pytest.approx((area + (last.roc_aucs[1] or (0,))[0]) / 2, abs=1e-4)
    for name in ("evaluation.json", "metrics.jsonl", "report.html", "model_card.md"):
        assert not re.search(r"\bnan\b", (finished_run / name).read_text(), re.IGNORECASE), name
    page = (finished_run / "report.html").read_text()
    assert "unknown" in page and "Dot plot of the ROC AUC of each finding" in page
    assert "mean ROC AUC (thin lines: of each finding)" in page
    told = succeeds("report", finished_run, "--curve", tmp_path / "c.png")
    assert str(tmp_path / "c.png") in told


@pytest.mark.slow
def test_a_model_of_findings_is_evaluated_and_answers(finished_run: Path, table: Path) -> None:
    """On its own images, on a table of others, and for a folder of them."""
    told = succeeds("evaluate", finished_run)
    assert "in no one: ROC AUC unknown" in told and "there in 0 of" in told and "nan" not in told
    others = table.with_name("others.csv")
    others.write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    again = succeeds("evaluate", finished_run, "--data", others)
    assert "over 2 findings" in again and "Pleural, other: ROC AUC" in again
    out = table.parent / "answers.csv"
    succeeds("predict", finished_run, table.parent, "--out", out)
    rows = list(csv.reader(out.open(encoding="utf-8")))
    assert rows[0] == ["file", "prediction", *(f"P({name})" for name in NAMES)]
    assert len(rows) == 1 + N + SHOWN
    model = sf.load(finished_run)
    chances = model.predict_proba([table.parent / "007.png"])[0]
    assert np.allclose([float(p) for p in rows[8][2:]], chances, atol=1e-5)
    called = [name for name, p in zip(NAMES, chances, strict=True) if p >= 0.5]
    assert rows[8][1] == (", ".join(called) or "none")


def test_onnxruntime_and_a_browser_get_the_same_answers(finished_run: Path, table: Path) -> None:
    onnxruntime, uvicorn = map(pytest.importorskip, ("onnxruntime", "uvicorn"))
    from sfumato.serving.service import app

    pixels = np.repeat(DIGITS.images[:5, ..., None] * 15.9 / 255, 3, axis=3).astype(np.float32)
    chances = sf.load(finished_run).predict_proba(pixels)
    succeeds("export", finished_run, "--to", "onnx", "--out", table.parent / "onnx")
    session = onnxruntime.InferenceSession(table.parent / "onnx" / "model.onnx")
    assert np.allclose(session.run(None, {"images": pixels})[0], chances, atol=1e-5)
    about = json.loads((table.parent / "onnx" / "config.json").read_text())
    assert list(about["id2label"].values()) == list(NAMES)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app(finished_run), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            asked = http.client.HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=60)
            asked.request("POST", "/predict", (table.parent / "000.png").read_bytes())
            answer = json.loads(asked.getresponse().read())
        finally:
            server.should_exit = True
            thread.join()
    assert list(answer["probabilities"]) == list(NAMES)
    assert set(answer["findings"]) == {n for n, p in answer["probabilities"].items() if p >= 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("attack, size", [("whitebox", 40), ("one-run", 8)])
def test_a_model_of_findings_can_be_attacked(
    noise_by_name: None, finished_run: Path, attack: str, size: int
) -> None:
    succeeds("audit", finished_run, "--attack", attack, "--size", size, "--log", "quiet")
    found = json.loads((finished_run / "audit.json").read_text())["results"]
    assert attack in {each["attack"] for each in found}
    assert all(each["lower_bound"] <= each["epsilon"] for each in found)


def test_the_labels_that_attacks_choose() -> None:
    labels = np.array([[1, 0, -1], [-1, -1, -1]], np.int32)
    wrong = MULTI.wrong(labels, 3, np.random.default_rng(0))
    assert wrong.tolist() == [[0, 1, -1], [-1, -1, -1]]
    odds = MULTI.log_odds(np.array([[0.9, 0.2, 0.5]] * 2), labels)
    assert np.allclose(odds, [np.log(9) + np.log(4), 0])
    scores = np.array([2.0, -1.0, 0.5])

    def loss(label: np.ndarray) -> float:
        return float(MULTI.loss(scores[None], label)[0])

    assert MULTI.hardest(loss, 3).tolist() == [0, 1, 0]


# -- names in a column of texts or lists


def written(folder: Path, entries: list[Any], column: str = "Finding Labels") -> Path:
    path = folder / "nih.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Image Index", column])
        for k, entry in enumerate(entries):
            Image.fromarray(np.full((8, 8), k, np.uint8)).save(folder / f"{k}.png")
            rows.writerow([f"{k}.png", entry])
    return path


def test_names_with_bars_between_are_findings(tmp_path: Path) -> None:
    """NIH's, and PadChest's lists; others than those asked for are passed over."""
    path = written(
        tmp_path, ["Effusion|Mass", "No Finding", "Mass; Hernia", "['Effusion', 'Mass']", ""]
    )
    options = ReadOptions(findings="Mass,Effusion", test_fraction=0.0)
    read = sf.data.open(path, options=options).train
    assert read.class_names == ("Mass", "Effusion") and read.task is MULTI
    assert read.labels.tolist() == [[1, 1], [0, 0], [1, 0], [1, 1], [-1, -1]]


@pytest.mark.parametrize(
    "entry, asked, said",
    [
        ("Mass, Effusion", "Mass,Effusion", "holds 'Mass, Effusion'; write | between findings"),
        ("[Mass", "Mass", "needs one"),
        ("Mass", "Masse,Effusio", "holds none of these names (but 'Mass', 'No Finding')"),
        ("Mass", "Mass,", "each once"),
        ("Mass", "\n", "each once"),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused(
    tmp_path: Path, entry: str, asked: str, said: str
) -> None:
    path = written(tmp_path, ["No Finding", entry, "Mass"])
    with pytest.raises((ArgumentError, DataError)) as refused:
        sf.data.open(path, options=ReadOptions(findings=asked, test_fraction=0.0))
    assert said in str(refused.value) and "\n" not in str(refused.value).replace(repr(asked), "")


def test_names_with_commas_go_there_and_back() -> None:
    for names in (NAMES, ('a "b", c', "d"), (" x".strip(), "é|ü"), ("one",)):
        assert asked_names(as_asked(names)) == names
    assert asked_names('Edema, "Pleural, other"') == ("Edema", "Pleural, other")
    with pytest.raises(DataError, match="none of the findings"):
        of_lists([["a"], ["b"]], ["a"], lambda k: f"row {k}")


def test_findings_of_which_nothing_can_be_learned_are_told() -> None:
    labels = np.array([[1, 0, -1, 1], [0, 0, -1, 1]], np.int32)
    told = untaught(labels, "abcd")
    assert [line.split(" are ")[0] for line in told] == [
        "findings 'c'",
        "findings 'b'",
        "findings 'd'",
    ]


# -- one finding, estimators

STREAM = np.random.default_rng(5)
ROWS = STREAM.normal(size=(400, 6)).astype(np.float32)
THERE = (ROWS[:, :3] > 0).astype(int)
PART = np.where(STREAM.random(THERE.shape) < 0.15, -1, THERE)


@pytest.mark.parametrize("name", HEADS)
def test_a_single_finding_is_learned_by_every_head(name: str) -> None:
    ruled = linear_rule(name, len(ROWS), 6, 1, 100.0, MULTI)
    procedure: Any = solver(
        Rows(ROWS, PART[:, :1].astype(np.int32), 1), Sphere.plain(6), ruled, ruled.releases(100.0)
    )
    with Ledger.temporary(1e-5, 1e6) as ledger:
        state = run(procedure, ledger, SecretKey.from_insecure_seed(1))
    called = MULTI.called(scores_of(procedure.classifier(state), ROWS))
    assert called.shape == (400, 1) and (called == THERE[:, :1]).mean() > 0.85


@pytest.mark.slow
def test_the_linear_estimator_takes_a_matrix(tmp_path: Path) -> None:
    """All heads: 1, 0, and -1 or NaN; also where a file was between. Margin: 76 standard deviations."""
    for method in HEADS:
        model = sf.DPLinearClassifier(epsilon=1000.0, delta=1e-5, method=method).fit(ROWS, PART)
        assert model.plan_.task is MULTI and model.classes_.tolist() == [0, 1, 2]
        assert model.predict_proba(ROWS).shape == model.predict(ROWS).shape == (400, 3)
        assert model.score(ROWS, np.where(PART < 0, np.nan, PART)) > 0.8, method
    model.save(tmp_path / "m.safetensors")
    again = sf.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.predict(ROWS), model.predict(ROWS))
    assert model.decision_function(ROWS).shape == (400, 3)
    two = sf.DPLinearClassifier(epsilon=1000.0, delta=1e-5, method="means", classes=["b", "a"])
    assert two.fit(ROWS, PART[:, :2]).decision_function(ROWS).shape == (400, 2)
    assert two.classes_.tolist() == ["b", "a"], "in the order of y's columns"
    grouped = two.fit(ROWS, PART[:, :2], groups=np.arange(400) // 2)
    assert grouped.plan_.n == 200


@pytest.mark.parametrize(
    "y, arguments, said",
    [
        (THERE + 1, {}, "a finding is 1 or 0"),
        (THERE, {"classes": ["a", "b"]}, "name the 3 findings of y"),
        (THERE, {"classes": ["a", "a", "b"]}, "each once"),
        (
            THERE,
            {"class_weight": "balanced"},
            "class_weight='balanced': is for images of one class",
        ),
    ],
)
def test_the_estimators_refuse_what_are_no_findings(y: Any, arguments: dict, said: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        sf.DPLinearClassifier(epsilon=8.0, method="means", **arguments).fit(ROWS, y)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_image_estimator_takes_a_matrix(tmp_path: Path) -> None:
    """Margin: 41 standard deviations."""
    labels = known()[:N]
    images = (DIGITS.images[:N] * 15.9).astype(np.uint8)
    model = sf.DPImageClassifier(200.0, method="fc", model="scattering", classes=NAMES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(images, labels)
    assert any("'in no one' are there in no training image" in str(each.message) for each in caught)
    assert model.plan_.task is MULTI and model.classes_.tolist() == list(NAMES)
    assert model.score(images, labels) > 0.8
    model.save(tmp_path / "m.safetensors")
    again = sf.load(tmp_path / "m.safetensors")
    assert np.array_equal(again.predict(images), model.predict(images))
