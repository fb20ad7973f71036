"""`save` and `load` of both estimators: one file, whole or refused in one line that names it."""

import io
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import sfumato
from sfumato import DPImageClassifier, DPLinearClassifier

N = 24
STREAM = np.random.default_rng(0)
IMAGES = STREAM.integers(0, 256, (N, 8, 8), np.uint8)
ROWS = STREAM.normal(size=(N, 6))
NUMBER = np.arange(N) % 3
PUBLIC = STREAM.normal(size=(40, 6))


def linear(**more: Any) -> DPLinearClassifier:
    return DPLinearClassifier(**{"epsilon": 8.0, "delta": 1e-3, "method": "means"} | more)


def images(**more: Any) -> DPImageClassifier:
    return DPImageClassifier(
        **{"epsilon": 8.0, "delta": 1e-3, "method": "means", "model": "scattering"} | more
    )


CASES = {
    "strings": (lambda: linear(), ROWS, np.array(["cat", "dog", "été 赤"])[NUMBER]),
    "numbers": (
        lambda: linear(classes=[0, 2222, 4444], class_weight={2222: 0.5}),
        ROWS,
        np.array([0, 2222, 4444])[NUMBER],
    ),
    "truth": (lambda: linear(method="fc", rooted=True, class_weight="balanced"), ROWS, NUMBER > 0),
    "public": (lambda: linear(method="ls", public=PUBLIC), ROWS, NUMBER.astype(np.float32)),
    "images": (
        lambda: images(seed=3, classes=["a", "b", "c"]),
        IMAGES,
        np.array(["a", "b", "c"])[NUMBER],
    ),
    "fc": (lambda: images(method="dp-fc"), IMAGES, NUMBER),
    "network": (lambda: images(method="dp-sgd", model="cnn"), IMAGES, NUMBER),
}


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other) and one.ledger is None is other.ledger
    assert one.epsilon_ == other.epsilon_ and one.plan_ == other.plan_
    assert one.classes_.dtype == other.classes_.dtype and np.array_equal(
        one.classes_, other.classes_
    )
    params = one.get_params(), other.get_params()
    for name in params[0]:
        np.testing.assert_equal(params[0][name], params[1][name])
    given = IMAGES if isinstance(one, DPImageClassifier) else ROWS
    np.testing.assert_array_equal(one.predict_proba(given), other.predict_proba(given))
    np.testing.assert_array_equal(one.predict(given), other.predict(given))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_loaded_is_what_was_saved(name: str, tmp_path: Path) -> None:
    make, given, labels = CASES[name]
    model = make().set_params(epsilon=np.float64(8), verbose=np.int64(0)).fit(given, labels)
    model.save(str(tmp_path / "model.any"))
    assert [each.name for each in tmp_path.iterdir()] == ["model.any"]
    loaded = type(model).load(tmp_path / "model.any")
    same(model, loaded)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model.any").read_bytes()
    content = io.BytesIO()
    joblib.dump(model, content)
    content.seek(0)
    same(model, joblib.load(content))


def test_a_ledger_is_not_saved_but_its_relation_is(tmp_path: Path) -> None:
    with sfumato.Ledger.create(
        tmp_path, delta=1e-3, epsilon_max=9.0, relation="replace-one"
    ) as ledger:
        model = linear(ledger=ledger).fit(ROWS, NUMBER)
        model.save(tmp_path / "model")
        loaded = DPLinearClassifier.load(tmp_path / "model")
        assert loaded.ledger is None and loaded.plan_.relation == "replace-one"
        same(model.set_params(ledger=None), loaded)


def test_names_of_columns_are_kept(tmp_path: Path) -> None:
    model = linear().fit(ROWS, NUMBER)
    model.feature_names_in_ = np.array(
        [f"column {k}" for k in range(6)], object
    )  # as a table sets them
    model.save(tmp_path / "model")
    assert (
        DPLinearClassifier.load(tmp_path / "model").feature_names_in_.tolist()
        == model.feature_names_in_.tolist()
    )


def says(path: Path | str, *words: str, of: Any = DPLinearClassifier) -> None:
    with pytest.raises(sfumato.RunError) as refusal:
        of.load(path)
    said = str(refusal.value)
    assert "\n" not in said and str(path) in said and all(word in said for word in words), said


