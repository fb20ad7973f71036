"""DPLinearClassifier: scikit-learn's own checks, budgets, weights, wild input."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pace import paced
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

import sfumato
from sfumato import DPLinearClassifier
from sfumato.data.source import DataInfo
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.privacy.accountants import epsilon as epsilon_of
from sfumato.privacy.releases import tally_of
from sfumato.solve.linear_settings import METHODS

EXPECTED_TO_FAIL = {
    "check_do_not_raise_errors_in_init_or_set_params": "the types of arguments are checked while tests run",
    "check_sample_weights_list": "weights above 1 are refused",
    "check_sample_weights_not_overwritten": "weights above 1 are refused",
    "check_sample_weight_equivalence_on_dense_data": "weights above 1 are refused; a row twice is not a row of weight 2",
    "check_classifier_data_not_an_array": "compares two fits, whose noise differs",
    "check_supervised_y_2d": "compares two fits, whose noise differs",
    "check_classifiers_multilabel_representation_invariance": "compares two fits, whose noise differs",
    "check_fit_idempotent": "compares two fits, whose noise differs",
    "check_class_weight_classifiers": "thirty rows are too few for a private fit to follow the weights",
}


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    found = load_digits()
    rows, labels = found.data / 16, np.array([f"digit {label}" for label in found.target])
    return rows[:1400], labels[:1400], rows[1400:], labels[1400:]


@pytest.mark.slow
def test_sklearn_finds_nothing_else_to_object_to() -> None:
    failed = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model, check in estimator_checks_generator(
            DPLinearClassifier(epsilon=8.0, method="means")
        ):
            name = getattr(check, "func", check).__name__
            try:
                check(model)
            except Exception as error:
                if type(error).__name__ != "SkipTest":
                    failed[name] = error
    assert set(failed) <= set(EXPECTED_TO_FAIL), {
        name: failed[name] for name in set(failed) - set(EXPECTED_TO_FAIL)
    }


@pytest.mark.parametrize("method", paced(["auto", *METHODS], "auto", "newton", "sgd"))
def test_every_method_learns_digits_within_its_budget(method: str) -> None:
    """Margin: 8 standard deviations."""
    rows, labels, more, truth = digits()
    model = DPLinearClassifier(epsilon=8.0, delta=1e-4, method=method).fit(rows, labels)
    assert model.score(more, truth) > 0.75
    assert set(model.classes_) == set(labels) and 7.9 < model.epsilon_ <= 8.0
    assert model.epsilon_ == epsilon_of(tally_of(model.plan_.releases), 1e-4)
    chances = model.predict_proba(more)
    np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-5)
    assert np.array_equal(model.classes_[chances.argmax(1)], model.predict(more))


def test_pipeline_cross_validation_and_clone() -> None:
    """Margin: 29 standard deviations."""
    rows, labels, *_ = digits()
    model = make_pipeline(
        FunctionTransformer(np.sqrt), DPLinearClassifier(epsilon=8.0, method="ls")
    )
    assert cross_val_score(model, rows, labels, cv=3).mean() > 0.75
    given = DPLinearClassifier(epsilon=2.0, method="adam", classes=(0, 1), rooted=True)
    assert clone(given).get_params() == given.get_params()


def test_two_classes_have_one_decision_value() -> None:
    """Margin: 100 standard deviations."""
    rows, labels = make_blobs(600, centers=2, n_features=4, random_state=0)
    model = DPLinearClassifier(epsilon=8.0).fit(rows, labels)
    scores = model.decision_function(rows)
    assert scores.shape == (600,) and np.array_equal(scores > 0, model.predict(rows) == 1)
    assert model.score(rows, labels) > 0.9


def test_fits_share_a_ledger_until_it_is_empty(tmp_path: Path) -> None:
    rows, labels, *_ = digits()
    with sfumato.Ledger.create(tmp_path, delta=1e-4, epsilon_max=3.0) as ledger:
        model = DPLinearClassifier(
            epsilon=1.5, delta=1e-4, method="ls", class_weight="balanced", ledger=ledger
        )
        model.fit(rows, labels)
        model.fit(rows, labels)
        spent, lines = ledger.epsilon(), ledger.head.lines
        assert 1.5 < spent <= 3.0
        with pytest.raises(sfumato.BudgetError):
            model.set_params(epsilon=3.0).fit(rows, labels)
        assert (ledger.epsilon(), ledger.head.lines) == (spent, lines)


def test_a_fit_joins_no_ledger_that_paid_for_samples(tmp_path: Path) -> None:
    rows, labels = make_blobs(120, centers=2, n_features=4, random_state=0)
    with sfumato.Ledger.create(tmp_path, delta=1e-5, epsilon_max=8.0) as ledger:
        ledger.spend(
            sfumato.PoissonSampledEvent(0.01, sfumato.GaussianEvent(5.0)), "another/0", "its key"
        )
        with pytest.raises(sfumato.BudgetError, match="full batches only"):
            DPLinearClassifier(epsilon=1.0, delta=1e-5, method="ls", ledger=ledger).fit(
                rows, labels
            )
        assert ledger.releases == 1


def test_clones_share_the_ledger_and_cross_validation_pays_for_every_fit(tmp_path: Path) -> None:
    rows, labels = make_blobs(120, centers=2, n_features=4, random_state=0)
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=4.0) as ledger:
        model = DPLinearClassifier(epsilon=2.0, delta=1e-3, method="ls", ledger=ledger)
        assert clone(model).ledger is ledger
        cross_val_score(model, rows, labels, cv=2, error_score="raise")
        releases, spent = ledger.releases, ledger.epsilon()
        assert 2.0 < spent <= 4.0, "two fits, paid for by the ledger that was given"
        with pytest.raises(sfumato.BudgetError):
            cross_val_score(model, rows, labels, cv=6, error_score="raise")
        assert ledger.releases > releases and ledger.epsilon() <= 4.0
        releases, spent = ledger.releases, ledger.epsilon()
    written = sfumato.Ledger.read(tmp_path)  # raises where two chains of hashes are in one file
    assert (written.releases, written.epsilon()) == (releases, spent)


def test_public_rows_help_and_cost_nothing() -> None:
    """At this budget by 0.7 points on average. Margin: 7 standard deviations, that of one pair being
    1.2 points."""
    stream = np.random.default_rng(0)
    turn = stream.normal(size=(40, 40)) * np.where(np.arange(40) < 5, 1, 0.3)[:, None]
    labels = stream.integers(3, size=3000)
    rows = (stream.normal(size=(3000, 40)) + 1.2 * np.eye(40)[labels]) @ turn + 5
    public = stream.normal(size=(500, 40)) @ turn + 5
    models = [
        DPLinearClassifier(epsilon=0.3, delta=1e-4, public=each).fit(rows, labels)
        for each in (None, public)
    ]
    assert models[1].score(rows, labels) > models[0].score(rows, labels) - 0.08
    assert (
        models[1].epsilon_ == pytest.approx(models[0].epsilon_, rel=1e-3)
        and models[1].epsilon_ <= 0.3
    )
    with pytest.raises(sfumato.ArgumentError, match="public"):
        DPLinearClassifier(public=public[:, :7]).fit(rows, labels)


def test_balanced_weights_find_the_rare_class() -> None:
    """Margin: 7 standard deviations."""
    rows, labels = make_blobs(
        [3000, 300], centers=[[1.0] * 5, [0.2] * 5], cluster_std=0.6, random_state=0
    )
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    recall = {}
    for weight in (None, "balanced", {0: 0.1, 1: 1.0}):
        model = DPLinearClassifier(epsilon=8.0, delta=1e-5, class_weight=weight).fit(rows, labels)
        recall[str(weight)] = np.mean(model.predict(rows[labels == 1]) == 1)
        assert model.epsilon_ <= 8.0
    assert (
        recall["balanced"] > recall["None"] + 0.1
        and recall["{0: 0.1, 1: 1.0}"] > recall["None"] + 0.1
    )


def test_rows_of_weight_zero_are_not_learned() -> None:
    """Margin: 9 standard deviations."""
    rows, labels, more, truth = digits()
    wrong = np.roll(labels, 1)
    both, all_labels = np.vstack([rows, rows]), np.concatenate([labels, wrong])
    weights = np.repeat([1.0, 0.0], len(rows))
    assert (
        DPLinearClassifier(epsilon=8.0, delta=1e-4)
        .fit(both, all_labels, weights)
        .score(more, truth)
        > 0.75
    )


@pytest.mark.slow
def test_wild_rows_and_shapes(tmp_path: Path) -> None:
    """Margin: 9 standard deviations."""
    rows, labels, more, truth = digits()
    wild = np.hstack([rows, np.full((len(rows), 1), 7.0)])  # a constant feature
    wild[::40], wild[1::40, 3], wild[2::40] = np.nan, np.inf, 0
    wild[3::40] = 1e300
    with np.errstate(over="ignore"):
        np.save(tmp_path / "rows.npy", wild.astype(np.float16))  # overflows to infinity
    for given in (wild, np.load(tmp_path / "rows.npy", mmap_mode="r")):
        model = DPLinearClassifier(epsilon=8.0, delta=1e-4).fit(given, labels)
        assert model.score(np.hstack([more, np.full((len(more), 1), 7.0)]), truth) > 0.7
        assert np.all(np.isfinite(model.predict_proba(wild)))
    wide = np.random.default_rng(0).normal(size=(30, 100))  # d > n
    assert DPLinearClassifier(epsilon=8.0).fit(wide, np.arange(30) % 3).predict(wide).shape == (30,)


@pytest.mark.parametrize("epsilon", [1e-3, 0.01])
def test_a_vanishing_epsilon_warns_and_still_predicts(epsilon: float) -> None:
    rows, labels, more, _ = digits()
    with pytest.warns(UserWarning, match="little better than chance"):
        model = DPLinearClassifier(epsilon=epsilon).fit(rows, labels)
    assert np.all(np.isfinite(model.predict_proba(more))) and set(model.predict(more)) <= set(
        labels
    )


@pytest.mark.parametrize(
    ("settings", "labels", "says"),
    [
        ({}, [1] * 6, "only one class"),
        ({"classes": [0, 1]}, [0, 1, 2] * 2, "declared classes"),
        ({"epsilon": 0.0}, [0, 1] * 3, "epsilon"),
        ({"epsilon": float("nan")}, [0, 1] * 3, "epsilon"),
        ({"delta": 0.5}, [0, 1] * 3, "delta"),
        ({"method": "svm"}, [0, 1] * 3, "method"),
        ({"class_weight": {0: -1.0}}, [0, 1] * 3, "class_weight"),
        ({"class_weight": 3}, [0, 1] * 3, "class_weight"),
        ({"class_weight": "blanced"}, [0, 1] * 3, "class_weight='blanced'"),
        ({"class_weight": {0: "x"}}, [0, 1] * 3, r"class_weight=\{0: 'x'\}"),
        ({"class_weight": {0: "0.5"}}, [0, 1] * 3, "class_weight"),
        ({"class_weight": {0: 1, 7: 2}}, [0, 1] * 3, "class_weight=7: not one of the classes"),
        ({"class_weight": {0: 0, 1: 0}}, [0, 1] * 3, "class_weight"),
        ({"classes": []}, [0, 1] * 3, "classes=.*two or more"),
        ({"classes": [0]}, [0] * 6, "classes=.*two or more"),
        ({"classes": ["0", "1"]}, [0, 1] * 3, "y=0: not one of the declared"),
        ({"classes": np.array([0, "a"], object)}, [0, 1] * 3, "classes=.*int, str"),
        ({}, np.array([0, "a"] * 3, object), "y=.*int, str"),
        ({}, [0, None] * 3, "y=.*NaN or None, the first at 1"),
        ({"ledger": "dir"}, [0, 1] * 3, "ledger='dir'.*Ledger.open"),
    ],
)
def test_bad_input_is_named(settings: dict, labels: Any, says: str) -> None:
    model = DPLinearClassifier().set_params(
        **settings
    )  # types are not checked on this way, as they are not for users
    with pytest.raises(sfumato.ArgumentError, match=says) as refusal:
        model.fit(np.random.default_rng(0).normal(size=(6, 3)), labels)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "weights", [["1"] * 6, ["x"] * 6, [{}] * 6, [[1], [1, 2], 1, 1, 1, 1], [1.0] * 5, [2.0] * 6]
)
def test_sample_weights_that_are_none_are_named(weights: Any) -> None:
    with pytest.raises(sfumato.ArgumentError, match="sample_weight="):
        DPLinearClassifier().fit(np.random.default_rng(0).normal(size=(6, 3)), [0, 1] * 3, weights)


def test_automatic_is_what_the_command_line_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.solve.linear_settings.LARGEST_GRAM", 4)
    for d, chosen in ((4, "fc"), (5, "sgd")):
        rows, labels = make_blobs(60, centers=2, n_features=d, random_state=0)
        info = DataInfo("rows", "memory", ("0", "1"), (1, 1, d), {"train": 60})
        told = make_plan(
            TrainConfig(DataConfig("rows"), PrivacyConfig(8.0), MethodConfig("auto", "rows")), info
        )
        assert (
            DPLinearClassifier(epsilon=8.0).fit(rows, labels).plan_.recipe.method
            == told.method
            == chosen
        )


def test_declared_classes_may_be_absent() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    model = DPLinearClassifier(epsilon=8.0, classes=["a", "b", "c"]).fit(rows, ["b"] * 60)
    assert model.predict_proba(rows).shape == (60, 3)
