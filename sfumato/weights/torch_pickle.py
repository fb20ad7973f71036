"""What the pickles of `torch.save` describe, without running them.

A pickle is a program that may call any function. This reader is not Python's: it interprets the
opcodes that make dictionaries of tensors, and no other; of functions it knows the five kinds of
names that a state dict needs, which lead to what is written here. Tensors stay descriptions
(storage, offset, shape, strides) until the state dict has been found, so the state of an optimizer
beside it is never read.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import jax.numpy as jnp
import numpy as np

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module")
"""Where training scripts put the state dict."""
_PREFIXES = ("module.", "_orig_mod.")
"""What wrappers for several devices, and torch.compile, put before all names."""
_DEEPEST = 4
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
class Storage:
    key: str
    dtype: np.dtype
    count: int

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class Tensor:
    """A view of a storage: offset and strides in elements."""

    storage: Storage
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


def state_dict(value: Any) -> dict[str, Tensor]:
    """The innermost dictionary of tensors, without a prefix common to all names. What is no tensor
    in it is left out."""
    for _ in range(_DEEPEST):
        if not isinstance(value, dict) or any(isinstance(item, Tensor) for item in value.values()):
            break
        value = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), dict)), None)
    items = value.items() if isinstance(value, dict) else ()
    tensors = {
        key: item for key, item in items if isinstance(key, str) and isinstance(item, Tensor)
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


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2, whose last arguments concern gradients."""
    if (
        not isinstance(storage, Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
    ):
        raise Refused("a tensor without storage, shape or strides")
    if any(
        type(number) is not int or not 0 <= number < 1 << 62
        for number in (offset, *shape, *strides)
    ):
        raise Refused("a tensor whose offset, shape or strides are not whole numbers of at least 0")
    tensor = Tensor(storage, offset, shape, strides)
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
    if not (isinstance(module, str) and isinstance(name, str)):  # see `_set`
        raise Refused("its pickle names a function by something that is not text")
    if (module, name) in _FUNCTIONS:
        return _FUNCTIONS[module, name]
    if module == "torch" and name in _DTYPES:
        return _DTYPES[name]
    wanted = " ".join(f"{module}.{name}".split())[:100]
    raise Refused(
        f"a pickle with code: it asks for {wanted}, which a state dict never needs and which loading would run; write it with "
        "torch.save(model.state_dict(), file), or convert it to safetensors"
    )


def _persistent(identity: Any) -> Storage:
    """("storage", kind, key, device, count), and None behind it before PyTorch 1.6."""
    match identity:
        case ("storage", np.dtype() as dtype, str(key), _, int(count), *view) if (
            0 <= count < 1 << 62 and view in ([], [None])
        ):
            return Storage(key, dtype, count)
    raise Refused("a storage that is described in another way than PyTorch's")


# -- the interpreter

_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


def interpret(code: bytes | BytesIO, storages: dict[str, Storage]) -> Any:
    """What a pickle describes; of a stream, the pickle where it stands, behind which it stands then.
    storages: by key, those that the pickle names are added.

    Memory is in proportion to the pickle's length: nothing is copied, and no size it states is
    believed (of a stream in memory). Raises Refused, and other errors for damage.
    """
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
                stack.append(storage := _persistent(stack.pop()))
                if storages.setdefault(storage.key, storage) != storage:
                    raise Refused(f"storage {storage.key} is described in two ways")
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
