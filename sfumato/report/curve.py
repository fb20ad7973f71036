"""The privacy-utility curve: accuracy over epsilon, a line per method, as a PNG and as a page."""

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources

from sfumato.report import words
from sfumato.report.facts import printable

Points = Mapping[str, Sequence[tuple[float, float, float]]]
"""method -> (epsilon, mean accuracy, its standard deviation over repeats) in ascending epsilon; the deviation
of a single fit is not known and 0."""


def draw(points: Points, without_noise: float, title: str) -> bytes:
    """PNG. without_noise: the accuracy of the same features without privacy, a dashed line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
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


def page(
    picture: bytes, points: Points, without_noise: float, title: str, total: dict[str, float]
) -> str:
    """One HTML file, in the report's style, with the picture in it. total: epsilon and delta of all fits
    together."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    room = resources.files("sfumato.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    marks = sorted({epsilon for found in points.values() for epsilon, *_ in found})
    known = {
        (method, epsilon): _cell(mean, spread)
        for method, found in points.items()
        for epsilon, mean, spread in found
    }
    rows = [
        (words.number(mark), [known.get((method, mark), "") for method in points]) for mark in marks
    ]
    return environment.from_string(room.joinpath("sweep.html").read_text(encoding="utf-8")).render(
        css=Markup(room.joinpath("style.css").read_text(encoding="utf-8")),
        picture=base64.b64encode(picture).decode(),
        title=printable(title),
        methods=list(points),
        rows=rows,
        without=words.percent(without_noise, 2),
        repeated=any(spread for found in points.values() for *_, spread in found),
        epsilon=words.epsilon(total["epsilon"]),
        delta=words.power(total["delta"]),
    )
