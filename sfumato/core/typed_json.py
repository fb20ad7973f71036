"""JSON <-> frozen dataclasses, with every type checked against the annotations: the one reader of all
our files, the recipes' TOML included.

Nothing is guessed: a missing key, a string where a number belongs, NaN, all end in one line that
names the file and the place in it. Keys that no dataclass asks for are ignored, so that a run may
write more than this reads; `closed` refuses them, where a person may have mistyped one.

What a field may be: a plain scalar, a Literal, a Path, a dataclass, tuple[T, ...], tuple[T, T, T],
dict[str, T], T | None, T | U (the first that fits), Any; a class with `from_json`, which then reads itself; and
Annotated[T, Read(function)], where the type depends on what stands beside it. The fields
of a field with the metadata SECTION stand in its parent's JSON object.
"""

import contextlib
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sfumato.core.errors import RunError, SfumatoError

OLD_NAMES = {
    "gray": "grey",
    "colors": "colours",
    "optimizer": "optimiser",
    "physical_batch_size": "physical",
    "learned_from": "learnt_from",
}
"""Name of a field -> what files written before version 0.2 call it."""

RESTORE = "restore it or train again"

INFINITY = "inf"
"""The word for an infinite number, which JSON lacks. It is read where a field is `OrInfinity` alone."""


class Damaged(Exception):
    """The value at some place in a file is not what it must be."""


class Unknown(Damaged):
    """The value names what this version does not know; the file itself may be whole."""


@dataclasses.dataclass(frozen=True)
class Read:
    """In an annotation: the field is read by `function` from its own JSON value and its parent's JSON
    object."""

    function: Callable[[Any, Mapping[str, Any]], Any]


def or_infinite(value: Any) -> float:
    """A number, or the word for an infinite one. Raises ValueError."""
    if value == INFINITY:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"give a finite number, or the word {INFINITY}")
    return float(value)


OR_INFINITY = Read(lambda value, parent: or_infinite(value))
OrInfinity = typing.Annotated[float, OR_INFINITY]

SECTION = {"section": True}
"""Metadata of a field whose own fields stand in the JSON object of its parent."""


# -- reading


def _refuse_constant(name: str) -> None:
    raise Damaged(f"{name} is not a number")


def parse(text: str) -> Any:
    """JSON without the NaN and Infinity that Python's reader lets through."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Damaged("this is not JSON") from None


def convert(kind: Any, value: Any, where: str = "", closed: bool = False) -> Any:
    """`value` as `kind`. closed: names that no dataclass has are refused. Raises Damaged."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is typing.Annotated:
        return convert(arguments[0], value, where, closed)
    if hasattr(kind, "from_json"):
        return _by_itself(kind.from_json, where, value)
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind), value, where, closed)
    if origin in (types.UnionType, typing.Union):
        *others, last = [each for each in arguments if each is not types.NoneType]
        if value is None:
            return None
        for each in others:
            with contextlib.suppress(Damaged):
                return convert(each, value, where, closed)
        return convert(last, value, where, closed)
    if origin is typing.Literal:
        if value not in arguments:
            raise Damaged(f"{where} must be one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where, closed)
    if origin is dict:
        if not isinstance(value, dict):
            raise Damaged(f"{where or 'the file'} must be an object")
        return {
            key: convert(arguments[1], each, f"{where}.{key}" if where else key, closed)
            for key, each in value.items()
        }
    if kind is Path:
        return Path(_scalar(str, value, where))
    return _scalar(kind, value, where)


def _dataclass(kind: type, value: Any, where: str, closed: bool) -> Any:
    if not isinstance(value, dict):
        raise Damaged(f"{where or 'the file'} must be an object")
    if closed:
        _refuse_unknown(value, kind, where)
    found = {}
    for field, hint in _hints(kind):
        place = f"{where}.{field.name}" if where else field.name
        if field.metadata.get("section"):
            found[field.name] = _dataclass(hint, value, where, closed=False)
            continue
        own = field.name if field.name in value else OLD_NAMES.get(field.name, field.name)
        if own in value:
            found[field.name] = _field(hint, value, own, place, closed)
        elif dataclasses.MISSING is field.default and dataclasses.MISSING is field.default_factory:
            raise Damaged(f"{place} is missing")
    return _by_itself(lambda: kind(**found), where)


def _field(hint: Any, parent: dict[str, Any], name: str, place: str, closed: bool) -> Any:
    reader = next(
        (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Read)), None
    )
    if reader is not None:
        return _by_itself(reader.function, place, parent[name], parent)
    return convert(hint, parent[name], place, closed)


