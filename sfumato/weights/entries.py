"""Entries of layers that many families share. ours, theirs: the layer's name in our tree and in a
PyTorch state dict."""

from collections.abc import Callable, Iterator

import numpy as np

from sfumato.weights.layout import Entry, folded_bias, folded_kernel, kernel, same, transposed

TORCH_EPSILON = 1e-5
"""Of PyTorch's BatchNorm, unless told otherwise."""
TENSORFLOW_EPSILON = 1e-3
"""Of TensorFlow's, which networks ported from there keep."""


def linear(
    ours: str, theirs: str, convert: Callable[[np.ndarray], np.ndarray] = transposed
) -> Iterator[Entry]:
    """`Linear` or `Dense`. convert: the weight."""
    yield Entry(f"{ours}/weight", (f"{theirs}.weight",), convert)
    yield Entry(f"{ours}/bias", (f"{theirs}.bias",), same)


def bare_conv(ours: str, theirs: str) -> Iterator[Entry]:
    yield Entry(f"{ours}/kernel", (f"{theirs}.weight",), kernel)


def norm(ours: str, theirs: str) -> Iterator[Entry]:
    yield Entry(f"{ours}/scale", (f"{theirs}.weight",), same)
    yield Entry(f"{ours}/shift", (f"{theirs}.bias",), same)


def folded_conv(
    ours: str,
    conv: str,
    batch_norm: str,
    epsilon: float = TORCH_EPSILON,
    leaf: str = "kernel",
    convert: Callable[[np.ndarray], np.ndarray] = kernel,
) -> Iterator[Entry]:
    """A convolution without bias and the BatchNorm after it, as one with bias. leaf: what its kernel
    is called here; convert: how it is turned."""
    scale, shift, mean, variance = _batch_norm(batch_norm)
    arrays = (f"{conv}.weight", scale, variance)
    yield Entry(f"{ours}/{leaf}", arrays, folded_kernel(epsilon, convert))
    yield Entry(f"{ours}/bias", (scale, shift, mean, variance), folded_bias(epsilon))


def folded_norm(ours: str, batch_norm: str, epsilon: float = TORCH_EPSILON) -> Iterator[Entry]:
    """`Affine` of a BatchNorm."""
    scale, shift, mean, variance = _batch_norm(batch_norm)
    yield Entry(
        f"{ours}/scale",
        (scale, variance),
        lambda weight, var: weight / np.sqrt(var.astype(np.float64) + epsilon),
    )
    yield Entry(f"{ours}/shift", (scale, shift, mean, variance), folded_bias(epsilon))


def _batch_norm(name: str) -> tuple[str, str, str, str]:
    return f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"


def counts_batches(name: str) -> bool:
    """Whether an array of that name only says how many batches a BatchNorm has seen."""
    return name.endswith("num_batches_tracked")


def places(depths: tuple[int, ...]) -> list[tuple[int, int]]:
    """(stage, index in it) of every block."""
    return [(stage, index) for stage, depth in enumerate(depths) for index in range(depth)]
