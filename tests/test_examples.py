"""Every example and every notebook is run, as a stranger would run it."""

import ast
import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "twelve_lines.py": r"accuracy (?:8|9)\d",
    "own_flax_network.py": r"accuracy (?:[6-9])\d",
    "own_data_source.py": r"accuracy [89]\d.*epsilon (?:2\.9|3\.0)",
    "patients.py": r"epsilon [78]\.\d+ for group with up to 3 images",
    "transfer.py": r"(?s)runs.transfer.*accuracy",
    "audit.py": r"epsilon is at least \d\.\d+ of 4\.00 claimed",
    "sweep.py": r"\| ls \|(?s:.*)sweep\.html",
    "eight_devices.py": r"8 devices and one: the same bits in \d+ arrays",
    "resume.py": r"the same bits; 40 releases",
    "pipeline.py": r"(?s)cross-validation.*refused: .*epsilon_max=8",
}
"""What each must say, among other things."""
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
ALL, SOME = "digits.train[np.arange(len(digits.train))]", "digits.train[np.arange(500)]"
SMALLER = {
    "chest_xrays.ipynb": ("PATIENTS, SIDE, stream = 1_500, 32", "PATIENTS, SIDE, stream = 400, 24"),
    "first_model.ipynb": (ALL, SOME),
    "patients.py": (ALL, SOME),
    "transfer.py": (ALL, SOME),
}
"""What a reader may set, and what is run here."""
NEEDS = {"own_flax_network.py": "flax"}
APART = "eight_devices.py"
"""Needs another number of devices than this process has."""


def smaller(name: str, text: str) -> str:
    if name not in SMALLER:
        return text
    shown, run = SMALLER[name]
    assert text.count(shown) == 1
    return text.replace(shown, run)


def test_every_example_is_run_here_and_shown() -> None:
    assert set(SAYS) == {path.name for path in EXAMPLES.glob("*.py")}
    shown = (EXAMPLES.parent / "docs" / "examples.md").read_text()
    for path in (*EXAMPLES.glob("*.py"), *NOTEBOOKS):
        assert f"](../examples/{path.name})" in shown, path.name
    for name in SAYS:
        told = ast.get_docstring(ast.parse((EXAMPLES / name).read_text()))
        assert told and re.search(rf"python\s+examples/{name}", told), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [each for each in SAYS if each not in ("twelve_lines.py", APART)])
def test_an_example_does_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    text = smaller(name, (EXAMPLES / name).read_text())
    (tmp_path / name).write_text(text)
    runpy.run_path(str(tmp_path / name), run_name="__main__")
    assert re.search(SAYS[name], capsys.readouterr().out)


@pytest.mark.slow
def test_eight_devices_are_one(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / APART)]
    root = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=root, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert re.search(SAYS[APART], ran.stdout)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_what_it_printed(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")
    for cell in cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]).replace("%matplotlib inline", ""))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_draws(path: Path, tmp_path: Path) -> None:
    for package in ("nbclient", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(smaller(path.name, path.read_text()), as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", ())]
    pictures = [each for each in outputs if "image/png" in each.get("data", {})]
    assert len(pictures) >= 2 and not [each for each in outputs if each.output_type == "error"]
