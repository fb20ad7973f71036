"""scikit-learn's checks of DPImageClassifier. They know rows only, so here rows are made images of
8 x 8 pixels first."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from sfumato import DPImageClassifier

NOISE = "compares two fits, whose noise differs"
EXPECTED_TO_FAIL = {
    "check_do_not_raise_errors_in_init_or_set_params": "the types of arguments are checked while tests run",
    "check_classifier_data_not_an_array": NOISE,
    "check_supervised_y_2d": NOISE,
    "check_classifiers_multilabel_representation_invariance": NOISE,
    "check_fit_idempotent": NOISE,
}
MEANINGFUL = {
    "check_classifiers_multilabel_output_format_predict",
    "check_classifiers_multilabel_output_format_predict_proba",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_classifiers_one_label",
    "check_classifiers_regression_target",
    "check_dict_unchanged",
    "check_estimators_dtypes",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_estimators_unfitted",
    "check_fit2d_1sample",
    "check_fit_check_is_fitted",
    "check_requires_y_none",
}
"""Of those that scikit-learn would run of rows: some that must have run, for a tag may make it
leave out nearly all."""


def pictures(rows: np.ndarray) -> np.ndarray:
    """Any numbers to ]0, 1[, beside zeros."""
    side = max(8, int(np.ceil(rows.shape[1] ** 0.5)))
    padded = np.zeros((len(rows), side * side))
    padded[:, : rows.shape[1]] = 1 / (1 + np.exp(-np.clip(rows, -50, 50)))
    return padded.reshape(-1, side, side)


class OnRows(DPImageClassifier):
    def fit(self, X: Any, y: Any, groups: Any = None) -> "OnRows":
        rows = validate_data(self, X, dtype=np.float64, ensure_all_finite=False)
        return super().fit(pictures(rows), y, groups)

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "classifier_")
        return super().predict_proba(
            pictures(validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False))
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


def objections(model: Any) -> tuple[set[str], dict[str, Exception]]:
    """(the checks that ran, what each that failed said)."""
    ran, failed = set(), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for given, check in estimator_checks_generator(model):
            name = getattr(check, "func", check).__name__
            try:
                check(given)
            except Exception as error:
                if type(error).__name__ == "SkipTest":
                    continue
                failed[name] = error
            ran.add(name)
    return ran, failed


@pytest.mark.slow
def test_sklearn_objects_to_nothing_that_has_a_meaning_for_images() -> None:
    ran, failed = objections(OnRows(epsilon=8.0, method="means", model="scattering"))
    assert ran >= MEANINGFUL, MEANINGFUL - ran
    assert set(failed) <= set(EXPECTED_TO_FAIL), {
        name: failed[name] for name in set(failed) - set(EXPECTED_TO_FAIL)
    }
