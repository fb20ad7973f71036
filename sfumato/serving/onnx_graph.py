"""A function of JAX -> an ONNX model, through its jaxpr: a table of primitives, each with the nodes that
compute it.

The libraries for this (docs/export.md) fail on complex numbers or on a batch of any size, which the
default features and every network need. What is supported is what our networks and feature maps are
made of, which a test goes through; any other primitive is refused by name.

Batch. The function is traced for 2 and for 3 images. A dimension that differs is the batch's (or a
multiple of it), all others are constants of the model.

Constants. What does not depend on the images (filters, matrices of a resize) is computed here, once.

Complex numbers, which ONNX has not: a pair of real arrays; a Fourier transform of length n is a product
with its n x n matrices of cosines and sines (n is at most 88 here).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from sfumato.clip import _jax as J
from sfumato.core.errors import ArgumentError

OPSET = 18
BATCH = -1
"""In a shape: the batch's dimension."""


@dataclass(frozen=True)
class Node:
    """A tensor of the graph, by its name. shape: with `BATCH` for dimensions that grow with the batch,
    whose sizes for one image are `per_image` (None for the others)."""

    name: str
    shape: tuple[int, ...]
    per_image: tuple[int | None, ...]


@dataclass(frozen=True)
class Pair:
    """A complex tensor."""

    real: Any
    imag: Any


@dataclass
class Graph:
    """Nodes and constants so far. images: the name of the input."""

    images: str
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    _batch: str | None = None

    def add(self, op: str, inputs: Sequence[Any], **attributes: Any) -> str:
        """A node with one output, whose name is returned. inputs: names, nodes or arrays."""
        return self.add_many(op, inputs, 1, **attributes)[0]

    def add_many(
        self, op: str, inputs: Sequence[Any], outputs: int, **attributes: Any
    ) -> list[str]:
        from onnx import helper

        names = [f"{op}_{len(self.nodes)}_{k}" for k in range(outputs)]
        given = [each if isinstance(each, str) else self.name(each) for each in inputs]
        self.nodes.append(helper.make_node(op, given, names, **attributes))
        return names

    def name(self, value: Any) -> str:
        """Of a node, or of a constant, which is put into the graph."""
        if isinstance(value, Node):
            return value.name
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def shape_of(self, node: Node) -> Any:
        """A shape for Expand, which may hold the batch."""
        if BATCH not in node.shape:
            return np.asarray(node.shape, np.int64)
        if self._batch is None:
            self._batch = self.add("Shape", [self.images], start=0, end=1)
        parts = [
            self._batch
            if size == BATCH and each == 1
            else self.add("Mul", [self._batch, np.array([each], np.int64)])
            if size == BATCH
            else self.name(np.array([size], np.int64))
            for size, each in zip(node.shape, node.per_image, strict=True)
        ]
        return self.add("Concat", parts, axis=0)


Rule = Callable[[Graph, J.JaxprEqn, list[Any], list[Node]], list[Any]]
"""(graph, equation, its inputs, what its outputs must look like, unnamed) -> the outputs: names of
nodes."""


def model(
    function: Callable[[Any], Any], shape: tuple[int, int, int], rules: Any, **about: str
) -> Any:
    """The ONNX model of images (b x h x w x c, float32) -> probabilities. about: metadata.

    Raises ArgumentError for a primitive that has no rule.
    """
    from onnx import TensorProto, helper, numpy_helper

    two, three = (
        jax.make_jaxpr(function)(jax.ShapeDtypeStruct((b, *shape), np.float32)) for b in (2, 3)
    )
    graph = Graph("images")
    start = Node("images", (BATCH, *shape), (1, None, None, None))
    (last,) = _walk(graph, rules, (two.jaxpr, two.consts), (three.jaxpr, three.consts), [start])
    graph.nodes.append(helper.make_node("Identity", [graph.name(last)], ["probabilities"]))
    classes = J.aval(two.jaxpr.outvars[0]).shape[1]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "sfumato",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
            [numpy_helper.from_array(each, name) for name, each in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
        producer_name="sfumato",
    )
    helper.set_model_props(made, about)
    return made


Body = tuple[J.Jaxpr, Sequence[Any]]


