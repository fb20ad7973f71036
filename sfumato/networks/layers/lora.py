"""Low-rank updates (Hu et al. 2021, arXiv 2106.09685): a frozen W and a trained A B of rank r
beside it.

B is zero at the start, so the network begins as it was. x A B is computed as (x A) B: two thin
products, whose per-example gradients are as cheap to clip as those of any linear layer.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sfumato.core.errors import ArgumentError
from sfumato.networks.backbone import Backbone
from sfumato.networks.layers.basic import Dense, Linear, fan_in_normal, like


class LowRank(eqx.Module):
    """x @ (weight + down @ up) + bias. The leading axis of layers is there where a network scans
    over them."""

    linear: Linear | Dense
    down: Float[Array, "*layers d r"]
    up: Float[Array, "*layers r p"]

    def __call__(self, row: Float[Array, "*rows d"]) -> Float[Array, "*rows p"]:
        return self.linear(row) + (row @ like(self.down, row)) @ like(self.up, row)

    def merged(self) -> Linear | Dense:
        """The one layer that computes the same."""
        return eqx.tree_at(
            lambda linear: linear.weight, self.linear, self.linear.weight + self.down @ self.up
        )


def adapt(network: Backbone, rank: int, key: PRNGKeyArray) -> Backbone:
    """The network with an update beside every linear layer but the head. Raises ArgumentError if
    there is none, or one too small for this rank.
    """
    layers = linear_layers(network)
    if not layers:
        raise ArgumentError(
            "train",
            f"lora:{rank}",
            "this network has no linear layer besides its head; use norms, bias or last:K",
        )
    smallest = min(min(layer.weight.shape[-2:]) for layer in layers)
    if rank > smallest:
        raise ArgumentError(
            "train",
            f"lora:{rank}",
            f"the smallest linear layer has rank {smallest}; give at most that",
        )
    keys = jax.random.split(key, len(layers))
    wrapped = [_beside(layer, rank, each) for layer, each in zip(layers, keys, strict=True)]
    return eqx.tree_at(linear_layers, network, wrapped)


def linear_layers(network: Backbone) -> list[Linear | Dense]:
    """All but the head."""
    return [layer for layer in _of_kind(network, (Linear, Dense)) if layer is not network.head]


def updates(network: Backbone) -> list[Any]:
    """The trained part of every layer that `adapt` wrapped."""
    return [part for layer in _of_kind(network, LowRank) for part in (layer.down, layer.up)]


def merge(network: Backbone) -> Backbone:
    """Every update added to its layer: a network of the original structure."""
    layers = _of_kind(network, LowRank)
    if not layers:
        return network
    return eqx.tree_at(
        lambda tree: _of_kind(tree, LowRank), network, [layer.merged() for layer in layers]
    )


def _beside(layer: Linear | Dense, rank: int, key: PRNGKeyArray) -> LowRank:
    *layers, inputs, outputs = layer.weight.shape
    return LowRank(
        layer,
        fan_in_normal(key, (*layers, inputs, rank), inputs),
        jnp.zeros((*layers, rank, outputs)),
    )


def _of_kind(tree: Any, kind: type | tuple[type, ...]) -> list[Any]:
    found = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    return [node for node in found if isinstance(node, kind)]
