"""Reading PyTorch's files without PyTorch, and without running what they say.

`torch.save` writes a zip archive: a pickle, PREFIX/data.pkl, and the raw numbers of every storage,
PREFIX/data/KEY. A pickle is a program that may call any function. This reader is not Python's: it
interprets the opcodes that make dictionaries of tensors, and no other; of functions it knows the
five kinds of names that a state dict needs, which lead to what is written here. Tensors stay
descriptions (storage, offset, shape, strides) until the state dict has been found, so the state of
an optimizer beside it is never read.
"""

import pickletools
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sfumato.core.archive import Archive
from sfumato.core.errors import WeightsError, said

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module")
"""Where training scripts put the state dict."""
_PREFIXES = ("module.", "_orig_mod.")
"""What wrappers for several devices, and torch.compile, put before all names."""
_DEEPEST = 4
_LARGEST_PICKLE = 1 << 22
"""That of a large public model is a tenth of this."""
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class Refused(ValueError):
    """The file asks for something that no state dict needs."""


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class _Function:
    call: Callable[..., Any]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name. Raises WeightsError for anything else."""
    try:
        if not zipfile.is_zipfile(path):
            raise Refused(_no_zip(path))
        with Archive(path) as archive:
            return _arrays(archive)
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


def _no_zip(path: Path) -> str:
    with open(path, "rb") as file:
        first = file.read(1)
    if first == b"\x80":
        return (
            "a bare pickle, as PyTorch wrote before version 1.6, which only running it could read; write it anew with "
            "torch.save(torch.load(file, weights_only=True), new_file), or convert it to safetensors"
        )
    return "no PyTorch file (not a zip archive), or its end is missing; fetch it again"


def _arrays(archive: Archive) -> dict[str, np.ndarray]:
    pickles = [
        name for name in archive.names if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(pickles) != 1:
        raise Refused(
            "a zip archive without PyTorch's data.pkl; write it with torch.save(model.state_dict(), file)"
        )
    folder = pickles[0].removesuffix("data.pkl")
    if archive.size(pickles[0]) > _LARGEST_PICKLE:
        raise Refused(
            f"its pickle has {archive.size(pickles[0]):,} bytes, far more than a state dict's; save the state dict "
            "alone, or convert it to safetensors"
        )
    if folder + "byteorder" in archive.names and archive.read(folder + "byteorder") != b"little":
        raise Refused("its numbers are big-endian; convert it to safetensors where it was written")
    tensors = _state_dict(_interpret(archive.read(pickles[0])))
    total = sum(4 * tensor.count for tensor in tensors.values())
    if total > archive.limit:
        raise Refused(f"its tensors claim {total:,} bytes, far more than the file has")

    @cache
    def content(storage: _Storage) -> bytes:
        found = archive.read(f"{folder}data/{storage.key}")
        if len(found) != storage.count * storage.dtype.itemsize:
            raise ValueError(
                f"storage {storage.key} has {len(found)} bytes for {storage.count} numbers"
            )
        return found

    return {name: _array(tensor, content) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, content: Callable[[_Storage], bytes]) -> np.ndarray:
    """NumPy, too, refuses a view that reaches beyond its buffer."""
    dtype = tensor.storage.dtype
    if tensor.count == 0:
        return np.zeros(tensor.shape, dtype)
    strides = [dtype.itemsize * stride for stride in tensor.strides]
    return np.ndarray(
        tensor.shape, dtype, content(tensor.storage), dtype.itemsize * tensor.offset, strides
    )


def _state_dict(value: Any) -> dict[str, _Tensor]:
    """The innermost dictionary of tensors, without a prefix common to all names. What is no tensor
    in it is left out."""
    for _ in range(_DEEPEST):
        if not isinstance(value, dict) or any(isinstance(item, _Tensor) for item in value.values()):
            break
        value = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), dict)), None)
    items = value.items() if isinstance(value, dict) else ()
    tensors = {
        key: item for key, item in items if isinstance(key, str) and isinstance(item, _Tensor)
    }
    if not tensors:
        raise Refused(
            "holds no state dict (names with tensors); write it with torch.save(model.state_dict(), file)"
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


# -- the few functions a state dict calls


def _ordered_dict() -> dict[Any, Any]:
    return {}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """torch._utils._rebuild_tensor_v2, whose last arguments concern gradients."""
    if (
        not isinstance(storage, _Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
    ):
        raise Refused("a tensor without storage, shape or strides")
    if any(
        type(number) is not int or not 0 <= number < 1 << 62
        for number in (offset, *shape, *strides)
    ):
        raise Refused("a tensor whose offset, shape or strides are not whole numbers of at least 0")
    tensor = _Tensor(storage, offset, shape, strides)
    if len(shape) != len(strides) or len(shape) > 32:
        raise Refused("a tensor whose shape and strides do not belong together")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if tensor.count and (last >= storage.count or tensor.count > storage.count):
        raise Refused(
            f"a tensor of shape {shape} that reaches beyond its storage of {storage.count} numbers"
        )
    return tensor


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_FUNCTIONS = {
    ("collections", "OrderedDict"): _Function(_ordered_dict),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Function(_parameter),
}


def _named(module: Any, name: Any) -> Any:
    if (module, name) in _FUNCTIONS:
        return _FUNCTIONS[module, name]
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    wanted = " ".join(f"{module}.{name}".split())[:100]
    raise Refused(
        f"a pickle with code: it asks for {wanted}, which a state dict never needs and which loading would run; write it with "
        "torch.save(model.state_dict(), file), or convert it to safetensors"
    )


def _persistent(identity: Any) -> _Storage:
    """("storage", kind, key, device, count)"""
    match identity:
        case ("storage", np.dtype() as dtype, str(key), _, int(count)) if 0 <= count < 1 << 62:
            return _Storage(key, dtype, count)
    raise Refused("a storage that is described in another way than PyTorch's")


# -- the interpreter

_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def _interpret(code: bytes) -> Any:
    """What a pickle describes. Memory is in proportion to its length: nothing is copied, and no
    size it states is believed."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    argument: Any
    for opcode, argument, _ in pickletools.genops(code):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case name if name in _VALUES:
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(marked()))
            case name if name in _TUPLES:
                stack.append(tuple([stack.pop() for _ in range(_TUPLES[name])][::-1]))
            case "APPEND":
                _extend(stack, [stack.pop()])
            case "APPENDS":
                _extend(stack, marked())
            case "SETITEM":
                _set(stack, [stack.pop(), stack.pop()][::-1])
            case "SETITEMS":
                _set(stack, marked())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(_named(*[stack.pop(), stack.pop()][::-1]))
            case "BINPERSID":
                stack.append(_persistent(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, _Function) or not isinstance(arguments, tuple):
                    raise Refused("its pickle calls something that is not a function")
                stack.append(function.call(*arguments))
            case "BUILD":  # an OrderedDict's attributes: versions of layers
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise Refused(
                        "its pickle sets attributes of something that is not a dictionary"
                    )
            case "STOP":
                return stack.pop()
            case name:
                raise Refused(
                    f"its pickle has the opcode {name}, which no state dict needs; convert it to safetensors"
                )
    raise ValueError("its pickle has no end")


def _extend(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise Refused("its pickle appends to something that is not a list")
    stack[-1].extend(items)


def _set(stack: list[Any], items: list[Any]) -> None:
    """Keys are text or whole numbers: the hash of a nest of tuples may take for ever."""
    if not isinstance(stack[-1], dict) or any(type(key) not in (str, int) for key in items[::2]):
        raise Refused("its pickle has a dictionary whose keys are not text")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))
