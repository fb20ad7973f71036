"""scikit-learn: a pipeline, one budget for several fits, cross-validation that pays. `python
examples/pipeline.py` (half a minute)."""

import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import sfumato as sf

found = load_digits()
rows, labels = found.data / 16, found.target
train, test = np.arange(len(rows)) % 5 != 0, np.arange(len(rows)) % 5 == 0

# A step that looks at one row at a time costs nothing. A StandardScaler that is fitted on private rows
# would be outside of epsilon.
roots = FunctionTransformer(np.sqrt)
model = make_pipeline(roots, sf.DPLinearClassifier(epsilon=3.0, method="ls"))
model.fit(rows[train], labels[train])
print(f"accuracy {100 * model.score(rows[test], labels[test]):.1f} % at epsilon 3")

# Five fits of cross-validation look at the same rows: one ledger pays for all, and refuses a sixth.
with (
    tempfile.TemporaryDirectory() as folder,
    sf.Ledger.create(folder, delta=1e-5, epsilon_max=8.0) as ledger,
):
    one = sf.DPLinearClassifier(epsilon=3.0, delta=1e-5, method="ls", ledger=ledger)
    scores = cross_val_score(make_pipeline(roots, one), rows[train], labels[train], cv=5)
    print(
        f"cross-validation {100 * scores.mean():.1f} %; all five fits spent {ledger.epsilon():.2f}"
    )
    try:
        for _ in range(5):
            one.fit(rows[train], labels[train])
    except sf.BudgetError as error:
        print(f"refused: {error}")
