"""The report's plots: SVG text to be placed inside HTML, in the colors of the page, light or dark.

Matplotlib writes fixed colors. We draw in five stand-in colors and turn each into a CSS variable
afterwards, so one drawing serves both schemes. Text stays text (searchable, in the page's font).
Nothing here touches pyplot's state.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfumato.audit.result import AuditResult
from sfumato.privacy.risks import Risks
from sfumato.report import words
from sfumato.report.facts import Evaluation, Metric
from sfumato.report.intervals import Score
from sfumato.train.finding_metrics import FindingMeasure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, ACCENT, ON_ACCENT, GRID = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "ink", MUTED: "muted", ACCENT: "accent", ON_ACCENT: "on-accent", GRID: "grid"}
WIDTH = 4.7  # inches; drawn narrow, so that the letters stay legible on a phone
NAMED_CELLS, NUMBERED_CELLS = (
    40,
    12,
)  # up to so many classes, a confusion matrix shows names and counts
MOST_ROWS = 30
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Plot:
    """A drawing, and what it says to someone who cannot see it."""

    svg: str
    alt: str
    caption: str
    share: float = 1.0  # of the full width


def shorten(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def draw(name: str, height: float, paint: Callable[[Any], None], width: float = WIDTH) -> str:
    """Paint on a fresh figure and give it back as an <svg> whose ids start with `name`."""
    import warnings

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # glyphs that Matplotlib's font lacks; the browser has others
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        empty = {"Creator": None, "Date": None, "Format": None, "Type": None}
        # `savefig` would draw everything twice
        FigureCanvasSVG(figure).print_svg(buffer, metadata=empty)
    return _for_page(buffer.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """Cut to the <svg> element; make ids unique and colors variables, in tags only (text is
    escaped: `<` is a tag)."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)

    def tag(match: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", match.group())
        return re.sub("|".join(VARIABLES), lambda color: f"var(--{VARIABLES[color.group()]})", text)

    svg = re.sub(r"<[^>]*>", tag, svg)
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def percent_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))


def privacy_curve(risks: Risks, epsilon: float, delta: float) -> Plot:
    """ε over δ of all releases together, with the pair that the run speaks of."""

    deltas = [at for at, _ in risks.curve]

    def paint(figure: Any) -> None:
        axis = figure.subplots()
        axis.plot(*zip(*risks.curve, strict=True), color=ACCENT, linewidth=1.6)
        axis.plot([delta], [epsilon], color=ACCENT, marker="o", markersize=4, linestyle="none")
        axis.set(
            xscale="log",
            xlabel="δ",
            ylabel="ε",
            ylim=(0, 1.12 * max(epsilon, *(each for _, each in risks.curve))),
        )
        axis.set_xticks(deltas, [words.power(each) for each in deltas])
        axis.minorticks_off()

    told = "; ".join(
        f"ε = {words.epsilon(each)} at δ = {words.power(at)}" for at, each in risks.curve
    )
    return Plot(
        draw("privacy-curve", 1.7, paint),
        f"Line plot of ε over δ: {told}.",
        f"The same releases hold every pair (ε, δ) on this line, not only the one that is promised (dot): {told}.",
    )


