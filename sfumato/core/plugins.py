"""Functions from outside of the package, named `package.module:function`.

To import a module is to run its code. So a name that stands in a file (a model's, a run's) imports
nothing: files come from others. Only what the user named in this process is imported, by a flag of
the command line or as an argument.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from sfumato.core.errors import ArgumentError, SfumatoError, said

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_allowed: set[str] = set()
_given: dict[str, Callable[..., Any]] = {}


def is_name(text: str) -> bool:
    """Is it written as `package.module:function`?"""
    return _NAME.fullmatch(text) is not None or text in _given


def allow(*names: str | None) -> None:
    """The user named these, perhaps with values behind a comma; what is no name of a function is
    left alone."""
    bare = [name.partition(",")[0] for name in names if name is not None]
    _allowed.update(name for name in bare if is_name(name))


def given(function: Callable[..., Any]) -> str:
    """The name of a function that the user handed over itself."""
    name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
    _given[name] = function
    return name


@contextmanager
def running(argument: str, name: str) -> Iterator[None]:
    """Whatever code from outside raises -> ArgumentError that says where in it."""
    try:
        yield
    except SfumatoError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        own = [frame for frame in frames if frame.filename == file]
        place = (own or frames)[-1]
        told = f"{type(error).__name__}: {said(error)}"
        where = f"{os.path.basename(place.filename)}, line {place.lineno}"
        raise ArgumentError(argument, name, f"raised {told} ({where}); mend it") from error


def find(argument: str, name: str) -> Callable[..., Any]:
    """The function of that name. Raises ArgumentError where it is not allowed or not there."""
    if name in _given:
        return _given[name]
    if name not in _allowed:
        raise ArgumentError(
            argument,
            name,
            "is code from outside of sfumato, which is not run because a file names it; if you trust it, give "
            f"--trust {name} (from Python: trust={name!r})",
        )
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # at the end: what is installed comes first
    try:
        found = getattr(import_module(module), function)
    except Exception as error:  # whatever the module does
        raise ArgumentError(
            argument, name, f"cannot be imported ({said(error)}); mend it"
        ) from error
    if not callable(found):
        raise ArgumentError(argument, name, "is no function; name one")
    return found
