"""Reading PyTorch's files without PyTorch, and without running what they say (`torch_pickle.py`).

`torch.save` writes a zip archive: a pickle, PREFIX/data.pkl, and the raw numbers of every storage,
PREFIX/data/KEY. Before version 1.6 it wrote five pickles in a row (a magic number, a version, facts
of the machine, the state dict, the keys of its storages), then of each storage, in the order of the
keys, how many numbers it has (64 bits) and these.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.archive import Archive, most
from sfumato.core.errors import WeightsError, said
from sfumato.weights.torch_pickle import Refused, Storage, Tensor, interpret, state_dict

_LARGEST_PICKLE = 1 << 22
"""That of a large public model is a tenth of this."""
_PICKLE = b"\x80"
"""How pickles begin; zip archives do not."""
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_BIG_ENDIAN = "its numbers are big-endian; convert it to safetensors where it was written"


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name. Raises WeightsError for anything else."""
    try:
        with open(path, "rb") as file:
            if file.read(1) == _PICKLE:
                return _arrays(*_in_a_row(file), most(path))
        if not zipfile.is_zipfile(path):
            raise Refused(
                "no PyTorch file (not a zip archive), or its end is missing; fetch it again"
            )
        with Archive(path) as archive:
            return _arrays(*_zipped(archive), archive.limit)
    except Refused as error:
        raise WeightsError(f"{path}: refused: {error}") from None
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
        NotImplementedError,
        MemoryError,
        OverflowError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise WeightsError(
            f"{path}: damaged, or no PyTorch file ({type(error).__name__}: {said(error)}); fetch it again"
        ) from None


Contents = tuple[Any, Callable[[Storage], bytes]]
"""What the pickle describes, and the bytes of a storage."""


def _zipped(archive: Archive) -> Contents:
    pickles = [
        name for name in archive.names if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(pickles) != 1:
        raise Refused(
            "a zip archive without PyTorch's data.pkl; write it with torch.save(model.state_dict(), file)"
        )
    folder = pickles[0].removesuffix("data.pkl")
    if archive.size(pickles[0]) > _LARGEST_PICKLE:
        raise _too_large()
    if folder + "byteorder" in archive.names and archive.read(folder + "byteorder") != b"little":
        raise Refused(_BIG_ENDIAN)

    def content(storage: Storage) -> bytes:
        found = archive.read(f"{folder}data/{storage.key}")
        if len(found) != storage.bytes:
            raise ValueError(
                f"storage {storage.key} has {len(found)} bytes for {storage.count} numbers"
            )
        return found

    return interpret(archive.read(pickles[0]), {}), content


def _in_a_row(file: io.BufferedReader) -> Contents:
    """The layout before version 1.6. What is read of a storage is what the file is known to have."""
    file.seek(0)
    head = io.BytesIO(file.read(_LARGEST_PICKLE))
    storages: dict[str, Storage] = {}

    def following() -> Any:
        try:
            return interpret(head, storages)
        except Refused:
            raise
        except ValueError:
            if head.tell() == _LARGEST_PICKLE:
                raise _too_large() from None
            raise

    try:
        first = following()
    except Refused:
        first = None
    if first != _MAGIC:
        raise Refused(
            "a bare pickle, not what torch.save writes, which only running it could read; write it anew with "
            "torch.save(model.state_dict(), file), or convert it to safetensors"
        )
    if (version := following()) != _VERSION:
        # Of nested tuples the text would be endless; to compare them, too.
        told = version if isinstance(version, int) else type(version).__name__
        raise Refused(f"a layout of version {told}; convert it to safetensors")
    if following().get("little_endian") is not True:
        raise Refused(_BIG_ENDIAN)
    value, keys = following(), following()
    starts = _starts(file, head.tell(), keys, storages)

    def content(storage: Storage) -> bytes:
        file.seek(starts[storage.key])
        return file.read(storage.bytes)

    return value, content


def _starts(
    file: io.BufferedReader, at: int, keys: Any, storages: dict[str, Storage]
) -> dict[str, int]:
    """Key -> where its numbers begin, for storages that stand one behind the other from `at` on."""
    end, starts = file.seek(0, os.SEEK_END), {}
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(storages):
        raise Refused("the storages that it lists are not those of its tensors")
    for key in keys:
        file.seek(at)
        count = int.from_bytes(file.read(8), "little", signed=True)
        starts[key], at = at + 8, at + 8 + storages[key].bytes
        if count != storages[key].count or at > end:
            raise ValueError(
                f"storage {key} announces {count} numbers, its tensors {storages[key].count}, and the file has "
                f"{max(0, end - starts[key])} bytes for them"
            )
    return starts


def _too_large() -> Refused:
    return Refused(
        f"its pickle has more than {_LARGEST_PICKLE:,} bytes, far more than a state dict's; save the state dict "
        "alone, or convert it to safetensors"
    )


def _arrays(value: Any, content: Callable[[Storage], bytes], limit: int) -> dict[str, np.ndarray]:
    tensors = state_dict(value)
    total = sum(4 * tensor.count for tensor in tensors.values())
    if total > limit:
        raise Refused(f"its tensors claim {total:,} bytes, far more than the file has")
    held = cache(content)
    return {name: _array(tensor, held) for name, tensor in tensors.items()}


def _array(tensor: Tensor, content: Callable[[Storage], bytes]) -> np.ndarray:
    """NumPy, too, refuses a view that reaches beyond its buffer."""
    dtype = tensor.storage.dtype
    if tensor.count == 0:
        return np.zeros(tensor.shape, dtype)
    strides = [dtype.itemsize * stride for stride in tensor.strides]
    return np.ndarray(
        tensor.shape, dtype, content(tensor.storage), dtype.itemsize * tensor.offset, strides
    )
