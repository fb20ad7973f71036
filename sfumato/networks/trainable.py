"""Which part of a network with public weights is trained.

head      the last layer
last:K    the last K blocks and what follows them
norms     scale and shift of every norm, and the head
bias      every bias and shift, and the head (BitFit: Ben Zaken et al. 2022, arXiv 2106.10199)
lora:R    updates of rank R beside every linear layer, and the head (Hu et al. 2021, arXiv 2106.09685)
all       everything
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from sfumato.core.checks import choice
from sfumato.core.errors import ArgumentError
from sfumato.networks.backbone import Backbone
from sfumato.networks.layers import lora

MODES = ("head", "last", "norms", "bias", "lora", "all")
_COUNTED = ("last", "lora")


def parse(mode: str) -> tuple[str, int]:
    """ "lora:8" -> ("lora", 8); 0 for a mode without a number. Raises ArgumentError."""
    name, colon, count = mode.partition(":")
    choice("train", name, MODES)
    if name in _COUNTED and not (count.isdecimal() and int(count) > 0):
        raise ArgumentError(
            "train", mode, f"give a number, such as {name}:{2 if name == 'last' else 8}"
        )
    if name not in _COUNTED and colon:
        raise ArgumentError("train", mode, f"write {name}, without a number")
    return name, int(count or 0)


def select(network: Any, mode: str, key: PRNGKeyArray) -> tuple[Any, PyTree]:
    """(network, mask): the network, perhaps in another structure that computes the same, and which
    of its leaves are trained, for `equinox.partition`. key: for the initial updates of lora.

    Raises ArgumentError for a mode that names what the network does not have.
    """
    name, count = parse(mode)
    if name == "all":
        return network, jax.tree.map(eqx.is_inexact_array, network)
    if name == "last":
        network, chosen = network.after(count)
        return network, _mask(network, chosen)
    if name == "lora":
        network = lora.adapt(network, count, key)
    parts: dict[str, Callable[[Backbone], list[Any]]] = {
        "head": _none,
        "norms": _norms,
        "bias": _biases,
        "lora": lora.updates,
    }
    if name != "head" and not parts[name](network):
        raise ArgumentError(
            "train", mode, "this network has none outside its head; use last:K or all"
        )
    return network, _mask(network, lambda tree: [*parts[name](tree), tree.head])


def finished(network: Any) -> Any:
    """The inverse of what `select` did to the structure: updates merged, blocks joined."""
    return lora.merge(network).joined() if isinstance(network, Backbone) else network


def _mask(network: Backbone, chosen: Callable[[Backbone], list[Any]]) -> PyTree:
    nothing = jax.tree.map(lambda leaf: False, network)
    return eqx.tree_at(
        chosen,
        nothing,
        replace=[jax.tree.map(eqx.is_inexact_array, part) for part in chosen(network)],
    )


def _none(network: Backbone) -> list[Any]:
    return []


def _norms(network: Backbone) -> list[Any]:
    """Scales and shifts of all modules that have both."""

    def is_norm(node: Any) -> bool:
        return isinstance(node, eqx.Module) and hasattr(node, "scale") and hasattr(node, "shift")

    return [
        part
        for node in jax.tree.leaves(network, is_leaf=is_norm)
        if is_norm(node)
        for part in (node.scale, node.shift)
    ]


def _biases(network: Backbone) -> list[Any]:
    """All leaves that are added, but the head's."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(network)
    names = [[getattr(entry, "name", "") for entry in path] for path, _ in leaves]
    return [
        leaf
        for (_, leaf), name in zip(leaves, names, strict=True)
        if name[-1] in ("bias", "shift") and name[0] != "head"
    ]
