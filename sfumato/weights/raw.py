"""Weight files -> named arrays. Nothing in a file is run, and no size it states is believed before
it is checked."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.core.archive import Archive, npy_header
from sfumato.core.errors import WeightsError, said
from sfumato.weights.torch_files import read_torch

TORCH_SUFFIXES = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", ".npz", *TORCH_SUFFIXES)
_SAFE_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class RawWeights:
    """arrays: by the file's own names, half precision as float32. metadata: of a safetensors file.
    sha256: of the file."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    sha256: str


def read(path: Path | str, sha256: str | None = None) -> RawWeights:
    """The arrays of a .safetensors or .npz file or of a PyTorch state dict (.pth, .pt, .bin).

    sha256: the digest that the file must have. Raises WeightsError for a file that is missing,
    damaged, unsafe or not the one of that digest.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], tuple[dict[str, np.ndarray], dict[str, str]]]] = {
        ".safetensors": _read_safetensors,
        ".npz": lambda path: (_read_npz(path), {}),
    }
    readers |= dict.fromkeys(TORCH_SUFFIXES, lambda path: (read_torch(path), {}))
    if path.suffix not in readers:
        raise WeightsError(
            f"{path}: not a kind of weights file; give one that ends in {', '.join(SUFFIXES)}"
        )
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if sha256 not in (None, found):
        raise WeightsError(
            f"{path}: its SHA-256 is {found}, not {sha256}: the file is damaged or a different one; fetch it again"
        )
    arrays, metadata = readers[path.suffix](path)
    if not arrays:
        raise WeightsError(f"{path}: holds no arrays; fetch it again")
    return RawWeights({name: _widened(array) for name, array in arrays.items()}, metadata, found)


def _widened(array: np.ndarray) -> np.ndarray:
    """float16 and bfloat16 -> float32."""
    half = array.dtype == np.float16 or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if half else array


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in kinds.items():
                if kind not in _SAFE_DTYPES:
                    raise WeightsError(
                        f"{path}: {name} is of type {kind}; convert it to float32, bfloat16 or float16"
                    )
            return {name: file.get_tensor(name) for name in kinds}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        if isinstance(error, WeightsError):
            raise
        raise _damaged(path, error) from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with Archive(path) as archive:
            return {name.removesuffix(".npy"): _npy(archive.read(name)) for name in archive.names}
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        RuntimeError,
        NotImplementedError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _damaged(path, error) from None


def _npy(content: bytes) -> np.ndarray:
    """One array of numbers."""
    file = io.BytesIO(content)
    shape, by_column, dtype = npy_header(file, len(content))
    if dtype == np.dtype("V2"):  # how NumPy writes bfloat16
        dtype = _bfloat16()
    elif dtype.kind not in "fiub":
        raise ValueError(f"it holds an array of type {dtype}, not of numbers")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(
        shape, order="F" if by_column else "C"
    )


def _bfloat16() -> np.dtype:
    import jax.numpy as jnp

    return np.dtype(jnp.bfloat16)


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: damaged, or not what its name says ({type(error).__name__}: {said(error)}); fetch it again"
    )
