"""JSON -> frozen dataclasses, with every type checked against the annotations.

A report must not guess: a missing key, a string where a number belongs, NaN, all end in one
`RunError` that names the file and the place in it. Keys that no dataclass asks for are ignored, so
that a run may write more than this reads.
"""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any

from sfumato.core.errors import RunError


class Damaged(Exception):
    """The value at some place in a file is not what it must be."""


def _refuse_constant(name: str) -> None:
    raise Damaged(f"{name} is not a number")


def parse(text: str) -> Any:
    """JSON without the NaN and Infinity that Python's reader lets through."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Damaged("this is not JSON") from None


def _dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise Damaged(f"{where or 'the file'} must be an object")
    hints, found = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        place = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            found[field.name] = convert(hints[field.name], value[field.name], place)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise Damaged(f"{place} is missing")
    return kind(**found)


def _scalar(kind: type, value: Any, where: str) -> Any:
    """bool is no number, an int may stand for a float, and a number is finite."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not kind:
        raise Damaged(f"{where} must be {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise Damaged(f"{where} must be finite")
    return value


def convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: a dataclass, tuple[T, ...], dict[str, T], T | None, Any, or a plain
    scalar."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast(type, kind), value, where)
    if origin is types.UnionType:
        present = next(each for each in arguments if each is not types.NoneType)
        return None if value is None else convert(present, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise Damaged(f"{where} must be a list")
        return tuple(convert(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise Damaged(f"{where} must be an object")
        return {key: convert(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    return _scalar(kind, value, where)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path}: this file is missing; a report needs the directory of a run that has trained "
            "(`sfumato resume` finishes an interrupted one)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: cannot be read ({type(error).__name__}); restore it or train again"
        ) from None


def read(kind: Any, path: Path) -> Any:
    """One JSON file as `kind`."""
    text = _text(path)
    try:
        return convert(kind, parse(text), "")
    except Damaged as error:
        raise RunError(f"{path}: damaged, {error}; restore it or train again") from None


def read_lines(kind: Any, path: Path) -> tuple[Any, ...]:
    """A JSON-lines file as a tuple of `kind`. A last line without its newline was cut by a crash
    and is left out."""
    found = []
    for number, line in enumerate(_text(path).split("\n")[:-1], start=1):
        try:
            found.append(convert(kind, parse(line), ""))
        except Damaged as error:
            raise RunError(
                f"{path}: line {number} is damaged, {error}; restore it or train again"
            ) from None
    return tuple(found)
