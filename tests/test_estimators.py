"""Both estimators as objects: refused fits, pickles, wild input, rows that were used before."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import sfumato
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
    spoiled, column, one = IMAGES / 255, ROWS.copy(), ROWS.copy()
    spoiled[3, 2, 2], column[:, 5], one[3, 5] = np.nan, np.nan, np.inf
    with sfumato.Ledger.create(tmp_path, delta=1e-3, epsilon_max=20.0) as ledger:
        with pytest.raises(sfumato.ArgumentError, match=r"1 of 30 images .* the first at 3"):
            MAKERS["images"][0](ledger=ledger).fit(spoiled, LABELS)
        with pytest.raises(sfumato.ArgumentError, match=r"30 of 30 rows .* all of column 5"):
            MAKERS["rows"][0](ledger=ledger).fit(column, LABELS)
        assert ledger.releases == 0
        with pytest.warns(UserWarning, match="1 of 30 rows"):
            model = MAKERS["rows"][0](ledger=ledger).fit(one, LABELS)
    with pytest.warns(UserWarning, match="30 of 30 rows"):
        assert np.isfinite(model.predict_proba(column)).all()


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
