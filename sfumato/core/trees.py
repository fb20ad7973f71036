"""Names and norms of the leaves of a parameter tree."""

import jax
import jax.numpy as jnp
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


def _name(path: tuple) -> str:
    parts = [
        str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry))))
        for entry in path
    ]
    return "/".join(parts) or "value"


def squared_norm(tree: PyTree[Float[Array, "..."]]) -> Float[Array, ""]:
    """Sum of squares over all leaves, accumulated in float32 (float16 squares underflow and would
    hide an example)."""
    leaves = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return sum(leaves, start=jnp.float32(0))