def _walk(graph: Graph, rules: Any, two: Body, three: Body, inputs: list[Any]) -> list[Any]:
    """The outputs of a jaxpr, traced twice."""
    jaxpr, other = two[0], three[0]
    env: dict[Any, Any] = dict(
        zip((*jaxpr.constvars, *jaxpr.invars), (*two[1], *inputs), strict=True)
    )

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, J.Literal) else env[atom]

    for eqn, again in zip(jaxpr.eqns, other.eqns, strict=True):
        values = [read(atom) for atom in eqn.invars]
        wanted = [_looks(a, b) for a, b in zip(eqn.outvars, again.outvars, strict=True)]
        if eqn.primitive is J.SCAN:
            found = _unrolled(graph, rules, eqn, again, values)
        elif inner := _inner(eqn):
            found = _walk(graph, rules, inner, _inner(again) or inner, values)
        elif not any(isinstance(each, Node | Pair) for each in values) and all(
            BATCH not in each.shape for each in wanted
        ):
            found = [np.asarray(each) for each in J.bind(eqn, values)]
        else:
            found = _converted(graph, rules, eqn, values, wanted)
        env |= dict(zip(eqn.outvars, found, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _unrolled(
    graph: Graph, rules: Any, eqn: J.JaxprEqn, again: J.JaxprEqn, values: list[Any]
) -> list[Any]:
    """A scan, its body as often as it runs: the blocks of a vision transformer, say."""
    fixed, carried = J.scan_parts(eqn)
    length, reverse = eqn.params["length"], eqn.params["reverse"]
    carry, stacked = values[fixed : fixed + carried], values[fixed + carried :]
    if eqn.outvars[carried:] or any(isinstance(each, Node | Pair) for each in stacked):
        raise ArgumentError("to", "onnx", "the model scans over an image; give --to jax")
    for k in reversed(range(length)) if reverse else range(length):
        slices = [np.asarray(each)[k] for each in stacked]
        carry = _walk(
            graph, rules, J.called(eqn), J.called(again), [*values[:fixed], *carry, *slices]
        )
    return carry


def _converted(
    graph: Graph, rules: Any, eqn: J.JaxprEqn, values: list[Any], wanted: list[Node]
) -> list[Any]:
    rule = rules.get(eqn.primitive.name)
    if rule is None:
        raise ArgumentError(
            "to",
            "onnx",
            f"the model computes {eqn.primitive.name!r}, which has no rule; give --to jax",
        )
    found = rule(graph, eqn, values, wanted)
    return [
        Node(each, want.shape, want.per_image) if isinstance(each, str) else _named(each, want)
        for each, want in zip(found, wanted, strict=True)
    ]


def _named(value: Any, want: Node) -> Any:
    if isinstance(value, Pair):
        return Pair(
            *(
                Node(part, want.shape, want.per_image) if isinstance(part, str) else part
                for part in (value.real, value.imag)
            )
        )
    return value


def _looks(a: Any, b: Any) -> Node:
    """The shape of a variable, from its shapes for two and for three images."""
    shape, per_image = [], []
    for two, three in zip(J.aval(a).shape, J.aval(b).shape, strict=True):
        shape.append(two if two == three else BATCH)
        per_image.append(None if two == three else three - two)
    return Node("", tuple(shape), tuple(per_image))


def _inner(eqn: J.JaxprEqn) -> Body | None:
    """The jaxpr that an equation only calls."""
    if eqn.primitive.name in ("scan", "while", "cond"):
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if (found := eqn.params.get(name)) is not None:
            return (found.jaxpr, found.consts) if isinstance(found, J.ClosedJaxpr) else (found, ())
    return None


def reshaped(graph: Graph, value: Any, want: Node) -> str:
    """To the shape of `want`, in which one dimension may be the batch's."""
    if want.shape.count(BATCH) > 1:
        raise ArgumentError(
            "to", "onnx", "the model reshapes images into one another; give --to jax"
        )
    return graph.add("Reshape", [value, np.asarray(want.shape, np.int64)])


def fourier(graph: Graph, eqn: J.JaxprEqn, value: Any, want: Node) -> Pair:
    """A transform over the last axes."""
    kind, lengths = eqn.params["fft_type"], eqn.params["fft_lengths"]
    name = str(getattr(kind, "name", kind)).upper()
    if name not in ("FFT", "IFFT"):
        raise ArgumentError("to", "onnx", f"a transform of kind {name} has no rule; give --to jax")
    rank = len(want.shape)
    real, imag = parts(value)
    for axis, n in zip(range(rank - len(lengths), rank), lengths, strict=True):
        k = np.arange(n)
        turns = np.exp((2j if name == "IFFT" else -2j) * math.pi * (np.outer(k, k) % n) / n)
        turns = turns / n if name == "IFFT" else turns
        cos, sin = turns.real.astype(np.float32), turns.imag.astype(np.float32)
        letters = "abcdefgh"[:rank]
        equation = f"{letters},{letters[axis]}z->{letters.replace(letters[axis], 'z')}"

        def times(part: Any, matrix: Any, equation: str = equation) -> str:
            return graph.add("Einsum", [part, matrix], equation=equation)

        if imag is None:
            real, imag = times(real, cos), times(real, sin)
        else:
            real, imag = (
                graph.add("Sub", [times(real, cos), times(imag, sin)]),
                graph.add("Add", [times(real, sin), times(imag, cos)]),
            )
    return Pair(real, imag)


def parts(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part; None for that of a real value."""
    if isinstance(value, Pair):
        return value.real, value.imag
    if not isinstance(value, Node) and np.iscomplexobj(value):
        array = np.asarray(value)
        return array.real.astype(np.float32), array.imag.astype(np.float32)
    return value, None


def is_complex(value: Any) -> bool:
    return parts(value)[1] is not None
