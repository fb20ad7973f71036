"""The table of primitives that `onnx_graph.py` goes by."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sfumato.clip import _jax as J
from sfumato.core.errors import ArgumentError
from sfumato.serving.onnx_graph import (
    BATCH,
    Graph,
    Node,
    Pair,
    Rule,
    fourier,
    is_complex,
    parts,
    reshaped,
)

One = Callable[[Graph, J.JaxprEqn, list[Any], Node], Any]
"""A rule of a primitive with one output."""


def _single(rule: One) -> Rule:
    return lambda graph, eqn, values, wanted: [rule(graph, eqn, values, wanted[0])]


def _plain(op: str) -> Rule:
    """A node of that name on all inputs, of real numbers."""

    def rule(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
        if any(map(is_complex, values)):
            raise _no(f"{eqn.primitive.name} of complex numbers")
        return graph.add(op, values)

    return _single(rule)


def _on_parts(rule: One) -> Rule:
    """What moves numbers, or is linear, is done to real and imaginary parts alike."""

    def both(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> Any:
        if not any(map(is_complex, values)):
            return rule(graph, eqn, values, want)
        cut = [parts(each) for each in values]
        imag = [np.zeros_like(np.asarray(real)) if i is None else i for real, i in cut]
        return Pair(rule(graph, eqn, [real for real, _ in cut], want), rule(graph, eqn, imag, want))

    return _single(both)


def _no(what: str) -> ArgumentError:
    return ArgumentError(
        "to", "onnx", f"the model computes {what}, which has no rule; give --to jax"
    )


# -- arithmetic


def _mul(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> Any:
    (a, b), (c, d) = map(parts, values)

    def product(x: Any, y: Any) -> str:
        return graph.add("Mul", [x, y])

    if b is None and d is None:
        return product(a, c)
    if d is None:
        return Pair(product(a, c), product(b, c))
    if b is None:
        return Pair(product(a, c), product(a, d))
    return Pair(
        graph.add("Sub", [product(a, c), product(b, d)]),
        graph.add("Add", [product(a, d), product(b, c)]),
    )


def _integer_pow(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    return graph.add("Pow", [values[0], np.float32(eqn.params["y"])])


def _cast(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> Any:
    from onnx import helper

    if np.dtype(eqn.params["new_dtype"]).kind == "c":
        return values[0]  # a real tensor is a complex one without an imaginary part
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"]))
    return graph.add("Cast", [values[0]], to=kind)


def _select(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    if len(values) != 3 or J.aval(eqn.invars[0]).dtype != np.bool_:
        raise _no("a choice among more than two")
    return graph.add("Where", [values[0], values[2], values[1]])


# -- shapes


def _reshape(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """`dimensions`: the order in which the axes are read, where it is not their own."""
    order = eqn.params.get("dimensions")
    value = values[0] if order is None else graph.add("Transpose", values, perm=list(order))
    return reshaped(graph, value, want)


def _broadcast(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """Ones where dimensions are new, then repeated."""
    shape, given = [1] * len(want.shape), values[0]
    own = given.shape if isinstance(given, Node) else np.shape(given)
    for place, size in zip(eqn.params["broadcast_dimensions"], own, strict=True):
        shape[place] = size
    unsqueezed = graph.add("Reshape", [given, np.asarray(shape, np.int64)])
    if tuple(shape) == want.shape:
        return unsqueezed
    return graph.add("Expand", [unsqueezed, graph.shape_of(want)])


def _slice(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
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


def _reverse(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    axes = np.array(eqn.params["dimensions"], np.int64)
    ones = np.ones_like(axes)
    return graph.add("Slice", [values[0], -ones, np.full_like(axes, -(2**31)), axes, -ones])


def _concatenate(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    return graph.add("Concat", values, axis=eqn.params["dimension"])


def _stack(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    axis = eqn.params["axis"]
    place = np.array([axis], np.int64)
    return graph.add(
        "Concat", [graph.add("Unsqueeze", [each, place]) for each in values], axis=axis
    )


def _split(graph: Graph, eqn: J.JaxprEqn, values: list[Any], wanted: list[Node]) -> list[Any]:
    sizes, axis = np.array(eqn.params["sizes"], np.int64), eqn.params["axis"]
    found = [
        graph.add_many("Split", [part, sizes], len(sizes), axis=axis)
        for part in parts(values[0])
        if part is not None
    ]
    return [each[0] if len(each) == 1 else Pair(*each) for each in zip(*found, strict=True)]


def _pad(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    low, high, between = zip(*eqn.params["padding_config"], strict=True)
    if any(between):
        raise _no("a padding between pixels")
    return graph.add("Pad", [values[0], np.array([*low, *high], np.int64), values[1]])


def _gather(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """Known places along one axis, all else whole: what `x[..., places]` is."""
    given, numbers = eqn.params, eqn.params["dimension_numbers"]
    operand = values[0]
    if isinstance(values[1], Node | Pair) or len(numbers.collapsed_slice_dims) != 1:
        raise _no("a gather at places that depend on the image")
    (axis,) = numbers.collapsed_slice_dims
    if tuple(numbers.start_index_map) != (axis,) or any(
        operand.shape[k] not in (BATCH, size)
        for k, size in enumerate(given["slice_sizes"])
        if k != axis
    ):
        raise _no("a gather of parts")
    places = np.asarray(values[1], np.int64)[..., 0]
    if places.min() < 0 or places.max() >= operand.shape[axis]:
        raise _no("a gather outside of an array")
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


# -- sums


def _reduce(op: str) -> Rule:
    def rule(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
        return graph.add(op, [values[0], np.array(eqn.params["axes"], np.int64)], keepdims=0)

    return _single(rule)


def _dot(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    names = iter("abcdefghijklmnopqrstuvwxyz")
    ranks = [len(J.aval(atom).shape) for atom in eqn.invars]
    a, b = ([""] * rank for rank in ranks)
    for mine, theirs in (
        *zip(left_batch, right_batch, strict=True),
        *zip(left, right, strict=True),
    ):
        a[mine] = b[theirs] = next(names)
    for letters in (a, b):
        for k, letter in enumerate(letters):
            letters[k] = letter or next(names)
    out = [a[k] for k in left_batch]
    out += [a[k] for k in range(ranks[0]) if k not in (*left, *left_batch)]
    out += [b[k] for k in range(ranks[1]) if k not in (*right, *right_batch)]
    equation = f"{''.join(a)},{''.join(b)}->{''.join(out)}"
    return graph.add("Einsum", values, equation=equation)


def _conv(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """ONNX has images as N C H W and filters as O I H W."""
    given, numbers = eqn.params, eqn.params["dimension_numbers"]
    if given["batch_group_count"] != 1 or any(each != 1 for each in given["lhs_dilation"]):
        raise _no("a transposed convolution")
    image = graph.add("Transpose", [values[0]], perm=list(numbers.lhs_spec))
    filters = values[1]
    if isinstance(filters, Node):
        filters = graph.add("Transpose", [filters], perm=list(numbers.rhs_spec))
    else:
        filters = np.transpose(np.asarray(filters), numbers.rhs_spec)
    low, high = zip(*given["padding"], strict=True)
    found = graph.add(
        "Conv",
        [image, filters],
        strides=list(given["window_strides"]),
        pads=[*low, *high],
        dilations=list(given["rhs_dilation"]),
        group=given["feature_group_count"],
    )
    back = np.argsort(numbers.out_spec).tolist()
    return graph.add("Transpose", [found], perm=back)


def _pool(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    """The largest of a window that slides over two axes."""
    given = eqn.params
    sizes, strides, padding = (
        given["window_dimensions"],
        given["window_strides"],
        given["padding"],
    )
    dilated = any(each != 1 for each in (*given["base_dilation"], *given["window_dilation"]))
    moving = [k for k in range(len(sizes)) if sizes[k] > 1 or strides[k] > 1 or any(padding[k])]
    resting = [k for k in range(len(sizes)) if k not in moving]
    if dilated or len(resting) != 2:
        raise _no("a window over other than two axes")
    order = [*resting, *moving]
    found = graph.add(
        "MaxPool",
        [graph.add("Transpose", [values[0]], perm=order)],
        kernel_shape=[sizes[k] for k in moving],
        strides=[strides[k] for k in moving],
        pads=[*(padding[k][0] for k in moving), *(padding[k][1] for k in moving)],
    )
    return graph.add("Transpose", [found], perm=np.argsort(order).tolist())


def _reciprocal_root(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
    return graph.add("Reciprocal", [graph.add("Sqrt", values)])


RULES: dict[str, Rule] = {
    **{
        name: _plain(op)
        for name, op in {
            "div": "Div",
            "max": "Max",
            "min": "Min",
            "pow": "Pow",
            "exp": "Exp",
            "log": "Log",
            "sqrt": "Sqrt",
            "tanh": "Tanh",
            "erf": "Erf",
            "abs": "Abs",
            "sign": "Sign",
            "floor": "Floor",
            "logistic": "Sigmoid",
            "eq": "Equal",
            "ge": "GreaterOrEqual",
            "gt": "Greater",
            "le": "LessOrEqual",
            "lt": "Less",
            "and": "And",
            "or": "Or",
            "not": "Not",
        }.items()
    },
    **{
        name: _on_parts(rule)
        for name, rule in {
            "add": lambda graph, eqn, values, want: graph.add("Add", values),
            "sub": lambda graph, eqn, values, want: graph.add("Sub", values),
            "neg": lambda graph, eqn, values, want: graph.add("Neg", values),
            "copy": lambda graph, eqn, values, want: graph.add("Identity", values),
            "copy_p": lambda graph, eqn, values, want: graph.add("Identity", values),
            "stop_gradient": lambda graph, eqn, values, want: graph.add("Identity", values),
            "optimization_barrier": lambda graph, eqn, values, want: graph.add("Identity", values),
            "reshape": _reshape,
            "squeeze": lambda graph, eqn, values, want: reshaped(graph, values[0], want),
            "expand_dims": lambda graph, eqn, values, want: reshaped(graph, values[0], want),
            "transpose": lambda graph, eqn, values, want: graph.add(
                "Transpose", values, perm=list(eqn.params["permutation"])
            ),
            "broadcast_in_dim": _broadcast,
            "slice": _slice,
            "rev": _reverse,
            "concatenate": _concatenate,
            "stack": _stack,
            "pad": _pad,
            "gather": _gather,
        }.items()
    },
    "split": _split,
    "mul": _single(_mul),
    "square": _single(lambda graph, eqn, values, want: _mul(graph, eqn, values * 2, want)),
    "integer_pow": _single(_integer_pow),
    "rsqrt": _single(_reciprocal_root),
    "erfc": _single(
        lambda graph, eqn, values, want: graph.add("Sub", [np.float32(1), graph.add("Erf", values)])
    ),
    "ne": _single(lambda graph, eqn, values, want: graph.add("Not", [graph.add("Equal", values)])),
    "is_finite": _single(
        lambda graph, eqn, values, want: graph.add(
            "LessOrEqual", [graph.add("Abs", values), np.finfo(np.float32).max]
        )
    ),
    "clamp": _single(
        lambda graph, eqn, values, want: graph.add(
            "Min", [graph.add("Max", [values[1], values[0]]), values[2]]
        )
    ),
    "select_n": _single(_select),
    "convert_element_type": _single(_cast),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_and": _single(
        lambda graph, eqn, values, want: graph.add(
            "Equal", [_least_of_booleans(graph, eqn, values), np.float32(1)]
        )
    ),
    "dot_general": _single(_dot),
    "conv_general_dilated": _single(_conv),
    "reduce_window_max": _single(_pool),
    "fft": _single(lambda graph, eqn, values, want: fourier(graph, eqn, values[0], want)),
    "complex": _single(lambda graph, eqn, values, want: Pair(*values)),
    "real": _single(lambda graph, eqn, values, want: parts(values[0])[0]),
    "imag": _single(lambda graph, eqn, values, want: parts(values[0])[1]),
}
"""Primitive -> its rule."""


def _least_of_booleans(graph: Graph, eqn: J.JaxprEqn, values: list[Any]) -> str:
    numbers = graph.add("Cast", values, to=1)
    return graph.add("ReduceMin", [numbers, np.array(eqn.params["axes"], np.int64)], keepdims=0)