def learning_curve(metrics: tuple[Metric, ...], promised: float, what: str) -> Plot | None:
    """Accuracy (of findings the areas under their ROC curves) over steps, and below it the ε spent by then.
    None when there is no course to show."""
    if len({metric.step for metric in metrics}) < 2:
        return None
    from matplotlib.ticker import MaxNLocator

    metrics = tuple(sorted(metrics, key=lambda metric: metric.step))
    scored = [(metric.step, metric.score) for metric in metrics if metric.score is not None]
    scored_by, priced = metrics[-1].scored, promised < math.inf
    if not (scored or priced):
        return None

    def paint(figure: Any) -> None:
        heights = [3] * bool(scored) + [2] * priced
        panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
        lower = panels[-1, 0]
        if scored:
            upper = panels[0, 0]
            for course in courses_of_findings(metrics):
                upper.plot(*zip(*course, strict=True), color=MUTED, linewidth=0.8, alpha=0.5)
            upper.plot(
                *zip(*scored, strict=True), color=ACCENT, linewidth=1.6, marker="o", markersize=2.6
            )
            upper.set_ylabel(scored_by)
            if scored_by == "accuracy":
                percent_axis(upper.yaxis)
        lower.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        lower.set(xlabel="step")
        if not priced:
            return
        lower.plot(
            [m.step for m in metrics], [m.epsilon for m in metrics], color=ACCENT, linewidth=1.6
        )
        lower.axhline(promised, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        lower.annotate(
            "promised",
            (0, promised),
            (2, -3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top",
            color=MUTED,
            fontsize=7.5,
        )
        lower.set(ylabel="ε spent", ylim=(0, 1.12 * max(promised, *(m.epsilon for m in metrics))))

    steps, last = f"{metrics[-1].step:,} steps", metrics[-1].epsilon
    alt, caption = "Line plot.", ""
    if priced:
        alt += f" Over {steps}, ε spent rises to {last:.3g}, where {promised:g} is promised."
        caption = "ε spent so far, an upper bound; it comes from the ledger’s events and tells nothing of the data."
    if scored:
        first, end = (
            f"{100 * value:.1f} %" if scored_by == "accuracy" else f"{value:.3f}"
            for value in (scored[0][1], scored[-1][1])
        )
        alt += f" {scored_by[0].upper()}{scored_by[1:]} goes from {first} to {end}."
        thin = "" if scored_by == "accuracy" else " (thin lines: of each finding)"
        some = metrics[-1].images
        which = f"{some:,} of the {what}, the same at every point," if some else f"the {what}"
        shown = f"{scored_by}{thin} on {which} as training went on."
        caption = f"Above: {shown} Below: {caption}" if priced else f"{shown[0].upper()}{shown[1:]}"
    return Plot(draw("curve", 3.5 if scored else 1.9, paint), alt, caption)


def courses_of_findings(metrics: tuple[Metric, ...]) -> list[list[tuple[int, float]]]:
    """(step, ROC AUC) of each finding, where it is known at two steps or more."""
    widest = max((len(metric.roc_aucs) for metric in metrics), default=0)
    courses = [
        [
            (metric.step, found[0])
            for metric in metrics
            if (found := dict(enumerate(metric.roc_aucs)).get(k)) is not None
        ]
        for k in range(widest)
    ]
    return [course for course in courses if len(course) > 1]


def audit_plot(results: tuple[AuditResult, ...]) -> Plot:
    """A bar per result up to its lower bound, and a mark at the claim."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for row, each in enumerate(results):
            axes.barh(row, each.lower_bound, 0.6, color=INK if each.broken else ACCENT, linewidth=0)
            axes.plot([each.epsilon] * 2, [row - 0.42, row + 0.42], color=MUTED, linewidth=1.6)
        axes.set_yticks(
            range(len(results)), [f"{each.attack}, {each.method}" for each in results], color=INK
        )
        most = max(max(each.epsilon, each.lower_bound) for each in results)
        axes.set(
            ylim=(len(results) - 0.4, -0.6),
            xlim=(0, 1.05 * most),
            xlabel="ε measured (bar) and claimed (line)",
        )
        axes.grid(visible=False, axis="y")

    alt = "Bar chart of empirical against claimed ε. " + " ".join(
        f"{each.attack}, {each.method}: at least {each.lower_bound:.2f} of {each.epsilon:.2f} claimed."
        for each in results
    )
    caption = "How much of the claimed ε each attack could demonstrate, with 95 % confidence. No bar may pass its line."
    return Plot(draw("audit", 0.7 + 0.32 * len(results), paint), alt, caption)


def class_plot(names: tuple[str, ...], scores: list[Score], what: str) -> Plot:
    """A dot and its interval per class, in the order of the classes; of many the best and the worst."""
    order = sorted(
        (i for i in range(len(names)) if scores[i].n), key=lambda i: -scores[i].right / scores[i].n
    )
    cut = len(order) > MOST_ROWS
    best_ones, worst_ones = sorted(order[: MOST_ROWS // 2]), sorted(order[-(MOST_ROWS // 2) :])
    shown = best_ones + worst_ones if cut else sorted(order)
    dots = [(scores[i].right / scores[i].n, scores[i].interval) for i in shown]

    def paint(figure: Any) -> None:
        axes = paint_dots(figure, [names[i] for i in shown], dots)
        if cut:
            axes.axhline(MOST_ROWS // 2 - 0.5, color=MUTED, linewidth=1, linestyle=(0, (1, 3)))
        percent_axis(axes.xaxis)

    best, worst = order[0], order[-1]
    alt = (
        f"Dot plot of accuracy per class. Best: {names[best]}, {100 * scores[best].right / scores[best].n:.1f} %; "
        f"worst: {names[worst]}, {100 * scores[worst].right / scores[worst].n:.1f} %. The table below has all."
    )
    some = (
        f"The {MOST_ROWS // 2} best and the {MOST_ROWS // 2} worst classes: share"
        if cut
        else "Share"
    )
    caption = (
        f"{some} of each class’s {what} that the model names correctly, with its 95 % interval."
    )
    return Plot(draw("classes", 0.45 + 0.185 * len(shown), paint), alt, caption)


def paint_dots(figure: Any, names: list[str], dots: list[tuple[float, tuple[float, float]]]) -> Any:
    """A dot and its interval for each name, from above; returns the axes, which end at 1."""
    axes = figure.subplots()
    for row, (value, interval) in enumerate(dots):
        axes.plot(
            interval, (row, row), color=ACCENT, linewidth=1.6, alpha=0.45, solid_capstyle="round"
        )
        axes.plot([value], [row], "o", color=ACCENT, markersize=4.6, clip_on=False)
    _name_ticks(axes.yaxis, names)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(max(0.0, axes.get_xlim()[0]), 1.0))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return axes


def finding_plot(
    names: tuple[str, ...], measures: tuple[FindingMeasure, ...], what: str
) -> Plot | None:
    """The area under the ROC curve of each finding, with its interval; None where none is known. Of many
    the first."""
    known = [
        (name, each.roc_auc, (each.roc_auc_low, each.roc_auc_high))
        for name, each in zip(names, measures, strict=True)
        if each.roc_auc is not None
        and each.roc_auc_low is not None
        and each.roc_auc_high is not None
    ]
    shown = known[:MOST_ROWS]
    if not shown:
        return None

    def paint(figure: Any) -> None:
        axes = paint_dots(figure, [name for name, _, _ in shown], [each[1:] for each in shown])
        axes.set_xlim(left=min(axes.get_xlim()[0], 0.49))
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))

    told = "; ".join(f"{name} {area:.3f}" for name, area, _ in shown)
    some = f" The first {MOST_ROWS} of {len(known)}." if len(known) > MOST_ROWS else ""
    return Plot(
        draw("findings", 0.45 + 0.185 * len(shown), paint),
        f"Dot plot of the ROC AUC of each finding: {told}.",
        f"ROC AUC of each finding on the {what}, with its 95 % interval; dashed: chance.{some}",
    )


def _name_ticks(axis: Any, names: list[str], rotation: int = 0, size: float = 8.5) -> None:
    axis.set_ticks(
        range(len(names)),
        [shorten(name) for name in names],
        rotation=rotation,
        color=INK,
        fontsize=size,
    )
    for label in axis.get_ticklabels():
        label.set_parse_math(False)  # a class called "$x^2$" is that, and no formula


def confusion_plot(names: tuple[str, ...], evaluation: Evaluation, what: str) -> Plot:
    """Rows are what the images are, columns what the model says; a row's shading sums to one."""
    k, many = len(names), len(names) > NAMED_CELLS
    width = min(WIDTH, 1.9 + 0.42 * k)
    letters = min(8.5, 230 / k)  # points: no taller than a cell

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        _image_cells(axes, evaluation) if many else _vector_cells(axes, evaluation)
        if many:
            axes.set_xlabel("called (class number, as in the table)")
            axes.set_ylabel("is (class number)")
        else:
            upright = k <= 6 and max(map(len, names)) <= 8
            _name_ticks(axes.xaxis, list(names), 0 if upright else 90, letters)
            _name_ticks(axes.yaxis, list(names), 0, letters)
            axes.set(xlabel="called", ylabel="is")
        axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_visible(False)

    alt = (
        f"Confusion matrix, {k} by {k}: of {evaluation.n:,} {what}, "
        f"{sum(evaluation.confusion[i][i] for i in range(k)):,} lie on the diagonal (named correctly)."
    )
    counts = " Figures are counts." if k <= NUMBERED_CELLS else ""
    caption = (
        f"Each row is one true class of the {what}, each column what the model called them; "
        f"the darker or stronger a cell, the larger its share of the row.{counts}"
    )
    return Plot(draw("confusion", width, paint, width), alt, caption, width / WIDTH)


def _shares(evaluation: Evaluation) -> list[list[float]]:
    """Each row divided by its sum, and the small shares lifted so that rare mistakes can be seen."""
    totals = [max(1, sum(row)) for row in evaluation.confusion]
    return [
        [(count / total) ** 0.6 for count in row]
        for row, total in zip(evaluation.confusion, totals, strict=True)
    ]


def _vector_cells(axes: "Axes", evaluation: Evaluation) -> None:
    from matplotlib.patches import Rectangle

    k = len(evaluation.confusion)
    for i, row in enumerate(_shares(evaluation)):
        for j, share in enumerate(row):
            axes.add_patch(
                Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, linewidth=0, facecolor=GRID, alpha=0.45)
            )
            if share > 0:
                axes.add_patch(
                    Rectangle(
                        (j - 0.48, i - 0.48), 0.96, 0.96, linewidth=0, facecolor=ACCENT, alpha=share
                    )
                )
            if k <= NUMBERED_CELLS and share > 0:
                axes.text(
                    j,
                    i,
                    str(evaluation.confusion[i][j]),
                    ha="center",
                    va="center_baseline",
                    fontsize=7.5,
                    color=ON_ACCENT if share > 0.72 else INK,
                )


def _image_cells(axes: "Axes", evaluation: Evaluation) -> None:
    """Ten thousand cells and more: one small picture, in a tone between light and dark, as opaque
    as the share."""
    import numpy as np

    picture = np.empty((len(evaluation.confusion), len(evaluation.confusion), 4))
    picture[..., :3] = (0.27, 0.50, 0.62)
    picture[..., 3] = _shares(evaluation)
    axes.imshow(picture, interpolation="none")
