"""Plots of an evaluation: are the probabilities honest, and what a threshold trades."""

from typing import Any

from sfumato.report.facts import Evaluation, printable
from sfumato.report.figures import ACCENT, MUTED, Plot, draw, percent_axis
from sfumato.train.metrics import BINS, ROC_GRID, ConfidenceBin, Metrics

_SQUARE = 3.2
"""Inches."""


def _square(figure: Any, along: str, up: str) -> Any:
    """Axes from 0 to 100 % both ways, with the line on which both are alike."""
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=along, ylabel=up)
    axes.set_aspect("equal")
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    return axes


def reliability_plot(bins: tuple[ConfidenceBin, ...], shown: str) -> Plot:
    """Accuracy over confidence (Niculescu-Mizil & Caruana 2005); the area of a dot is its share of the
    images."""
    filled = [each for each in bins if each.n]
    total = sum(each.n for each in filled)

    def paint(figure: Any) -> None:
        axes = _square(figure, "how sure the model is", "how often it is right")
        axes.scatter(
            [each.confidence for each in filled],
            [each.right / each.n for each in filled],
            [12 + 160 * each.n / total for each in filled],
            color=ACCENT,
            alpha=0.8,
            linewidths=0,
        )

    told = "; ".join(
        f"{100 * each.confidence:.0f} % sure: {100 * each.right / each.n:.0f} % of {each.n:,} right"
        for each in filled
    )
    caption = (
        f"The {shown} in {BINS} bins of the model's confidence; a larger dot holds more. On the line, "
        "probabilities mean what they say; below it the model is too sure."
    )
    return Plot(
        draw("reliability", _SQUARE, paint, _SQUARE), f"Reliability plot: {told}.", caption, 0.68
    )


def roc_plot(
    metrics: Metrics, evaluation: Evaluation, classes: tuple[str, ...], shown: str
) -> Plot | None:
    """Share of the positive class that is found over share of the other that is wrongly called so, and
    where the model's own threshold stands."""
    two, confusion = metrics.two, evaluation.confusion
    if two is None:
        return None
    k = two.positive
    found, false = (confusion[i][k] / max(1, sum(confusion[i])) for i in (k, 1 - k))

    def paint(figure: Any) -> None:
        axes = _square(figure, "false alarms", "found")
        axes.plot(ROC_GRID, two.roc, color=ACCENT, linewidth=1.6)
        axes.plot([false], [found], "o", color=ACCENT, markersize=5)

    name = printable(classes[k])
    alt = (
        f"ROC curve of {name}: {100 * found:.1f} % are found at {100 * false:.1f} % false alarms, "
        f"area {metrics.mean_roc_auc or 0:.3f}."
    )
    caption = (
        f"For every threshold: the share of “{name}” among the {shown} that is found, over the share of the others "
        f"that is called so. The dot is the threshold {two.threshold:g}; the broken line is a guess."
    )
    return Plot(draw("roc", _SQUARE, paint, _SQUARE), alt, caption, 0.68)