def test_files_that_are_none_of_ours_are_refused_in_one_line(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    one, other = linear().fit(ROWS, NUMBER), images().fit(IMAGES, NUMBER)
    one.save(tmp_path / "rows")
    other.save(tmp_path / "images")
    says(tmp_path / "images", "DPImageClassifier.load")
    says(tmp_path / "rows", "DPLinearClassifier.load", of=DPImageClassifier)
    says(tmp_path / "nothing", "no such file")
    says(str(tmp_path), "folder")
    (tmp_path / "model.json").write_text("{}")
    says(tmp_path, "Classifier.load")
    (tmp_path / "text").write_text("no\nmodel")
    says(tmp_path / "text", "damaged")
    (tmp_path / "empty").write_bytes(b"")
    says(tmp_path / "empty", "damaged")
    joblib.dump(one, tmp_path / "pickle")
    says(tmp_path / "pickle", "damaged")
    save_file({"x": np.zeros(3)}, tmp_path / "foreign")
    says(tmp_path / "foreign", "DPLinearClassifier.save writes one")


@pytest.mark.parametrize("kind", ["rows", "images"])
def test_a_damaged_file_is_refused_wherever_it_is_damaged(kind: str, tmp_path: Path) -> None:
    make, given = (linear, ROWS) if kind == "rows" else (images, IMAGES)
    model, path = make().fit(given, NUMBER), tmp_path / "model"
    model.save(path)
    whole = path.read_bytes()
    for at in (len(whole) // 2, len(whole) - 1, 8):
        path.write_bytes(whole[:at])
        says(path, "damaged", of=type(model))
    for at in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        says(path, of=type(model))


def test_facts_that_cannot_be_are_refused_in_one_line(tmp_path: Path) -> None:
    """Someone edits the file and its digest."""
    from sfumato.runs import saved

    path = tmp_path / "model"
    linear().fit(ROWS, NUMBER).save(path)
    facts, arrays = saved._read(path, "DPLinearClassifier")
    changes: list[dict[str, Any]] = [
        {"params": {"color": 1}},
        {"params": None},
        {"classes": {"type": "object", "values": [1, 2, 3]}},
        {"classes": {"type": "int64", "values": [1, 2]}},
        {"features": 7},
        {"features": "x"},
        {"plan": {}},
        {"epsilon": None},
        {"plan": {**facts["plan"], "releases": [{}]}},
    ]
    for change in changes:
        saved._write(path, {**facts, **change}, arrays)
        says(path, "damaged")
    saved._write(path, facts, {name: array for name, array in arrays.items() if name != "mean"})
    says(path, "damaged")
    saved._write(path, {**facts, "format": 2}, arrays)
    says(path, "another version")
    with pytest.raises(sfumato.RunError, match="nobody decided"):
        saved._write(path, {**facts, "mean_of_rows": 1.0}, arrays)


def test_saving_refuses_what_it_cannot_do_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        linear().save(tmp_path / "model")
    model = linear().fit(ROWS, NUMBER)
    for place, word in ((tmp_path, "folder"), (tmp_path / "none" / "model", "no such folder")):
        with pytest.raises(sfumato.ArgumentError, match=word) as refusal:
            model.save(place)
        assert "\n" not in str(refusal.value)
    model.save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    with pytest.raises(sfumato.ArgumentError, match="cannot be saved"):
        model.set_params(method=object()).save(tmp_path / "model")
    assert [each.name for each in tmp_path.iterdir()] == ["model"] and (
        tmp_path / "model"
    ).read_bytes() == before


def test_the_file_holds_what_the_table_of_fields_allows(tmp_path: Path) -> None:
    from safetensors import safe_open

    from sfumato.privacy import fields

    for model in (linear(public=PUBLIC).fit(ROWS, NUMBER), images().fit(IMAGES, NUMBER)):
        model.save(tmp_path / "model")
        with safe_open(tmp_path / "model", framework="np") as file:
            facts = json.loads(file.metadata()["sfumato"].partition(" ")[2])
        fields.check("estimator.safetensors", facts)
        assert facts["plan"]["n"] == N and facts["epsilon"] == model.epsilon_
