"""The run-time type checker of the tests: an int is welcome where a float is, as everywhere in
Python's typing.

jaxtyping's wrapper binds the arguments of every call, so that the names of axes mean the same in
all of a signature; it takes ten times as long as the check itself, and a quarter of the time of all
tests. Most signatures name no axis: `arrange` has the import hook give those the check alone.
"""

import inspect
import typing
from collections.abc import Callable
from typing import Any, ForwardRef

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))
SHAPED = jaxtyping.jaxtyped


def _may_name_axes(hint: Any) -> bool:
    """Whether a shape stands in an annotation, or something that is not known yet."""
    if isinstance(hint, str | ForwardRef | typing.TypeVar):
        return True
    if isinstance(hint, list | tuple):
        return any(map(_may_name_axes, hint))
    if hint is jaxtyping.PyTree:
        return False
    if isinstance(hint, type) and type(hint) is not type and "jaxtyping" in hint.__module__:
        return True
    return any(map(_may_name_axes, typing.get_args(hint)))


def checked(found: Any, *, typechecker: Callable[[Any], Any]) -> Any:
    """What jaxtyping's own decorator makes of it, but for functions whose signature has no shape."""
    if "<locals>" in found.__qualname__:
        return found  # it would be wrapped anew by every call of the function that it stands in
    if inspect.isfunction(found) and found.__annotations__.get("return") is typing.Self:
        return found  # beartype wants to see the class
    if not inspect.isfunction(found) or any(map(_may_name_axes, found.__annotations__.values())):
        return SHAPED(found, typechecker=typechecker)
    return check(found) if found.__annotations__ else found


def arrange(package: str) -> None:
    """All functions of a package that is imported from now on are checked when they are called, but for
    those within functions."""

    def decorator(*, typechecker: Any) -> Callable[[Any], Any]:
        return lambda found: checked(found, typechecker=typechecker)

    jaxtyping.jaxtyped = decorator  # type: ignore[assignment]
    jaxtyping.install_import_hook(package, "typecheck.check")
