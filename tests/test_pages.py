"""What the report's pages have in common, and the learning curve as a picture."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import sfumato, succeeds

from sfumato.report import RunFacts, curve
from sfumato.report.html import render

TEMPLATES = Path(curve.__file__).parent


def test_one_template_has_the_head_and_every_other_extends_it() -> None:
    found = {path.name: path.read_text() for path in TEMPLATES.glob("*.html")}
    assert "Content-Security-Policy" in found.pop("base.html")
    for name, text in found.items():
        assert text.startswith('{% extends "base.html" %}'), name
        assert "<head>" not in text and "<style" not in text and "<meta" not in text, name


def test_every_page_forbids_scripts_and_escapes_what_it_is_given(finished: Path) -> None:
    points = {"<b>ls</b>": [(1.0, 0.5, 0.1), (3.0, 0.75, 0.0)]}
    total = {"epsilon": 4.0, "delta": 1e-5}
    swept = curve.html(b"picture", points, 0.8125, "<script>alert(1)</script>", total)
    for text in (swept, render(RunFacts.load(finished))):
        assert text.startswith("<!doctype html>") and "default-src 'none'" in text
        assert text.count("<main>") == text.count("<title>") == 1
        assert "<script" not in text and "<b>" not in text
    assert "81.25" in swept and "75.00" in swept and "50.00 ± 10.00" in swept


@pytest.mark.slow
def test_the_learning_curve_is_a_png_of_its_own(finished: Path, tmp_path: Path) -> None:
    run, png = tmp_path / "run", tmp_path / "curve.png"
    shutil.copytree(finished, run)
    assert str(png) in succeeds("report", run, "--curve", png)
    image = Image.open(io.BytesIO(png.read_bytes()))
    assert image.format == "PNG" and image.size == (960, 600)
    assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 3


@pytest.mark.slow
def test_a_run_without_a_course_has_no_picture(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    succeeds("report", run)
    (run / "metrics.jsonl").write_text("")
    succeeds("report", run)
    before = sorted(tmp_path.iterdir())
    outcome = sfumato("report", run, "--curve", tmp_path / "curve.png")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "no learning curve" in outcome.err and sorted(tmp_path.iterdir()) == before
