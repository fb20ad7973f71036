"""The faces of the library: public names, the estimator, the README's example."""

import ast
import importlib.metadata
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

import sfumato

ROOT = Path(__file__).resolve().parents[1]


def digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.images[:n] / 16).astype(np.float32), np.array(
        [f"digit {label}" for label in found.target[:n]]
    )


def test_every_public_name_exists() -> None:
    for name in sfumato.__all__:
        assert getattr(sfumato, name) is not None
    with pytest.raises(AttributeError):
        getattr(sfumato, "no_such_name")  # noqa: B009


def test_type_checkers_see_every_public_name_and_no_other() -> None:
    tree = ast.parse((ROOT / "sfumato" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(sfumato.__all__)
    for name, (home, own) in seen.items():
        if name in sfumato._HOME_OF:
            assert (home, own) == (sfumato._HOME_OF[name], name)


def test_the_version_is_written_once() -> None:
    assert sfumato.__version__ == importlib.metadata.version("sfumato")
    assert sfumato.__version__ not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
def test_the_readme_shows_the_example_that_is_run_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Margin: 25 standard deviations."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    shown = next(block for block in blocks if "DPSGD" in block)
    source = (ROOT / "examples" / "twelve_lines.py").read_text()
    for line in filter(None, shown.splitlines()):
        assert line in source
    runpy.run_path(str(ROOT / "examples" / "twelve_lines.py"))
    epsilon, accuracy = re.search(
        r"report.html ([\d.]+)\naccuracy ([\d.]+) %", capsys.readouterr().out
    ).groups()
    assert float(accuracy) > 80
    assert 7.9 < float(epsilon) <= 8


@pytest.mark.slow
def test_the_estimator_learns_strings() -> None:
    """Margin: 43 standard deviations."""
    images, labels = digits(1_300)
    model = sfumato.DPImageClassifier(epsilon=8.0, model="scattering").fit(
        images[:1_000], labels[:1_000]
    )
    assert model.score(images[1_000:], labels[1_000:]) > 0.6
    assert set(model.classes_) == set(labels)
    assert model.predict_proba(images[:3]).shape == (3, 10) and model.epsilon_ <= 8.0


def test_the_estimator_is_cloneable() -> None:
    model = sfumato.DPImageClassifier(epsilon=2.0, model="cnn")
    assert clone(model).get_params() == model.get_params()


def test_two_fits_share_one_budget_and_a_third_is_refused(tmp_path: Path) -> None:
    images, labels = digits(200)
    with sfumato.Ledger.create(tmp_path, delta=1e-4, epsilon_max=4.0) as ledger:
        model = sfumato.DPImageClassifier(
            epsilon=2.0, delta=1e-4, model="scattering", ledger=ledger
        )
        model.fit(images, labels)
        model.fit(images, labels)
        spent, lines = ledger.epsilon(), ledger.head.lines
        assert 2.0 < spent <= 4.0
        with pytest.raises(sfumato.BudgetError):
            clone(model).set_params(epsilon=3.0, ledger=ledger).fit(images, labels)
        assert (ledger.epsilon(), ledger.head.lines) == (spent, lines)


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0.0}, {"epsilon": float("nan")}, {"delta": 0.1}, {"model": "resnet"}]
)
def test_bad_arguments_are_named(wrong: dict) -> None:
    images, labels = digits(100)
    with pytest.raises(sfumato.ArgumentError, match=next(iter(wrong))):
        sfumato.DPImageClassifier(**wrong).fit(images, labels)
