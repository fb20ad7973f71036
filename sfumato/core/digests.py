"""A hash of named arrays: of names, types, shapes and every number."""

import hashlib
from collections.abc import Mapping

import numpy as np


def digest_of(arrays: Mapping[str, np.ndarray], first: str = "", mark: str = "") -> str:
    """SHA-256, in hexadecimal. first: hashed before the arrays; mark: before each name."""
    digest = hashlib.sha256(first.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{mark}{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
