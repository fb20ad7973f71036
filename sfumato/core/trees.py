"""Names and norms of the leaves of a parameter tree."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sfumato.core.errors import ArgumentError


def leaf_names(tree: PyTree) -> list[str]:
    """One stable name per array leaf, such as "layers/0/weight", in the order of `jax.tree.leaves`."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [_name(path) for path, _ in paths]
    if len(set(names)) < len(
        names
    ):  # leaves of one name would share their noise, and one file entry
        twice = next(name for name in names if names.count(name) > 1)
        raise ArgumentError(
            "tree",
            twice,
            "two leaves have this name, such as {'a/b': ...} and {'a': {'b': ...}}; rename one",
        )
    return names


def by_name(tree: PyTree) -> dict[str, Any]:
    """Its array leaves by their `leaf_names`, in their order."""
    return dict(zip(leaf_names(tree), jax.tree.leaves(tree), strict=True))


def _name(path: tuple) -> str:
    parts = [
        str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry))))
        for entry in path
    ]
    return "/".join(parts) or "value"


def flat(tree: PyTree) -> Float[np.ndarray, " d"]:
    """All numbers of a tree, one leaf after the other, in float64."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def squared_norm(tree: PyTree[Float[Array, "..."]]) -> Float[Array, ""]:
    """Sum of squares over all leaves, accumulated in float32 (float16 squares underflow and would
    hide an example)."""
    leaves = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return sum(leaves, start=jnp.float32(0))
