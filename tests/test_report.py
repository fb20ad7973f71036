"""report/: what it says is what the run's files say, and nothing that comes from outside can act in
the page."""

import base64
import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.stats import binom, norm

from sfumato.core.errors import RunError
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, Tally
from sfumato.privacy.risks import risks
from sfumato.report import RunFacts, as_text, model_card, privacy_statement, write_report
from sfumato.report.accuracy import total, with_interval
from sfumato.report.figures import privacy_curve
from sfumato.report.intervals import Score
from sfumato.report.statement import attack_bounds, group_guarantee, largest_true_positive_rate
from sfumato.report.words import duration, epsilon, number, percent, plural, power, risk

HOSTILE = [
    '<script>alert("x")</script>',
    "$\\frac{1}{",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.exe",
    "{{ 7*7 }}",
]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
POISSON = {
    "n": 50000,
    "settings": {
        "batch": 4096,
        "steps": 875,
        "learning_rate": 2.0,
        "momentum": 0.0,
        "clip_norm": 1.0,
        "views": 16,
        "ema": 0.9999,
        "physical_batch_size": 16,
    },
    "sampler": {"kind": "Poisson", "rate": 0.08192, "expected_batch_size": 4096.0},
    "method": "dp-sgd",
    "model": "wrn-16-4",
    "features": None,
    "releases": [
        {
            "name": "gradient",
            "count": 875,
            "noise_multiplier": 4.21,
            "rate": 0.08192,
            "selected": None,
            "what": "The sum of the clipped gradients of one step.",
        }
    ],
}


def confusion(k: int, each: int = 100) -> list[list[int]]:
    """`each` images of every class: most on the diagonal, the rest on the next class."""
    rows = [[0] * k for _ in range(k)]
    for i in range(k):
        wrong = min(each, (7 * i) % 31)
        rows[i][i] += each - wrong
        rows[i][(i + 1) % k] += wrong
    return rows


