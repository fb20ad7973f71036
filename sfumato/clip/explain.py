"""What the engine makes of a loss, as a table."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import PyTree

from sfumato.clip.engine import METHODS
from sfumato.clip.handling import Handling, Part, handle
from sfumato.clip.trace import Loss, trace_loss
from sfumato.core.checks import choice, whole

WORDS = {
    "gram": "gram: norms from products of activations and of cotangents, no per-example gradient",
    "outer": "outer: per-example gradients of this layer alone, one layer at a time",
    "lifted": "lifted: differentiated example by example and held: biases, scales, whatever no rule covers",
    "unused": "unused: the loss does not depend on it",
    "materialized": "materialized: per-example gradients of all leaves at once",
}


def explain(
    loss: Loss, params: PyTree, example: PyTree, batch_size: int = 32, method: str = "auto"
) -> str:
    """How `clipped_grad(loss, ...)` treats each leaf: a table to print.

    example: ONE example, arrays or `jax.ShapeDtypeStruct`s; nothing is computed. Columns: the leaf,
    its shape, where it meets data ("conv", "2 x dot"), the rule, and the bytes held for it until
    the sum, for `batch_size` examples, and in which numbers its products are formed (`clip/arithmetic.py`). Raises ArgumentError as `clipped_grad` does.
    """
    choice("method", method, METHODS)
    whole("batch_size", batch_size)
    handling = handle(trace_loss(loss, params, example))
    name = handling.method(method)
    two_pass = name == "two_pass"
    rows = [("leaf", "shape", "meets data in", "rule", f"bytes for {batch_size}", "products")]
    for part in handling.parts:
        for leaf in part.leaves:
            shape = "x".join(map(str, handling.trace.shapes[leaf])) or "scalar"
            rule = "materialized" if method == "materialize" and part.how != "unused" else part.how
            size = 4 * batch_size * _numbers(handling, part, leaf, rule, two_pass)
            rule += " (kept)" if rule == "outer" and part.keeps and not two_pass else ""
            uses, products = _uses(handling, part, leaf), _products(handling, part, leaf, two_pass)
            rows.append((handling.trace.names[leaf], shape, uses, rule, f"{size:,}", products))
    used = [WORDS[word] for word in WORDS if any(row[3].split()[0] == word for row in rows[1:])]
    return "\n".join([f"method: {name}", _table(rows), *used])


def _numbers(handling: Handling, part: Part, leaf: int, rule: str, two_pass: bool) -> int:
    """Held for one example until the sum: per-example gradients, or activations and cotangents of
    the leaf's sites."""
    own = int(np.prod(handling.trace.shapes[leaf]))
    if rule in ("lifted", "materialized") or (rule == "outer" and part.keeps):
        return own
    if rule == "unused" or two_pass:
        return 0
    sites = [path for path in part.sites if leaf in handling.sites[path].origin.sources]
    return sum(handling.sizes(path).tape for path in sites) + (
        own if leaf in handling.lifted else 0
    )


def _products(handling: Handling, part: Part, leaf: int, two_pass: bool) -> str:
    """Of what is kept, no weighted sum is formed."""
    sites = [handling.sites[path] for path in part.sites]
    found = [site.rule.arithmetic for site in sites if leaf in site.origin.sources]
    kept = part.keeps and not two_pass
    words = [each.words.split(",")[0] if kept else each.words for each in found]
    return "; ".join(dict.fromkeys(words))


def _uses(handling: Handling, part: Part, leaf: int) -> str:
    names = [
        handling.sites[path].rule.name
        for path in part.sites
        if leaf in handling.sites[path].origin.sources
    ]
    words = [
        name if names.count(name) == 1 else f"{names.count(name)} x {name}"
        for name in dict.fromkeys(names)
    ]
    return (
        ", ".join(words + [where for where, leaves in handling.met.items() if leaf in leaves])
        or "nowhere"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
