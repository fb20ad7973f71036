"""Both estimators as objects: refused fits, pickles, wild input, rows that were used before."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

import sfumato
import sfumato.estimators.image_classifier
import sfumato.estimators.linear_classifier
from sfumato import DPImageClassifier, DPLinearClassifier
from sfumato.estimators.fitting import UsedRows

N = 30
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8), np.uint8)
ROWS = IMAGES.reshape(N, -1) / 255
LABELS = np.array(["cat", "dog", "eel"])[np.arange(N) % 3]
MAKERS = {
    "images": (
        lambda **more: DPImageClassifier(
            epsilon=8.0, delta=1e-3, method="means", model="scattering", **more
        ),
        IMAGES,
    ),
    "rows": (
        lambda **more: DPLinearClassifier(epsilon=8.0, delta=1e-3, method="means", **more),
        ROWS,
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_refused_fit_leaves_the_estimator_as_it_was_and_pickles_predict_alike(
    kind: str, tmp_path: Path
) -> None:
    make, given = MAKERS[kind]
    with pytest.raises(NotFittedError):
        make().predict(given)
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=8.0) as ledger:
        model = make(ledger=ledger).fit(given, LABELS)
        before, facts = model.predict_proba(given), dict(vars(model))
        with pytest.raises(sfumato.BudgetError):
            model.fit(given[:, :8, ...][:20], np.arange(20) % 2)
        assert vars(model) == facts, "nothing was set"
        np.testing.assert_array_equal(model.predict_proba(given), before)
        with pytest.raises(sfumato.LedgerError, match="pickled"):
            pickle.dumps(model)
        copy = pickle.loads(pickle.dumps(model.set_params(ledger=None)))
    np.testing.assert_array_equal(copy.predict_proba(given), before)
    assert set(copy.predict(given)) <= set(LABELS) and copy.epsilon_ == model.epsilon_


def test_what_is_not_finite_is_refused_or_told_before_anything_is_paid(tmp_path: Path) -> None:
    spoiled, holes, column, one, huge = (
        IMAGES / 255,
        IMAGES / 255,
        ROWS.copy(),
        ROWS.copy(),
        ROWS.copy(),
    )
    spoiled[3, 2, 2], holes[:16, 1, 1], column[:, 5], one[3, 5], huge[:16] = (
        np.nan,
        np.nan,
        np.nan,
        np.inf,
        1e300,
    )
    refused = {
        "images": {r"16 of 30 images .* the first at 0": holes},
        "rows": {r"30 of 30 rows .* all of column 5": column, "16 of 30 rows": huge},
    }
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=20.0) as ledger:
        for kind, each in refused.items():
            for says, given in each.items():
                with pytest.raises(sfumato.ArgumentError, match=says) as refusal:
                    MAKERS[kind][0](ledger=ledger).fit(given, LABELS)
                assert "\n" not in str(refusal.value)
        with pytest.raises(
            sfumato.ArgumentError, match="15 of 15 groups"
        ):  # half of the rows, but one in each group
            half = np.where(np.arange(N)[:, None] % 2, np.nan, ROWS)
            MAKERS["rows"][0](ledger=ledger).fit(half, LABELS, None, np.arange(N) // 2)
        assert ledger.releases == 0
        with pytest.warns(UserWarning, match="1 of 30 images .* the first at 3"):
            seen = MAKERS["images"][0](ledger=ledger).fit(spoiled, LABELS)
        with pytest.warns(UserWarning, match="1 of 30 rows .* the first at 3"):
            model = MAKERS["rows"][0](ledger=ledger).fit(one, LABELS)
    assert np.isfinite(seen.predict_proba(IMAGES)).all()
    with pytest.warns(UserWarning, match="30 of 30 rows"):
        assert np.isfinite(model.predict_proba(column)).all()


@pytest.mark.parametrize(
    "table", [np.array([[1.0, "a"]] * N, object), np.array([["1", "a"]] * N), [[1.0, "a"]] * N]
)
def test_a_column_of_text_is_named(table: Any) -> None:
    with pytest.raises(sfumato.ArgumentError, match=r"X=.*column 1 holds text"):
        MAKERS["rows"][0]().fit(table, LABELS)


def test_a_large_delta_and_a_vanishing_epsilon_are_told_before_the_fit() -> None:
    for kind in MAKERS:
        make, given = MAKERS[kind]
        for changed, says in (
            ({"delta": 0.01}, "outright"),
            ({"epsilon": 0.01}, "little better than chance"),
        ):
            with pytest.warns(UserWarning, match=says):
                make().set_params(**changed).fit(given, LABELS)


def search(model: Any, grid: dict[str, list], given: np.ndarray) -> GridSearchCV:
    return GridSearchCV(model, grid, cv=3, error_score="raise").fit(given, LABELS)


@pytest.mark.parametrize("kind", ["rows", pytest.param("images", marks=pytest.mark.slow)])
def test_a_grid_search_says_what_its_fits_spend_together_or_pays_from_one_ledger(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three folds of three settings, and the last fit on all rows: ten, of which every row takes
    part in seven."""
    monkeypatch.setattr(
        sfumato.estimators.image_classifier
        if kind == "images"
        else sfumato.estimators.linear_classifier,
        "USED",
        UsedRows(),
    )
    make, given = MAKERS[kind]
    with pytest.warns(UserWarning) as told:
        found = search(make().set_params(epsilon=1.0), {"verbose": [0, 0, 0]}, given)
    assert found.best_estimator_.epsilon_ == pytest.approx(1.0, abs=1e-6)
    said = [str(each.message) for each in told if "together" in str(each.message)]
    assert "in 2 fits" in said[0] and "in 7 fits" in said[-1] and "epsilon=7" in said[-1], said
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=8.0) as ledger:
        paying = search(make(ledger=ledger).set_params(epsilon=1.0), {"verbose": [0]}, given)
        releases = sum(each.count for each in paying.best_estimator_.plan_.releases)
        assert ledger.releases == 4 * releases and 1.0 < ledger.epsilon() <= 8.0
    with (
        sfumato.Ledger.create(tmp_path / "small", delta=1e-3, epsilon_max=1.5) as small,
        pytest.raises(sfumato.BudgetError),
    ):
        search(make(ledger=small).set_params(epsilon=1.0), {"verbose": [0]}, given)
    assert sfumato.Ledger.read(tmp_path / "small").epsilon() <= 1.5