def make_run(
    run_dir: Path,
    classes: list[str] | None = None,
    rows: list[list[int]] | None = None,
    plan: dict | None = None,
    split: str = "test",
    **result: object,
) -> Path:
    classes = classes if classes is not None else [f"class {i}" for i in range(10)]
    rows = rows if rows is not None else confusion(len(classes))
    n = sum(map(sum, rows))
    spent = {
        "epsilon": 2.99941,
        "delta": 1e-6,
        "releases": 161,
        "epsilon_max": 3.0,
        "complete": True,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    files = {
        "config": {
            "data": "/home/alice/patients",
            "data_dir": None,
            "method": "auto",
            "model": "scattering",
            "epsilon": 3.0,
            "delta": 1e-6,
            "seed": 7,
            "insecure_seed": None,
            "validation": 0.0,
        },
        "plan": {
            "name": "fashion_mnist",
            "n": 60000,
            "n_validation": 0,
            "n_test": n,
            "classes": classes,
            "shape": [28, 28, 1],
            "unit": "image",
            "relation": "add-or-remove-one",
            "method": "dp-fc",
            "model": "scattering",
            "sampler": {"kind": "full batch", "rate": 1.0, "expected_batch_size": 60000},
            "mu": 0.6,
            "settings": {
                "mean_share": 0.02,
                "moments_share": 0.15,
                "power": 0.5,
                "floor": 0.3,
                "steps": 160,
                "momentum": 0.8,
                "clip_norm": 1.0,
                "learning_rate": 2.0,
            },
            "releases": [
                {
                    "name": "covariance",
                    "count": 1,
                    "noise_multiplier": 12.5,
                    "rate": None,
                    "selected": None,
                    "what": "The second moments of the features.",
                },
                {
                    "name": "gradient",
                    "count": 160,
                    "noise_multiplier": 55.25,
                    "rate": None,
                    "selected": None,
                    "what": "The sum of the clipped gradients of one step.",
                },
            ],
            "epsilon": 3.0,
            "delta": 1e-6,
            "parameters": 34570,
            "features": 3456,
            "insecure": False,
            "not_covered": [],
            **(plan or {}),
        },
        "result": {
            "spent": spent,
            "seconds": {"features": 61.2, "training": 88.0, "evaluation": 7.9, "total": 160.0},
            "peak_memory_bytes": 2_400_000_000,
            "versions": {"sfumato": "0.1.0", "jax": "0.10.1"},
            "finished": "2026-11-22T18:30:00+00:00",
            **result,
        },
        "evaluation": {
            "split": split,
            "n": n,
            "confusion": rows,
            "source": f"the {split} split of fashion_mnist",
            "accuracy": sum(rows[i][i] for i in range(len(rows))) / max(1, n),
        },
    }
    for name, value in files.items():
        (run_dir / f"{name}.json").write_text(json.dumps(value))
    steps = [
        {
            "step": 10 * i,
            "seconds": 5.0 * i,
            "epsilon": 3 * (i / 16) ** 0.5,
            "accuracy": 0.9 - 0.8 / (i + 1),
        }
        for i in range(17)
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return run_dir


@pytest.fixture(autouse=True)
def agreeing_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """These run directories are made of figures, not of releases: their ledger says what
    result.json says.

    That a report refuses a ledger that says otherwise is tested on a real run, in test_runs.py.
    """

    def read(run_dir: Path) -> SimpleNamespace:
        spent = json.loads((run_dir / "result.json").read_text())["spent"]
        relation = json.loads((run_dir / "plan.json").read_text())["relation"]
        return SimpleNamespace(
            epsilon=lambda: spent["epsilon"],
            delta=spent["delta"],
            releases=spent["releases"],
            relation=relation,
            tally={},
            private=True,
        )

    monkeypatch.setattr("sfumato.report.facts.Ledger", SimpleNamespace(read=read))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def statement(run_dir: Path) -> str:
    return as_text(privacy_statement(RunFacts.load(run_dir))).replace("\u00a0", " ")


def page(run_dir: Path) -> str:
    return write_report(run_dir).read_text().replace("\u00a0", " ")


class Tags(HTMLParser):
    """Every start tag, its attributes, and the text outside <style>."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def assert_harmless(text: str) -> Tags:
    """No scripts, no handlers, nothing loaded, no id twice."""
    parsed = Tags(text)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        assert not any(name.startswith("on") for name in attributes), attributes
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/png;base64,")), target
        assert all(
            url.startswith("#")
            for url in re.findall(r"url\((.*?)\)", attributes.get("style") or "")
        )
    assert "@import" not in text and "url(http" not in text and "default-src 'none'" in text
    return parsed


# -------------------------------------------------------------------------------------------
# statement


def test_full_batch_statement(tmp_path: Path) -> None:
    text = statement(make_run(tmp_path))
    for part in (
        "60,000 private images",
        "ε = 3 and δ = 10⁻⁶",
        "at most ε = 3",
        "full batch",
        "exact Gaussian composition",
        "161 noisy values",
        "adding or removing one image",
        "Gaussian noise",
        "covariance: 1 release, noise multiplier 12.5",
        "gradient: 160 releases, noise multiplier 55.25",
        "3,456 features",
        "e^ε = 20.1",
        "wrongly accuses 0.1 %",
        "wrongly accuses 1.0 %",
        "the class names (10)",
        "28 × 28 × 1",
        "Test and validation images",
        "these add up",
        "Several images of one person",
        "people in general",
        "Side channels",
        "Floating point",
    ):
        assert part in text, part
    assert "Poisson" not in text and "READ THIS FIRST" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "tally", [{GaussianEvent(2.0): 4}, {PoissonSampledEvent(0.1, GaussianEvent(1.0)): 30}]
)
def test_an_attackers_chances_are_those_of_all_releases_together(
    tmp_path: Path, tally: Tally
) -> None:
    """Far less than (ε, δ) alone would allow, and of plain Gaussians Φ(Φ⁻¹(f) + µ)."""
    facts = replace(RunFacts.load(make_run(tmp_path)), risks=risks(tally, "add-or-remove-one"))
    bounds = {each.false_positive_rate: each.true_positive_rate for each in attack_bounds(facts)}
    alone = {
        each.false_positive_rate: each.true_positive_rate
        for each in attack_bounds(replace(facts, risks=None))
    }
    assert all(f < bounds[f] < alone[f] for f in (0.001, 0.01))
    told = as_text(privacy_statement(facts)).replace("\u00a0", " ")
    assert (
        "all releases together" in told
        and f"detects at most {risk(bounds[0.01])}".replace("\u00a0", " ") in told
    )
    if GaussianEvent(2.0) in tally:
        assert bounds[0.01] == pytest.approx(norm.cdf(norm.ppf(0.01) + 1.0)) and "µ = 1" in told
    plot = privacy_curve(facts.risks, facts.spent.epsilon, facts.spent.delta)
    assert "10⁻⁶" in plot.svg and plot.alt.count("ε = ") == 6


def test_poisson_statement(tmp_path: Path) -> None:
    text = statement(make_run(tmp_path, plan=POISSON))
    for part in (
        "independently with probability q = 0.08192",
        "Poisson",
        "4,096 images expected",
        "PLD (privacy loss distribution) by dp-accounting",
        "sampling rate 0.08192",
    ):
        assert part in text, part
    assert "full batch" not in text and "features each" not in text
    insecure = statement(make_run(tmp_path, plan=POISSON | {"insecure": True}))
    assert "who took part stays secret" in text and "who took part stays secret" not in insecure
    assert "operating system’s entropy" in text and "operating system’s entropy" not in insecure


def test_statement_carries_the_plans_own_exclusions_and_public_facts(tmp_path: Path) -> None:
    plan = {
        "not_covered": ["Pictures of the ward."],
        "left_out": {".dcm": 7},
        "unit": "patient",
        "images_per_unit": 4,
        "grouping": "ward",
    }
    text = statement(make_run(tmp_path, plan=plan))
    assert (
        "Pictures of the ward." in text
        and "told apart by 'ward'" in text
        and "7 .dcm" in text
        and "60,000 private patients" in text
    )


@pytest.mark.parametrize("epsilon_spent", [0.0, 0.5, 3.0, 8.0, 100.0, 1e5])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.3])
def test_true_positive_rate_bound(epsilon_spent: float, delta: float) -> None:
    rates = [largest_true_positive_rate(epsilon_spent, delta, f / 1000) for f in range(1001)]
    assert all(0 <= t <= 1 for t in rates) and rates[-1] == 1
    assert all(a <= b + 1e-15 for a, b in itertools.pairwise(rates))
    for f, t in enumerate(
        rates
    ):  # both directions of the definition, and never worse than guessing
        assert t <= math.exp(min(epsilon_spent, 700)) * f / 1000 + delta + 1e-12
        assert (
            1 - f / 1000 <= math.exp(min(epsilon_spent, 700)) * (1 - t) + delta + 1e-9
            or epsilon_spent > 30
        )
        assert t >= f / 1000 - 1e-12


def test_the_statement_names_the_noise_that_was_drawn(tmp_path: Path) -> None:
    """Each noise has its own defence and its own limits; where nothing is said, it is the default."""

    def said(**noise: str) -> str:
        return statement(make_run(tmp_path, plan=noise))

    assert said() == said(noise="gaussian", noise_rng="philox")
    bits, time = (
        "were not defended against in this run (--noise lattice does)",
        "The time that the noise took",
    )
    assert bits in said() and time not in said()
    lattice = said(noise="lattice")
    assert bits not in lattice and time in lattice and "whole multiple of a public step" in lattice
    assert (
        "discrete Gaussian noise drawn by Philox4x64-10" in lattice
        and "Rounding before the noise" in lattice
    )
    assert "is not a cipher" in said() and "is not a cipher" not in said(noise_rng="chacha")
    assert "drawn by ChaCha20" in said(noise_rng="chacha") and "Philox" not in said(
        noise_rng="chacha"
    )
    assert "one patient more in a sum" in said(unit="patient")
    assert "discrete Gaussian, on a lattice, by ChaCha20" in page(
        make_run(tmp_path, plan={"noise": "lattice", "noise_rng": "chacha"})
    )


def test_true_positive_rate_known_values() -> None:
    assert largest_true_positive_rate(0.0, 0.0, 0.01) == pytest.approx(0.01)
    assert largest_true_positive_rate(3.0, 1e-5, 0.01) == pytest.approx(math.exp(3) * 0.01 + 1e-5)
    assert largest_true_positive_rate(8.0, 1e-5, 0.01) == pytest.approx(
        1 - math.exp(-8) * (1 - 1e-5 - 0.01)
    )
    # the Gaussian mechanism at mu = 1 has delta(1) = 0.12693..., and its true trade-off curve lies
    # below the bound
    from scipy.stats import norm

    delta = float(norm.cdf(-0.5) - math.e * norm.cdf(-1.5))
    for f in (0.001, 0.01, 0.1, 0.3085, 0.5, 0.9):
        assert float(norm.cdf(norm.ppf(f) + 1)) <= largest_true_positive_rate(1.0, delta, f) + 1e-12


def test_group_guarantee() -> None:
    assert group_guarantee(3.0, 1e-5, 1) == (3.0, 1e-5)
    assert group_guarantee(3.0, 1e-5, 2) == (6.0, pytest.approx(1e-5 * (1 + math.exp(3))))
    assert group_guarantee(800.0, 1e-5, 3) == (2400.0, 1.0)


# ------------------------------------------------------------------------------- numbers and
# intervals


def test_intervals_of_an_accuracy_by_hand_and_at_the_ends() -> None:
    assert Score(0, 20).interval == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    assert Score(20, 20).interval == pytest.approx((0.025 ** (1 / 20), 1))
    low, high = Score(8950, 10000).interval
    assert binom.sf(8949, 10000, low) == pytest.approx(0.025) == binom.cdf(8950, 10000, high)
    assert Score(0, 0).interval == (0.0, 1.0)
    with pytest.raises(ValueError):
        _ = Score(3, 2).interval


def test_accuracy_with_interval_reads_as_promised() -> None:
    text = with_interval(Score(8950, 10000), "test image").replace("\u00a0", " ")
    assert text == "89.5 % (95 % interval 88.9 to 90.1, 10,000 test images)"


def test_words() -> None:
    assert [epsilon(x) for x in (3.0, 3.0000000000000004, 2.99941, 0.12341)] == [
        "3",
        "3",
        "3",
        "0.1235",
    ]
    assert [power(x) for x in (1e-5, 2.1e-4, 0.0)] == ["10⁻⁵", "2.1\u00a0×\u00a010⁻⁴", "0"]
    assert power(1.01e-5) == "1.1\u00a0×\u00a010⁻⁵"  # rounded up: a bound
    assert [number(x) for x in (1.0, 55.25, 0.08192, 1234567.0, 1e-9)] == [
        "1",
        "55.25",
        "0.08192",
        "1,235,000",
        "10⁻⁹",
    ]
    assert [risk(x) for x in (0.0200955, 0.99966, 1.0)] == [
        "2.1\u00a0%",
        "99.97\u00a0%",
        "100\u00a0%",
    ]
    assert risk(1 - 1e-9) == "more than 99.9999\u00a0%"
    assert plural(1, "release") == "1\u00a0release" and plural(0, "image") == "0\u00a0images"
    assert [duration(x) for x in (4.2, 125, 7260)] == [
        "4.2\u00a0s",
        "2\u00a0min 05\u00a0s",
        "2\u00a0h 01\u00a0min",
    ]
    assert percent(0.895) == "89.5\u00a0%"


# -------------------------------------------------------------------------------------------- the
# page


def test_report_is_one_harmless_file_with_every_number_and_its_source(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a run")
    text = page(run)
    parsed = assert_harmless(text)
    evaluation = RunFacts.load(run).evaluation
    assert evaluation is not None
    for part in (
        with_interval(total(evaluation), "test image").replace("\u00a0", " "),
        "is right 10.0 % of the time",
        "These numbers come from test images (the test split of fashion_mnist)",
        "12.5",
        "55.25",
        "sfumato account 'a run/ledger.jsonl'",
        "22 November 2026, 18:30 UTC",
        "88.0 s",
        "2 min 40 s",
        "2.4 GB",
    ):
        assert part in parsed.text(), part
    assert not any(part in text for part in ("alice", "NOT PRIVATE", "INCOMPLETE", "--show-images"))
    assert not any(attributes.get("class") == "banner" for _, attributes in parsed.tags)
    assert sum(tag == "svg" for tag, _ in parsed.tags) == 3
    assert all(a.get("aria-label") for tag, a in parsed.tags if a.get("role") in ("img", "region"))
    assert all(a.get("scope") in ("row", "col") for tag, a in parsed.tags if tag == "th")
    assert sorted(path.name for path in run.glob("*.md")) == ["model_card.md"] and not list(
        run.glob(".*")
    )


@pytest.mark.slow
def test_same_facts_same_bytes(tmp_path: Path) -> None:
    first = write_report(make_run(tmp_path)).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        classes=HOSTILE,
        rows=confusion(5),
        plan={"name": "\x1b[2J" + HOSTILE[0], "model": HOSTILE[2]},
    )
    image = {"png_base64": PIXEL, "true": HOSTILE[2], "predicted": HOSTILE[0], "confidence": 0.5}
    (run / "images.json").write_text(json.dumps([image]))
    parsed = assert_harmless(page(run))
    assert '<script>alert("x")</script>' in parsed.text() and "{{ 7*7 }}" in parsed.text()
    assert "$\\frac{1}{" in parsed.text() and "\u202e" not in parsed.text()
    card = (run / "model_card.md").read_text()
    assert "\x1b" not in card + statement(run)
    assert "<script" not in card and "<img" not in card and "\u202e" not in card


@pytest.mark.slow
def test_insecure_and_incomplete_and_overspent_banners(tmp_path: Path) -> None:
    run = make_run(tmp_path, plan={"insecure": True})
    text = page(run)
    assert '<p class="banner" role="alert">NOT PRIVATE: fixed noise seed' in text
    assert (
        "no bound holds" in text
        and "detects at most" not in text
        and "would be differentially private" in text
    )
    assert "NOT PRIVATE" in model_card(RunFacts.load(run)) and "NOT PRIVATE" in statement(run)
    spent = {"epsilon": 1.0, "delta": 1e-5, "releases": 40, "epsilon_max": 3.0, "complete": False}
    assert "INCOMPLETE RUN" in page(make_run(tmp_path, spent=spent))
    assert "More was spent (ε = 3.5" in page(
        make_run(tmp_path, spent=spent | {"epsilon": 3.5, "complete": True})
    )


def test_an_insecure_seed_in_the_config_alone_is_enough_for_the_banner(tmp_path: Path) -> None:
    edit(make_run(tmp_path) / "config.json", insecure_seed=0)
    assert "NOT PRIVATE" in page(tmp_path)


def test_validation_is_never_called_test(tmp_path: Path) -> None:
    text = Tags(page(make_run(tmp_path, split="validation"))).text()
    assert "These numbers come from validation images" in text and "not from a test set" in text
    assert "1,000 validation images" in text and "test images" not in text


def test_examples_that_are_no_images_are_called_examples(tmp_path: Path) -> None:
    rows = {"model": "rows", "unit": "example", "shape": [1, 1, 8], "features": 8}
    text = Tags(
        re.sub("<style>.*?</style>", "", page(make_run(tmp_path, plan=rows)), flags=re.DOTALL)
    ).text()
    assert (
        "1,000 test examples" in text
        and "Counted on 1,000 test examples" in text
        and "image" not in text.lower()
    )


def test_no_evaluation_and_no_course(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "evaluation.json").unlink()
    (run / "metrics.jsonl").write_text("")
    text = page(run)
    assert "There were no test data" in text and "<svg" not in text


def test_metrics_without_accuracy_and_a_torn_last_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = "".join(
        json.dumps({"step": i, "seconds": 1.0, "epsilon": i / 10}) + "\n" for i in range(5)
    )
    (run / "metrics.jsonl").write_text(lines + '{"step": 5, "sec')
    assert len(RunFacts.load(run).metrics) == 5
    assert "ε spent rises to 0.4" in page(run)


@pytest.mark.parametrize("k", [1, 2, 100])
def test_any_number_of_classes(tmp_path: Path, k: int) -> None:
    text = page(
        make_run(tmp_path, classes=[f"kind {i}" for i in range(k)], rows=confusion(k, each=40))
    )
    parsed = assert_harmless(text)
    assert f"kind {k - 1}" in parsed.text() and len(text) < 600_000
    if k == 100:
        assert "The 15 best and the 15 worst classes" in text and "data:image/png" in text


def test_a_class_without_images_has_no_accuracy(tmp_path: Path) -> None:
    text = Tags(
        page(make_run(tmp_path, classes=["a", "b", "c"], rows=[[5, 1, 0], [0, 0, 0], [2, 0, 7]]))
    ).text()
    assert "66.7 %" not in text and "80.0 %" in text and "0.0 to 100.0" in text


def test_images_only_under_a_warning_and_only_as_png(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    image = {"png_base64": PIXEL, "true": "class 1", "predicted": "class 2", "confidence": 0.73}
    (run / "images.json").write_text(json.dumps([image]))
    text = page(run)
    assert "These are real test images" in text and "73 % sure" in text and PIXEL in text
    for bad in ("x" + PIXEL[1:], base64.b64encode(b"<svg onload=alert(1)>").decode(), '"><script>'):
        (run / "images.json").write_text(json.dumps([image | {"png_base64": bad}]))
        with pytest.raises(RunError, match="not a base64 PNG"):
            write_report(run)


# ------------------------------------------------------------------------------------------- bad
# input


@pytest.mark.parametrize("name", ["config.json", "plan.json", "result.json", "metrics.jsonl"])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    (make_run(tmp_path) / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: this file is missing") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["config.json", "plan.json", "result.json", "evaluation.json"])
@pytest.mark.parametrize("content", [b'{"n": ', b"[]", b"\xff\xfe\x00", b'{"n": NaN}', b"3"])
def test_a_damaged_file_is_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (make_run(tmp_path) / name).write_bytes(content)
    with pytest.raises(RunError, match=name) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("plan.json", {"n": "many"}, "n must be int, not str"),
        ("plan.json", {"insecure": 0}, "insecure must be bool"),
        ("plan.json", {"epsilon": -1.0}, "not a privacy guarantee"),
        ("plan.json", {"noise": "laplace"}, "choose one of gaussian, lattice"),
        ("plan.json", {"noise_rng": "mersenne"}, "choose one of philox, chacha"),
        ("plan.json", {"sampler": {"kind": "Poisson"}}, r"damaged, sampler\.rate is missing"),
        (
            "plan.json",
            {"sampler": {"kind": "dice"}},
            r"plan\.json: sampler\.kind='dice' is unknown",
        ),
        ("plan.json", {"releases": [{"name": "g", "count": 3}]}, r"releases\[0\] is not what"),
        ("plan.json", {"method": "dp-magic"}, "dp-magic.*not known to this version"),
        ("plan.json", {"settings": {}}, "mean_share is missing"),
        ("result.json", {"spent": None}, "spent must be an object"),
        ("evaluation.json", {"accuracy": 0.99}, "is not that of the confusion matrix"),
        ("evaluation.json", {"n": 3}, "counts 1000 images, n says 3"),
        ("evaluation.json", {"confusion": [[1, 2]]}, "10 by 10"),
        ("evaluation.json", {"split": "train"}, "not test or validation"),
    ],
)
def test_what_cannot_be_true_is_refused(
    tmp_path: Path, name: str, changes: dict, complaint: str
) -> None:
    edit(make_run(tmp_path) / name, **changes)
    with pytest.raises(RunError, match=complaint):
        RunFacts.load(tmp_path)


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run directory"):
        write_report(tmp_path / "nowhere")


def test_facts_are_frozen_and_files_that_were_skipped_are_nobodys_business(tmp_path: Path) -> None:
    facts = RunFacts.load(make_run(tmp_path, skipped=["anna_meier.png", "b.png"]))
    assert "anna" not in page(tmp_path) and "unreadable" not in page(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.plan.n = 1  # type: ignore[misc]


def test_the_room_imports_nothing_heavy() -> None:
    heavy = "{'jax', 'equinox', 'optax', 'matplotlib', 'jinja2', 'scipy', 'PIL'}"
    code = f"import sys, sfumato.report; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
