"""Rules of primitives that move numbers about (`onnx_rules.py` has the others)."""

from typing import Any

import numpy as np

from sfumato.clip import _jax as J
from sfumato.core.errors import ArgumentError
from sfumato.serving.onnx_graph import BATCH, Graph, Node, Pair, parts, reshaped


def no_rule(what: str) -> ArgumentError:
    return ArgumentError(
        "to", "onnx", f"the model computes {what}, which has no rule; give --to jax"
    )


def reshape(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """`dimensions`: the order in which the axes are read, where it is not their own."""
    order = eqn.params.get("dimensions")
    value = values[0] if order is None else graph.add("Transpose", values, perm=list(order))
    return reshaped(graph, value, want)


def broadcast(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """Ones where dimensions are new, then repeated."""
    shape, given = [1] * len(want.shape), values[0]
    own = given.shape if isinstance(given, Node) else np.shape(given)
    for place, size in zip(eqn.params["broadcast_dimensions"], own, strict=True):
        shape[place] = size
    unsqueezed = graph.add("Reshape", [given, np.asarray(shape, np.int64)])
    if tuple(shape) == want.shape:
        return unsqueezed
    return graph.add("Expand", [unsqueezed, graph.shape_of(want)])


def cut(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    given = eqn.params
    strides = given["strides"] or [1] * len(want.shape)
    cuts = [
        (axis, start, limit, stride)
        for axis, (start, limit, stride) in enumerate(
            zip(given["start_indices"], given["limit_indices"], strides, strict=True)
        )
        if want.shape[axis] != BATCH
    ]
    axes, starts, ends, steps = (np.array(each, np.int64) for each in zip(*cuts, strict=True))
    return graph.add("Slice", [values[0], starts, ends, axes, steps])


def reverse(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    axes = np.array(eqn.params["dimensions"], np.int64)
    ones = np.ones_like(axes)
    return graph.add("Slice", [values[0], -ones, np.full_like(axes, -(2**31)), axes, -ones])


def concatenate(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    return graph.add("Concat", values, axis=eqn.params["dimension"])


def stack(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    axis = eqn.params["axis"]
    place = np.array([axis], np.int64)
    return graph.add(
        "Concat", [graph.add("Unsqueeze", [each, place]) for each in values], axis=axis
    )


def split(graph: Graph, eqn: J.JaxprEqn, values: list[Any], wanted: list[Node]) -> list[Any]:
    sizes, axis = np.array(eqn.params["sizes"], np.int64), eqn.params["axis"]
    found = [
        graph.add_many("Split", [part, sizes], len(sizes), axis=axis)
        for part in parts(values[0])
        if part is not None
    ]
    return [each[0] if len(each) == 1 else Pair(*each) for each in zip(*found, strict=True)]


def pad(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    low, high, between = zip(*eqn.params["padding_config"], strict=True)
    if any(between):
        raise no_rule("a padding between pixels")
    return graph.add("Pad", [values[0], np.array([*low, *high], np.int64), values[1]])


def gather(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """Known places along one axis, all else whole: what `x[..., places]` is."""
    given, numbers = eqn.params, eqn.params["dimension_numbers"]
    operand = values[0]
    if isinstance(values[1], Node | Pair) or len(numbers.collapsed_slice_dims) != 1:
        raise no_rule("a gather at places that depend on the image")
    (axis,) = numbers.collapsed_slice_dims
    if tuple(numbers.start_index_map) != (axis,) or any(
        operand.shape[k] not in (BATCH, size)
        for k, size in enumerate(given["slice_sizes"])
        if k != axis
    ):
        raise no_rule("a gather of parts")
    places = np.asarray(values[1], np.int64)[..., 0]
    if places.min() < 0 or places.max() >= operand.shape[axis]:
        raise no_rule("a gather outside of an array")
    found = graph.add(
        "Gather", [operand, places], axis=axis
    )  # the places' axes stand where axis was
    whole = [k for k in range(len(want.shape)) if k not in numbers.offset_dims]
    now = [*range(axis, axis + places.ndim)]
    rest = [k for k in range(len(want.shape)) if k not in now]
    order = [0] * len(want.shape)
    for place, source in (
        *zip(whole, now, strict=True),
        *zip(numbers.offset_dims, rest, strict=True),
    ):
        order[place] = source
    return found if order == sorted(order) else graph.add("Transpose", [found], perm=order)
