"""The table of primitives that `onnx_graph.py` goes by."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sfumato.clip import _jax as J
from sfumato.serving import onnx_shapes as shapes
from sfumato.serving.onnx_graph import Graph, Node, Pair, Rule, fourier, is_complex, parts, reshaped

One = Callable[[Graph, J.JaxprEqn, list[Any], Node], Any]
"""A rule of a primitive with one output."""


def _single(rule: One) -> Rule:
    return lambda graph, eqn, values, wanted: [rule(graph, eqn, values, wanted[0])]


def _plain(op: str) -> Rule:
    """A node of that name on all inputs, of real numbers."""

    def rule(graph: Graph, eqn: J.JaxprEqn, values: list[Any], want: Node) -> str:
        if any(map(is_complex, values)):
            raise shapes.no_rule(f"{eqn.primitive.name} of complex numbers")
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
        raise shapes.no_rule("a choice among more than two")
    return graph.add("Where", [values[0], values[2], values[1]])


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
        raise shapes.no_rule("a transposed convolution")
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
        raise shapes.no_rule("a window over other than two axes")
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
            "reshape": shapes.reshape,
            "squeeze": lambda graph, eqn, values, want: reshaped(graph, values[0], want),
            "expand_dims": lambda graph, eqn, values, want: reshaped(graph, values[0], want),
            "transpose": lambda graph, eqn, values, want: graph.add(
                "Transpose", values, perm=list(eqn.params["permutation"])
            ),
            "broadcast_in_dim": shapes.broadcast,
            "slice": shapes.cut,
            "rev": shapes.reverse,
            "concatenate": shapes.concatenate,
            "stack": shapes.stack,
            "pad": shapes.pad,
            "gather": shapes.gather,
        }.items()
    },
    "split": shapes.split,
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
