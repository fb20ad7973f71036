"""Curves as PNG, to be put into other people's pages: accuracy over epsilon, a line per method (also as a
page of its own), and the course of one run."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.core.errors import RunError
from sfumato.privacy.not_private import MARK
from sfumato.report.facts import RunFacts, printable
from sfumato.report.figures import courses_of_findings
from sfumato.report.pages import page

Points = Mapping[str, Sequence[tuple[float, float, float]]]
"""method -> (epsilon, mean accuracy, its standard deviation over repeats) in ascending epsilon; the deviation
of a single fit is not known and 0."""


def draw(points: Points, without_noise: float, title: str) -> bytes:
    """PNG. without_noise: the accuracy of the same features without privacy, a dashed line."""
    figure, axes = _drawing(1)
    for (method, found), marker in zip(points.items(), "osD^vP*X<>" * len(points), strict=False):
        epsilons, means, spreads = zip(*found, strict=True)
        axes.errorbar(
            epsilons,
            [100 * each for each in means],
            [100 * each for each in spreads],
            label=method,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            capsize=2,
        )
    axes.axhline(
        100 * without_noise,
        color="0.45",
        linewidth=1,
        linestyle=(0, (4, 3)),
        label="without privacy",
    )
    axes.set(xscale="log", xlabel="ε (smaller is more private)", ylabel="accuracy, %", title=title)
    marks = sorted({epsilon for found in points.values() for epsilon, *_ in found})
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.legend(frameon=True, framealpha=0.9, fontsize=8)
    return _png(figure)


def course(facts: RunFacts) -> bytes:
    """PNG: accuracy (of findings their mean ROC AUC, thin: of each) on held-out images (where any are) and the epsilon spent, over the steps of a run. Raises
    RunError where the run has no course."""
    metrics = sorted(facts.metrics, key=lambda each: each.step)
    if len({each.step for each in metrics}) < 2:
        raise RunError(
            f"{facts.run_dir}: has no learning curve (one release, or none of it was looked at)"
        )
    scored_by = metrics[-1].scored
    whole, unit = (100, ", %") if scored_by == "accuracy" else (1, "")
    scored = [(each.step, whole * each.score) for each in metrics if each.score is not None]
    priced = facts.plan.epsilon < math.inf
    if not (scored or priced):
        raise RunError(f"{facts.run_dir}: has no learning curve, and promises no epsilon")
    figure, *panels = _drawing(2 if scored and priced else 1)
    if scored:
        for each in courses_of_findings(tuple(metrics)):
            panels[0].plot(*zip(*each, strict=True), color="0.7", linewidth=0.8)
        panels[0].plot(
            *zip(*scored, strict=True), color="C0", marker="o", markersize=4, linewidth=1.4
        )
        panels[0].set(ylabel=f"{scored_by}{unit}", title=printable(facts.plan.name))
        panels[0].grid(color="0.9")
    if not priced:
        panels[0].set(xlabel="step", title=f"{printable(facts.plan.name)}: {MARK}")
        return _png(figure)
    spent = [(each.step, each.epsilon) for each in metrics]
    panels[-1].plot(*zip(*spent, strict=True), linewidth=1.4)
    panels[-1].axhline(facts.plan.epsilon, color="0.45", linewidth=1, linestyle=(0, (4, 3)))
    panels[-1].set(xlabel="step", ylabel="ε spent", ylim=(0, None))
    panels[-1].grid(color="0.9")
    return _png(figure)


def _drawing(rows: int) -> tuple[Any, ...]:
    """(figure, its axes from above)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, *figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def table(points: Points, without_noise: float) -> str:
    """Markdown: a row per method, a column per epsilon, accuracy in percent, mean ± deviation."""
    marks = sorted({epsilon for found in points.values() for epsilon, *_ in found})
    lines = [
        "| method | " + " | ".join(f"ε = {mark:g}" for mark in marks) + " |",
        "|---" * (len(marks) + 1) + "|",
    ]
    for method, found in points.items():
        known = {epsilon: _cell(mean, spread) for epsilon, mean, spread in found}
        lines.append(f"| {method} | " + " | ".join(known.get(mark, "") for mark in marks) + " |")
    return "\n".join([*lines, "", f"Without privacy: {100 * without_noise:.2f} %."])


def _cell(mean: float, spread: float) -> str:
    return f"{100 * mean:.2f}" + (f" ± {100 * spread:.2f}" if spread else "")


def html(
    picture: bytes, points: Points, without_noise: float, title: str, total: dict[str, float]
) -> str:
    """One HTML file, in the report's style, with the picture in it. total: epsilon and delta of all fits
    together."""
    marks = sorted({epsilon for found in points.values() for epsilon, *_ in found})
    known = {
        (method, epsilon): _cell(mean, spread)
        for method, found in points.items()
        for epsilon, mean, spread in found
    }
    cells = [(mark, [known.get((method, mark), "") for method in points]) for mark in marks]
    values = {
        "picture": base64.b64encode(picture).decode(),
        "title": title,
        "methods": list(points),
        "rows": cells,
        "without": without_noise,
        "repeated": any(spread for found in points.values() for *_, spread in found),
        "total": total,
    }
    return page("sweep.html", values)
