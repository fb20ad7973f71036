"""Reading the pickles of the CIFAR python archives without running what they say.

A pickle is a program: it may import any function and call it. This reader imports nothing. The few
names that a pickled uint8 array needs lead to the inert stand-ins below; any other name is refused.
The stand-ins only remember the shape and the bytes, so that asking for the number of images decodes
none.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sfumato.core.errors import DataError

_MOST_TUPLES = 40


class PickledArray:
    """What a pickled `numpy.ndarray` said about itself."""

    def __init__(self, *_: Any) -> None:
        self.shape: tuple[int, ...] = ()
        self._dtype: Any = None
        self._by_column = False
        self._data: bytes = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self._dtype, self._by_column, self._data = state

    def array(self) -> UInt8[np.ndarray, "..."]:
        """The array itself. Raises ValueError unless it is uint8 and its bytes fill its shape."""
        if not isinstance(self._dtype, _PickledDtype) or self._dtype.kind not in ("u1", b"u1"):
            raise ValueError("its array is not of uint8")
        flat = np.frombuffer(self._data, np.uint8)
        return flat.reshape(self.shape, order="F" if self._by_column else "C")


class _PickledDtype:
    def __init__(self, kind: Any = None, *_: Any) -> None:
        self.kind = kind

    def __setstate__(self, state: Any) -> None:
        pass


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("numpy.core.multiarray", "_reconstruct"): PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): PickledArray,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._left = len(content)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image batch needs")
        return _STAND_INS[module, name]

    def _encode(self, text: str, encoding: str = "latin1") -> bytes:
        """How Python 3 writes bytes into an old pickle: as a call that encodes a string, each
        string once."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("it encodes more text than it holds")
        return text.encode("latin1")


def _refuse_bomb(content: bytes) -> None:
    """Refuse what costs memory or time beyond the file's size before it is unpickled: a memo with
    gaps is given memory for all of them, and the hash of a nest of tuples (as a key) may take for
    ever.
    """
    tuples = 0
    for place, (operation, argument, _) in enumerate(pickletools.genops(content)):
        tuples += operation.name.startswith("TUPLE")
        if (
            operation.name in ("PUT", "BINPUT", "LONG_BINPUT")
            and not 0 <= int(argument or 0) <= place
        ):
            raise pickle.UnpicklingError("its memo has gaps")
    if tuples > _MOST_TUPLES:
        raise pickle.UnpicklingError(f"it has {tuples} tuples, of which an image batch needs few")


def read_batch(file: io.BufferedIOBase, path: Path | str) -> dict[str, Any]:
    """A pickled dictionary of plain values and `PickledArray`s, keys as text. Raises DataError for
    anything else."""
    try:
        content = file.read()
        _refuse_bomb(content)
        value = _Unpickler(content).load()
    except Exception as error:  # damaged opcodes surface as almost any exception
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{path}: refused as a CIFAR batch ({said}); fetch the file again from its official address"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}: holds a {type(value).__name__}, not the dictionary of a CIFAR batch; fetch it again"
        )
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): item
        for key, item in value.items()
    }