def _by_itself(make: Callable[..., Any], where: str, *arguments: Any) -> Any:
    """What a class says of its own values, in the words of this reader."""
    try:
        return make(*arguments)
    except SfumatoError as error:
        raise Damaged(f"{where}: {error}" if where else str(error)) from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise Damaged(f"{where or 'the file'} is not what it must be ({told})") from None


def _tuple(arguments: tuple[Any, ...], value: Any, where: str, closed: bool) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Damaged(f"{where} must be a list")
    if arguments in _PLAIN and {*map(type, value)} <= {arguments[0]}:
        return tuple(value)
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(value):
        raise Damaged(f"{where} must be a list of {len(kinds)}, not of {len(value)}")
    return tuple(
        convert(kind, each, f"{where}[{i}]", closed)
        for i, (kind, each) in enumerate(zip(kinds, value, strict=True))
    )


_PLAIN = ((int, ...), (str, ...))
"""Right when all types are: a confusion matrix of thousands of classes has millions of numbers."""


def _scalar(kind: type, value: Any, where: str) -> Any:
    """bool is no number, an int may stand for a float, and a number is finite."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not kind:
        raise Damaged(f"{where} must be {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Damaged(f"{where} must be finite")
    return value


@lru_cache(maxsize=64)
def _hints(kind: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(each, hints[each.name]) for each in dataclasses.fields(kind)]


def names(kind: type) -> Iterator[str]:
    """What may stand in the JSON object of a dataclass, its sections included."""
    for field, hint in _hints(kind):
        if field.metadata.get("section"):
            yield from names(hint)
        else:
            yield field.name


def _refuse_unknown(value: dict[str, Any], kind: type, where: str) -> None:
    known = list(names(kind))
    wrong = [each for each in value if each not in known and each not in OLD_NAMES.values()]
    if wrong:
        near = difflib.get_close_matches(wrong[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Damaged(f"{where + ': ' if where else ''}unknown entries {', '.join(wrong)}{hint}")


def text_of(path: Path) -> str:
    """A file's text. Raises RunError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path}: this file is missing; a report needs the directory of a run that has trained "
            "(`sfumato resume` finishes an interrupted one)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({type(error).__name__}); {RESTORE}") from None


def read(kind: Any, path: Path, closed: bool = False) -> Any:
    """One JSON file as `kind`. Raises RunError, one line."""
    text = text_of(path)
    try:
        return convert(kind, parse(text), "", closed)
    except Unknown as error:
        raise RunError(f"{path}: {error}") from None
    except Damaged as error:
        raise RunError(f"{path}: damaged, {error}; {RESTORE}") from None


def read_if_there(kind: Any, path: Path) -> Any:
    """As `read`; None where there is no such file."""
    return read(kind, path) if path.exists() else None


def read_lines(kind: Any, path: Path) -> tuple[Any, ...]:
    """A JSON-lines file as a tuple of `kind`. A last line without its newline was cut by a crash
    and is left out."""
    found = []
    for number, line in enumerate(text_of(path).split("\n")[:-1], start=1):
        try:
            found.append(convert(kind, parse(line)))
        except Damaged as error:
            raise RunError(f"{path}: line {number} is damaged, {error}; {RESTORE}") from None
    return tuple(found)


# -- writing


def entries(
    value: Mapping[str, Any], between: str = ".", before: str = ""
) -> Iterator[tuple[str, Any]]:
    """What is inside of nested objects, by the names of all that it is in: "procedure.clipping"."""
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from entries(each, between, f"{before}{name}{between}")
        else:
            yield f"{before}{name}", each


def plain(value: Any) -> Any:
    """A dataclass as what JSON can hold: the inverse of `convert`. A class with `to_json` writes
    itself."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            own = plain(getattr(value, field.name))
            found |= own if field.metadata.get("section") else {field.name: own}
        return found
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and value == math.inf:
        return INFINITY
    return str(value) if isinstance(value, Path) else value
