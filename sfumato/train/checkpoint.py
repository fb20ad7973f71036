"""Checkpoints: one safetensors file and one JSON file in a directory that appears all at once. No
pickle.

A checkpoint knows how far the ledger had come when it was taken; resuming against a ledger that is
shorter or different is refused, since that ledger would under-count.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from sfumato.core.errors import RunError
from sfumato.core.files import (
    make_directory,
    read_json,
    remove_directory,
    sync_directory,
    write_atomic,
    write_json,
)
from sfumato.core.trees import by_name

_ARRAYS, _FACTS, _CHECKSUM = "state.safetensors", "facts.json", "sha256"


def save(directory: Path, state: PyTree, facts: dict[str, Any]) -> None:
    """Replace the checkpoint in `directory` by (state, facts); `load` finds the old one or the new
    one, never a mixture."""
    aside, old = _beside(directory, "new"), _beside(directory, "old")
    remove_directory(aside)
    make_directory(aside)
    content = encode(state)
    write_atomic(aside / _ARRAYS, content)
    write_json(aside / _FACTS, {**facts, _CHECKSUM: _checksum(content, facts)})
    if (
        directory.exists()
    ):  # a directory cannot be renamed over another: for a moment only `old` holds a checkpoint
        remove_directory(old)
        directory.rename(old)
    aside.rename(directory)
    sync_directory(directory.parent)
    remove_directory(old)


def encode(tree: PyTree) -> bytes:
    """A tree of arrays in the format of safetensors, by the names of its leaves."""
    from safetensors.numpy import save

    return save({name: np.asarray(leaf) for name, leaf in by_name(tree).items()})


def decode(path: Path, like: PyTree) -> PyTree:
    """The tree that a file holds, in the structure of `like`. Raises RunError if the file is missing
    or damaged, or has other shapes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: missing or damaged ({error}); restore it") from error
    return _restore(arrays, like, path)


def _checksum(arrays: bytes, facts: dict[str, Any]) -> str:
    """Of both files: a wrong step number would be as bad as a wrong array."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\n" + arrays).hexdigest()


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f"{directory.name}.{suffix}")


def load(directory: Path, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
    """The newest whole checkpoint, its arrays in the structure of `like`; None if there is none
    yet.

    Raises RunError if the checkpoint is damaged or has other shapes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as read

    if not directory.exists():
        directory = _beside(directory, "old")  # killed between the two renames
    if not directory.exists():
        return None
    try:
        content, facts = (directory / _ARRAYS).read_bytes(), read_json(directory / _FACTS)
        if facts.pop(_CHECKSUM, None) != _checksum(content, facts):
            raise ValueError("its checksum does not match")
        arrays = read(content)
    except (OSError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        raise RunError(
            f"{directory}: the checkpoint is damaged ({error}); delete it to repeat this run's steps"
        ) from error
    return _restore(arrays, like, directory), facts


def _restore(arrays: dict[str, np.ndarray], like: PyTree, directory: Path) -> PyTree:
    """Leaves that NumPy made come back as NumPy's, in their own precision."""
    filled = []
    for name, leaf in by_name(like).items():
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        found = arrays.get(name)
        if found is None or found.shape != np.shape(leaf) or found.dtype != kind:
            has = "none" if found is None else f"{found.shape} of {found.dtype}"
            raise RunError(
                f"{directory}: {name} should have shape {np.shape(leaf)} of {kind}, the file has "
                f"{has}; was the configuration changed?"
            )
        filled.append(jnp.asarray(found) if isinstance(leaf, jax.Array) else found)
    return jax.tree.unflatten(jax.tree.structure(like), filled)
