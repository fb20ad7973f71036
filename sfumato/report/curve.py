"""The privacy-utility curve: accuracy over epsilon, a line per method, as a PNG and as a page."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

Points = Mapping[str, Sequence[tuple[float, float, float]]]
"""method -> (epsilon, mean accuracy, half the range over repeats) in ascending epsilon."""


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
    """Markdown: a row per method, a column per epsilon, accuracy in percent."""
    marks = sorted({epsilon for found in points.values() for epsilon, *_ in found})
    lines = [
        "| method | " + " | ".join(f"ε = {mark:g}" for mark in marks) + " |",
        "|---" * (len(marks) + 1) + "|",
    ]
    for method, found in points.items():
        known = {epsilon: f"{100 * mean:.2f}" for epsilon, mean, _ in found}
        lines.append(f"| {method} | " + " | ".join(known.get(mark, "") for mark in marks) + " |")
    return "\n".join([*lines, "", f"Without privacy: {100 * without_noise:.2f} %."])


def page(picture: bytes, text: str, title: str) -> str:
    """One HTML file with the picture in it."""
    encoded = base64.b64encode(picture).decode()
    name = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "img{max-width:100%}pre{overflow:auto}</style>"
        f'<h1>{name}</h1><img alt="Accuracy over epsilon, one line per method; the table below has the numbers." '
        f'src="data:image/png;base64,{encoded}"><pre>{html.escape(text)}</pre></html>'
    )