def test_a_classifier_takes_bytes_and_floats_alike_and_refuses_other_shapes() -> None:
    model = MAKERS["images"][0]().fit(IMAGES, LABELS).classifier_
    expected = model.predict_proba((IMAGES / 255)[..., None])
    for given in (IMAGES, IMAGES[..., None], IMAGES / np.float32(255)):
        np.testing.assert_allclose(model.predict_proba(given), expected, atol=1e-6)
    bad: dict[str, Any] = {
        "x\\[None\\]": IMAGES[0],
        "this model needs": IMAGES[:, :7],
        "divide by 255": IMAGES.astype(float),
        "dtype int64": IMAGES.astype(np.int64),
    }
    for says, given in bad.items():
        with pytest.raises(sfumato.ArgumentError, match=says) as refusal:
            model.predict_proba(given)
        assert "\n" not in str(refusal.value)


def test_rows_that_are_used_again_are_counted_with_what_they_cost() -> None:
    used, rows = UsedRows(), np.random.default_rng(5).normal(size=(N, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        used.add(rows[:20], 1.0)
        used.add(rows[20:], 1.0)
    with pytest.warns(UserWarning, match=r"in 2 fits .* epsilon=1.5"):
        used.add(rows[::-1], 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        used.add(rows, 0.5)
    with pytest.warns(UserWarning, match=r"in 4 fits .* epsilon=2.5"):
        used.add(rows[5:], 0.5)
