"""Measurements -> the two tables of RESULTS.md."""

from cases import Case
from programs import CONTESTANTS, OURS

HEAD = (
    "| case | ordinary step, s | auto, time (to reach) | auto, memory (to reach) | jax_privacy's time / auto's | "
    "Opacus's time / auto's |\n|---|---|---|---|---|---|"
)
NAMES = {"torch": "torch, ordinary step", "opacus": "Opacus"}
"""Of contestants that are not called by their own name."""


def tables(cases: dict[str, Case], results: dict[str, dict]) -> str:
    """Headline (auto against the ordinary step and the peers), then everyone in units of the
    ordinary step."""
    headline = "\n".join([HEAD, *(_headline(case, results[name]) for name, case in cases.items())])
    return "\n\n".join(
        [
            headline,
            "All contestants, time / memory in units of the ordinary step:",
            _everyone(cases, results),
        ]
    )


def _headline(case: Case, result: dict) -> str:
    rows = result["rows"]
    ours, ordinary = rows.get("auto"), rows["ordinary"]
    cells = [case.title, f"{ordinary['seconds']:.3f}"]
    if ours is None:
        return f"| {' | '.join([*cells, '', '', '', ''])} |"
    cells.append(_ratio(ours["seconds"] / ordinary["seconds"], case.time, "<="))
    cells.append(_ratio(ours["memory"] / ordinary["memory"], case.memory, "<="))
    for peer, least in (("jax_privacy", case.peer), ("opacus", 1.0 if case.twin else None)):
        row = rows.get(peer)
        cells.append(
            ""
            if row is None
            else f"{_ratio(row['seconds'] / ours['seconds'], least, '>=')}; {row['setting']}"
        )
    return f"| {' | '.join(cells)} |"


def _ratio(value: float, bound: float | None, relation: str) -> str:
    """Bold where the figure to reach was reached."""
    if bound is None:
        return f"{value:.2f}"
    reached = value <= bound if relation == "<=" else value >= bound
    return f"{f'**{value:.2f}**' if reached else f'{value:.2f}'} ({'≤' if relation == '<=' else '≥'} {bound:.2f})"


def _everyone(cases: dict[str, Case], results: dict[str, dict]) -> str:
    shown = [
        name
        for name in CONTESTANTS[1:]
        if any(name in result["rows"] for result in results.values())
    ]
    lines = [
        f"| case | {' | '.join(NAMES.get(name, name) for name in shown)} |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for name, case in cases.items():
        lines.append(
            f"| {case.title} | {' | '.join(_cell(results[name], each) for each in shown)} |"
        )
    return "\n".join(lines)


def _cell(result: dict, name: str) -> str:
    row, unit = result["rows"].get(name), result["rows"]["ordinary"]
    if row is None:
        return "failed" if name in OURS and name in result["left_out"] else ""
    memory = "" if row["memory"] is None else f" / {row['memory'] / unit['memory']:.2f}"
    note = row["setting"] or (f"same program as {row['same']}" if row["same"] else "")
    return f"{row['seconds'] / unit['seconds']:.2f}{memory}{f' ({note})' if note else ''}"


def reasons(cases: dict[str, Case], results: dict[str, dict]) -> str:
    """Who was left out, and why; empty if nobody was."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, case in cases.items():
        for contestant, reason in results[name]["left_out"].items():
            by_reason.setdefault((contestant, reason), []).append(case.title)
    lines = [
        f"{NAMES.get(who, who)}: {why} ({'; '.join(titles) if len(titles) < len(cases) else 'all cases'})"
        for (who, why), titles in by_reason.items()
    ]
    return "Left out: " + ". ".join(lines) + "." if lines else ""
